from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import rtseg
from inference.tiny import CLASSES, write_checkpoint
from rtseg.benchmark.subjects import (
    RANDOM,
    complexity_of,
    engine_file,
    find_subject,
    random_checkpoint,
    runtimes_of,
    settle_norms,
)
from rtseg.checkpoint import ModelInfo
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.errors import CheckpointError, ConfigError


def test_a_checkpoint_is_found_by_folder_run_and_object(tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path / "run" / "best")
    for given in (best, best.parent, rtseg.load(best)):
        found = find_subject(given, folder=tmp_path, size=(64, 96))
        assert (found.name, found.source, found.folder) == ("dabnet", "checkpoint", best)
        assert found.size == (64, 96)
        assert [item.name for item in found.info.classes] == [item.name for item in CLASSES]
    assert find_subject(best, folder=tmp_path).size == (360, 480), "the paper's"


def test_a_name_becomes_a_network_with_random_weights(tmp_path: Path) -> None:
    found = find_subject("twinmixing_nano", folder=tmp_path)
    assert (found.source, found.size, found.row()["path"]) == (RANDOM, (384, 640), None)
    assert found.folder == tmp_path / "twinmixing_nano"
    again = random_checkpoint("twinmixing_nano", tmp_path / "again")
    assert (again.task, len(again.classes)) == ("road_lane", 2)
    first, second = (rtseg.load(tmp_path / name) for name in ("twinmixing_nano", "again"))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(first(images).drivable, second(images).drivable), "the seed is fixed"


def test_a_folder_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "lsa_binet")
    monkeypatch.chdir(tmp_path)
    assert find_subject("lsa_binet", folder=tmp_path).name == "dabnet"


def test_an_image_is_padded_and_a_tensor_is_not(tmp_path: Path) -> None:
    net = write_checkpoint(tmp_path / "net")  # its stride is 8
    tensor = find_subject(net, folder=tmp_path, size=(41, 64))
    image = find_subject(net, folder=tmp_path, size=(41, 64), fit="image")
    assert (tensor.size, tensor.input_size) == ((41, 64), (41, 64))
    assert (image.size, image.input_size) == ((41, 64), (48, 64))
    assert image.row()["size"] == [41, 64]
    assert image.complexity["size"] == [48, 64]
    assert image.complexity["macs"] > tensor.complexity["macs"]


def test_a_size_that_a_network_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--size: the image is 100x100, .* pad it to 112x128"):
        find_subject("twinmixing_nano", folder=tmp_path, size=(100, 100))
    found = find_subject("twinmixing_nano", folder=tmp_path, size=(100, 100), fit="image")
    assert found.input_size == (128, 128)


def test_what_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist; .* a network such as bsdnet_s,"):
        find_subject("bsdnet_ss", folder=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is no checkpoint folder; give"):
        find_subject(tmp_path / "empty", folder=tmp_path)


def test_costs_are_those_of_the_pages_of_the_networks() -> None:
    found = complexity_of(ModelInfo("bsdnet_s", {}, "semantic", CITYSCAPES_CLASSES, {}), (64, 128))
    # 4,354,355 are used in evaluation; heads for training come on top.
    assert found["parameters"]["total"] == found["parameters"]["trainable"] > 4_354_355
    # A fully convolutional network costs as much per pixel at any size.
    assert found["macs"] == pytest.approx(31_021_088_768 / 256, rel=0.01)
    assert found["gflops"] == 2 * found["macs"] / 1e9


@pytest.mark.parametrize("name", ["bisegunet_edge"])
def test_folding_batch_norms_saves_parameters_and_changes_no_products(name: str) -> None:
    classes = CITYSCAPES_CLASSES
    found = complexity_of(ModelInfo(name, {}, "", classes, {}), (64, 64))
    assert 0 < found["parameters"]["deployed"] < found["parameters"]["total"]
    assert found["deployed_macs"] == found["macs"] > 0


def test_batch_norms_move_towards_the_statistics_of_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.5))
    settle_norms(model)
    conv, norm = model[0], model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert not model.training
    # Unit noise: the mean is the bias, the variance the sum of the squared weights; five halves of
    # the way from 0 and 1 leave 1/32 of it.
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, conv.bias * 31 / 32, atol=0.02, rtol=0)
    expected = conv.weight.detach().square().sum(dim=(1, 2, 3)) * 31 / 32 + 1 / 32
    torch.testing.assert_close(norm.running_var, expected, rtol=0.05, atol=0)


def test_engines_have_names(tmp_path: Path) -> None:
    found = find_subject(write_checkpoint(tmp_path / "net"), folder=tmp_path, size=(64, 64))
    assert runtimes_of(found, None) == ["torch"]
    assert runtimes_of(found, ["torch", "openvino", "torch"]) == ["torch", "openvino"]
    with pytest.raises(ConfigError, match="'openvno' is unknown; did you mean 'openvino'"):
        runtimes_of(found, ["openvno"])


@pytest.mark.slow
def test_an_exported_folder_has_its_own_engine_precision_and_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    net = find_subject(write_checkpoint(tmp_path / "net"), folder=tmp_path, size=(64, 96))
    assert engine_file(net, "torch", "fp32", tmp_path) == net.folder
    folder = engine_file(net, "onnxruntime", "fp32", tmp_path)
    written = folder.stat().st_mtime_ns
    assert engine_file(net, "onnxruntime", "fp32", tmp_path).stat().st_mtime_ns == written
    found = find_subject(folder, folder=tmp_path)
    assert (found.name, found.source, found.precisions) == ("dabnet", "export", ("fp32",))
    assert found.size in {(64, 96), (360, 480)}, "the file's if it is fixed, else the paper's"
    assert runtimes_of(found, None) == ["onnxruntime"]
    assert engine_file(found, "onnxruntime", "fp32", tmp_path) == folder
    with pytest.raises(ConfigError, match="is an exported file"):
        engine_file(found, "torch", "fp32", tmp_path)
