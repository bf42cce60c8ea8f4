from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import CheckpointError, ConfigError, MissingError
from rtseg.runtimes import (
    ENGINES,
    NETWORKS,
    RUNTIMES,
    Port,
    Runtime,
    installed,
    open_export,
    read_manifest,
)
from rtseg.runtimes.onnxruntime import OnnxRuntime
from rtseg.runtimes.openvino import OpenVino, core
from rtseg.structures import ClassMapOutput, MaskOutput, RoadLaneOutput, SemanticOutput
from runtimes.files import CLASSES, Net, write_manifest, write_onnx

pytest.importorskip("onnxscript")
CPU = torch.device("cpu")
ON_CPU = [name for name in ("onnxruntime", "openvino") if name in installed()]
EITHER = pytest.mark.parametrize("runtime", ON_CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("export"), Net())


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the network's own forward
@EITHER
def test_outputs_equal_those_of_the_network_at_every_shape(folder: Path, runtime: str) -> None:
    loaded = open_export(folder, runtime=runtime)
    shapes = [(1, 3, 32, 32), (2, 3, 32, 64), (1, 3, 36, 32), (5, 3, 40, 44), (1, 3, 32, 32)]
    for seed, shape in enumerate(shapes * 2):  # the second time with memory of torch
        given = images(*shape, seed=seed)
        output = loaded(given)
        assert isinstance(output, SemanticOutput)
        assert output.aux == ()
        assert output.logits.dtype == torch.float32
        torch.testing.assert_close(output.logits, Net()(given).logits, rtol=1e-4, atol=1e-5)


@EITHER
def test_later_calls_leave_earlier_outputs_as_they_are(folder: Path, runtime: str) -> None:
    model = open_export(folder, runtime=runtime).model
    outputs = [model(images(1, 3, 32, 32, seed=seed)).logits for seed in range(4)]
    copies = [output.clone() for output in outputs]
    for seed in range(4, 8):
        model(images(1, 3, 32, 32, seed=seed))
    assert all(map(torch.equal, outputs, copies))
    assert not torch.equal(outputs[2], outputs[3])


@EITHER
def test_images_may_lie_in_memory_in_any_order(folder: Path, runtime: str) -> None:
    model = open_export(folder, runtime=runtime).model
    given = images(2, 3, 32, 36)
    expected = model(given).logits
    for same in (given.contiguous(memory_format=torch.channels_last), given.double()):
        assert torch.equal(model(same).logits, expected)
    wide = torch.zeros(2, 3, 32, 40)
    wide[..., :36] = given
    assert torch.equal(model(wide[..., :36]).logits, expected)


def test_a_runtime_is_a_module_without_parameters(folder: Path) -> None:
    loaded = open_export(folder, threads=1)
    model = loaded.model
    assert isinstance(model, Runtime)
    assert list(model.parameters()) == []
    assert list(model.modules()) == [model]
    assert not model.training
    assert model.to("cpu").eval().deployable() is model
    assert (model.engine, model.precision) == (ON_CPU[0], "fp32")
    assert not model.takes_pixels
    assert not model.gives_classes
    assert loaded.info.classes == CLASSES
    assert loaded.info.preprocess == {"stride": 4}
    assert loaded.path == folder


# ---------------------------------------------------------------- how the engines are set up
def test_onnxruntime_gets_its_threads_which_do_not_spin(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    engine = OnnxRuntime(folder / "model.onnx", read_manifest(folder), device=CPU, threads=1)
    options = engine.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_openvino_gets_its_threads_and_never_chooses_a_precision(folder: Path) -> None:
    pytest.importorskip("openvino")
    manifest = read_manifest(folder)
    kinds = {"fp32": "float", "fp16": "float", "bf16": "bfloat16"}
    capable = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in kinds if capable else ("fp32", "fp16"):
        asked = replace(manifest, precision=precision)
        engine = OpenVino(folder / "model.onnx", asked, device=CPU, threads=1)
        engine(images(1, 3, 32, 32))
        compiled = engine.compiled[1, 3, 32, 32]
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        assert f"'{kinds[precision]}'" in hint.replace("float32", "float")
        assert "LATENCY" in str(compiled.get_property("PERFORMANCE_HINT"))


def test_openvino_compiles_the_first_two_shapes_apart(folder: Path) -> None:
    pytest.importorskip("openvino")
    engine = OpenVino(folder / "model.onnx", read_manifest(folder), device=CPU, threads=1)
    sides = [32, 36, 40, 32, 44, 36]
    for side in sides:
        engine(images(1, 3, side, 32))
    assert list(engine.compiled) == [(1, 3, 32, 32), (1, 3, 36, 32), ()]


# ---------------------------------------------------------------- kinds of outputs and inputs
class Two(nn.Module):
    """Return what another function makes of the images."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, given: Tensor) -> Any:
        return self.function(given)


@EITHER
def test_outputs_are_named_by_the_manifest(tmp_path: Path, runtime: str) -> None:
    given = images(2, 3, 32, 32)
    halves = Two(lambda x: (x.mean((2, 3)).unsqueeze(1), x * 2))
    ports = (Port("class_logits", "float32", (None,)), Port("mask_logits", "float32", (None,)))
    folder = write_onnx(
        tmp_path / "masks", halves, names=["class_logits", "mask_logits"], outputs=ports,
        output="MaskOutput",
    )  # fmt: skip
    for _ in range(2):
        found = open_export(folder, runtime=runtime)(given)
        assert isinstance(found, MaskOutput)
        assert found.aux == ()
        torch.testing.assert_close(found.class_logits, given.mean((2, 3)).unsqueeze(1))
        torch.testing.assert_close(found.mask_logits, given * 2)


def test_a_head_that_is_not_there_is_none(tmp_path: Path) -> None:
    folder = write_onnx(
        tmp_path, Two(lambda x: (x[:, :2],)), names=["lane"], output="RoadLaneOutput",
        outputs=(Port("lane", "float32", (None,)),),
    )  # fmt: skip
    output = open_export(folder)(images(1, 3, 32, 32))
    assert isinstance(output, RoadLaneOutput)
    assert output.drivable is None
    assert torch.equal(output.lane, images(1, 3, 32, 32)[:, :2])


@EITHER
def test_a_file_that_normalizes_and_chooses_takes_pixels_and_gives_classes(
    tmp_path: Path, runtime: str
) -> None:
    darkest = Two(lambda x: (x.permute(0, 3, 1, 2).float().argmin(1).to(torch.uint8),))
    folder = write_onnx(
        tmp_path, darkest, names=["classes"], output="ClassMapOutput",
        example=torch.zeros(1, 32, 36, 3, dtype=torch.uint8), with_preprocess=True,
        with_argmax=True, image=Port("image", "uint8", (1, 32, 36, 3)),
        outputs=(Port("classes", "uint8", (1, 32, 36)),),
    )  # fmt: skip
    model = open_export(folder, runtime=runtime).model
    assert isinstance(model, Runtime)
    assert model.takes_pixels
    assert model.gives_classes
    pixels = torch.full((1, 32, 36, 3), 200, dtype=torch.uint8)
    pixels[:, :, :10, 2], pixels[:, :, 10:, 1] = 0, 7
    expected = torch.full((1, 32, 36), 1, dtype=torch.uint8)
    expected[..., :10] = 2
    floats = pixels.permute(0, 3, 1, 2).float() + 0.3  # what a resize may leave
    for given in (pixels, floats, pixels, floats):
        output = model(given)
        assert isinstance(output, ClassMapOutput)
        assert output.classes.dtype == torch.uint8
        assert torch.equal(output.classes, expected)
    with pytest.raises(ConfigError, match=r"input is 36x32 \(H x W\), the file takes 32x36"):
        model(pixels.transpose(1, 2))


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(3, 32, 32), r"input is \(3, 32, 32\) of torch.float32; give"),
        (torch.zeros(1, 4, 32, 32), r"input is \(1, 4, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "of torch.int64"),
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), "does not normalize; normalize it"),
        (torch.zeros(1, 3, 32, 34), r"32x34 \(H x W\), no multiple of 4x4"),
        (torch.zeros(1, 3, 30, 32), "30x32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(folder: Path, given: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_export(folder)(given)


def test_fixed_batches_and_sizes_are_named(tmp_path: Path) -> None:
    image = Port("image", "float32", (2, 3, 32, None))
    folder = write_onnx(tmp_path, Net(), image=image)
    model = open_export(folder).model
    assert model(torch.zeros(2, 3, 32, 48)).logits.shape == (2, 2, 8, 12)
    with pytest.raises(ConfigError, match="a batch of 1, the file takes 2; split the batch"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"36x32 \(H x W\), the file takes 32xany.*--size 36x32"):
        model(torch.zeros(2, 3, 36, 32))


def test_unknown_and_unfitting_runtimes_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        open_export(folder, runtime="openvno")
    with pytest.raises(ConfigError, match="'torch' does not open files of the format onnx; use"):
        open_export(folder, runtime="torch")
    with pytest.raises(MissingError, match="openvino cannot compute on cuda; use --device cpu"):
        open_export(folder, runtime="openvino", device="cuda")
    with pytest.raises(CheckpointError, match=r"manifest\.json: is not there"):
        open_export(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "papyrus"}, "unknown format 'papyrus'; update rtseg"),
        ({"config": {"format": 1}}, "cannot be read"),
        ({"output": "Poem"}, "has the outputs logits of Poem, which is unknown"),
        ({"outputs": (Port("logit", "float32", (None,)),)}, "outputs logit of SemanticOutput"),
        ({"outputs": ()}, "outputs none of"),
    ],
)
def test_manifests_that_do_not_fit_the_file_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    write_manifest(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_export(tmp_path)(torch.zeros(1, 3, 32, 32))


@EITHER
def test_an_output_that_the_file_has_not_is_refused(
    folder: Path, tmp_path: Path, runtime: str
) -> None:
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    write_manifest(
        tmp_path, output="MaskOutput", outputs=(Port("mask_logits", "float32", (None,)),)
    )
    with pytest.raises(CheckpointError, match=f"cannot be opened by {runtime} .*mask_logits"):
        open_export(tmp_path, runtime=runtime)


@EITHER
def test_a_file_that_is_no_network_is_refused_in_one_sentence(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network at all")
    write_manifest(tmp_path)
    with pytest.raises(CheckpointError, match=f"cannot be opened by {runtime}") as caught:
        open_export(tmp_path, runtime=runtime)
    assert "\n" not in str(caught.value)


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    write_manifest(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"model\.onnx: is missing or was changed"):
        open_export(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "manifest": 99}))
    with pytest.raises(CheckpointError, match="has format 99"):
        open_export(tmp_path)


# ---------------------------------------------------------------- the tables
def test_every_runtime_is_in_one_table() -> None:
    assert set(RUNTIMES) == set(NETWORKS) | set(ENGINES)
    assert all(RUNTIMES[name] == () for name in NETWORKS)
    assert RUNTIMES["openvino"][0] == "openvino"
    assert installed()["torch_export"] == importlib.metadata.version("torch")
    assert "tensorrt" not in installed("cpu")
    assert "openvino" not in installed("cuda")


def test_versions_are_found_under_both_names_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"onnxruntime-gpu": "9.8"}

    def version(name: str) -> str:
        if name not in known:
            raise importlib.metadata.PackageNotFoundError
        return known[name]

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert installed()["onnxruntime"] == "9.8"
    assert installed()["openvino"] == "of unknown version"


def test_a_missing_engine_names_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingError, match=r"onnxruntime is not installed; pip install 'rtseg\[o"):
        open_export(folder, runtime="onnxruntime")
