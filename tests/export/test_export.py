from __future__ import annotations

import hashlib
import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rtseg
from export.networks import CLASSES, PREPROCESS, Lanes, checkpoint, small
from inference.tiny import write_checkpoint
from rtseg.checkpoint import Checkpoint, create_model
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckFailedError, ConfigError, DataError
from rtseg.export import FORMATS, Format, export, onnx, torch_export
from rtseg.export.graph import Traced
from rtseg.quantization import prepare
from rtseg.runtimes import Manifest, open_export, read_manifest
from rtseg.structures import MaskOutput

onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (32, 40)


def operators(path: Path) -> set[str]:
    import onnx as library

    return {node.op_type for node in library.load(path).graph.node}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A folder that nobody changes, and what its export returned."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    return folder, export(small(), "onnx", folder, size=SIZE)


@pytest.fixture
def folder(exported: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(exported[0], tmp_path / "out")


def test_a_folder_holds_the_file_and_what_is_known_about_it(
    exported: tuple[Path, Manifest],
) -> None:
    folder, manifest = exported
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert read_manifest(folder) == manifest
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest.files == {"model.onnx": digest}
    assert (manifest.format, manifest.precision, manifest.output) == (
        "onnx", "fp32", "SemanticOutput",
    )  # fmt: skip
    assert manifest.divisors == (8, 8)
    assert manifest.config["classes"][1]["name"] == "car"
    assert manifest.config["preprocess"]["mean"] == [100, 110, 120]
    assert manifest.facts["size"] == [32, 40]
    assert manifest.facts["dynamic"] == ["batch", "hw"]
    assert manifest.facts["bytes"] == (folder / "model.onnx").stat().st_size
    assert manifest.facts["versions"]["onnx"]
    assert manifest.parity["engine"] == "onnxruntime"
    assert manifest.parity["error"] < 1e-5
    assert manifest.parity["agreement"] == 1
    assert len(manifest.parity["cases"]) == 6


def test_the_file_runs_without_rtseg_and_is_named(exported: tuple[Path, Manifest]) -> None:
    session = onnxruntime.InferenceSession(exported[0] / "model.onnx")
    (port,) = session.get_inputs()
    assert (port.name, port.shape) == ("image", ["batch", 3, "height", "width"])
    assert [item.name for item in session.get_outputs()] == ["logits"]
    images = torch.randn(3, 3, 56, 72)
    (logits,) = session.run(None, {"image": images.numpy()})
    with torch.no_grad():
        expected = small().model(images).logits
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


def test_pixels_in_and_classes_out(tmp_path: Path) -> None:
    loaded = small()
    manifest = export(
        loaded, "onnx", tmp_path / "out", size=SIZE, with_preprocess=True, with_argmax=True
    )
    assert manifest.parity["error"] is None
    assert (manifest.with_preprocess, manifest.with_argmax) == (True, True)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    pixels = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    (classes,) = session.run(["classes"], {"image": pixels})
    assert (classes.shape, classes.dtype) == ((1, 48, 64), np.uint8)
    images = Preprocess(**PREPROCESS).normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = loaded.model(images).logits.argmax(1)
    assert (classes == expected.numpy()).mean() > 0.999
    assert len(np.unique(classes)) > 1


def test_one_image_of_one_size(tmp_path: Path) -> None:
    loaded = checkpoint(Lanes(), "road_lane", tasks="lane")
    manifest = export(loaded, "onnx", tmp_path / "out", size=SIZE, dynamic=())
    assert manifest.image.shape == (1, 3, 32, 40)
    assert [port.name for port in manifest.outputs] == ["lane"]
    assert [case["batch"] for case in manifest.parity["cases"]] == [1, 1]
    output = open_export(tmp_path / "out").model(torch.randn(1, 3, 32, 40))
    assert output.drivable is None
    with pytest.raises(ConfigError, match="the file takes 32x40"):
        open_export(tmp_path / "out").model(torch.randn(1, 3, 40, 40))


@pytest.mark.slow
def test_half_precision_keeps_the_types_of_input_and_output(
    exported: tuple[Path, Manifest], tmp_path: Path
) -> None:
    whole = exported[1]
    half = export(small(), "onnx", tmp_path / "b", size=SIZE, precision="fp16")
    assert half.precision == "fp16"
    assert (half.image, half.outputs) == (whole.image, whole.outputs)
    assert "Cast" in operators(tmp_path / "b" / "model.onnx")
    assert 1e-6 < half.parity["error"] < 1e-2


def test_a_network_for_one_size_gets_a_file_for_one_size(tmp_path: Path) -> None:
    manifest = export(small(pool=5), "onnx", tmp_path / "out", size=SIZE)
    assert manifest.facts["dynamic"] == ["batch"]
    assert manifest.image.shape == (None, 3, 32, 40)
    with pytest.raises(ConfigError, match="dynamic: Small cannot take images of any size"):
        export(small(pool=5), "onnx", tmp_path / "b", size=SIZE, dynamic=("batch", "hw"))
    assert not (tmp_path / "b").exists()


def test_a_program_that_the_format_cannot_hold_gives_way_to_a_lesser_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(traced: Traced, folder: Path) -> str:
        if "hw" in traced.axes:
            raise RuntimeError("no such operator")
        return torch_export.write(traced, folder)

    name = "torch_export"
    monkeypatch.setitem(FORMATS, name, Format({"fp32": write}, typed=True))
    assert export(small(), name, tmp_path / "a", size=SIZE).facts["dynamic"] == ["batch"]
    with pytest.raises(ConfigError, match=r"cannot be written as .+ \(no such operator\)"):
        export(small(), name, tmp_path / "b", size=SIZE, dynamic=("hw",))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# ---------------------------------------------------------------- faults
def test_a_shifted_weight_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(traced: Traced, folder: Path) -> str:
        import onnx as library
        from onnx import numpy_helper

        name = onnx.write(traced, folder)
        model = library.load(folder / name)
        stem = next(item for item in model.graph.initializer if len(item.dims) == 4)
        values = numpy_helper.to_array(stem).copy()
        values[0] *= 1.001
        stem.CopyFrom(numpy_helper.from_array(values, stem.name))
        library.save(model, folder / name)
        return name

    monkeypatch.setitem(FORMATS, "onnx", Format({"fp32": write}, typed=True))
    with pytest.raises(CheckFailedError, match="output 'logits' differs") as caught:
        export(small(), "onnx", tmp_path / "out", size=SIZE)
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_aligned_corners_in_the_exported_copy_are_noticed(
    exported: tuple[Path, Manifest], folder: Path
) -> None:
    with pytest.raises(CheckFailedError, match="output 'logits' differs"):
        export(small(flipped=True), "onnx", folder, size=SIZE, overwrite=True)
    assert read_manifest(folder) == exported[1]


def test_wrong_classes_are_noticed_where_there_are_no_scores(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="all images: output 'classes' differs"):
        export(small(flipped=True), "torch_export", tmp_path / "b", size=SIZE, with_argmax=True)


def test_folders_are_replaced_only_when_asked_and_only_exports(folder: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        export(small(), "torch_export", folder, size=SIZE)
    export(small(), "torch_export", folder, size=SIZE, dynamic=(), overwrite=True)
    assert read_manifest(folder).format == "torch_export"
    assert not (folder / "model.onnx").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes.txt"):
        export(small(), "torch_export", folder, size=SIZE, overwrite=True)


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (30, 40)}, "30x40 is smaller than 32 or no multiple of .* stride 8; use 32x40"),
        ({"size": (64, 36)}, "use 64x40"),
        ({"precision": "int4"}, "precision 'int4' is unknown; use fp32 or fp16 or bf16"),
        ({"precision": "bf16"}, "for onnx, or openvino or torch_export or aoti"),
        ({"format_name": "onx"}, "format 'onx' is unknown; did you mean one of: onnx"),
    ],
)
def test_options_that_do_not_fit_are_named(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"format_name": "onnx", "size": SIZE, **options}
    with pytest.raises(ConfigError, match=message):
        export(small(), output=tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []


def test_tasks_without_class_maps_and_quantized_networks_are_refused(tmp_path: Path) -> None:
    class Queries(nn.Module):
        def forward(self, images: Tensor) -> MaskOutput:
            return MaskOutput(images.mean((2, 3))[:, :, None].expand(-1, -1, 5), images)

    with pytest.raises(ConfigError, match="with_argmax: PanopticTask gives no map of classes"):
        export(checkpoint(Queries(), "panoptic"), "onnx", tmp_path / "a", with_argmax=True)
    rounded = prepare(create_model("dabnet", len(CLASSES)).eval())
    with pytest.raises(ConfigError, match="is a quantized network"):
        export(checkpoint(rounded), "onnx", tmp_path / "a")


def test_the_size_is_that_of_the_preprocessing() -> None:
    from rtseg.export.writing import _size

    assert _size(None, Preprocess()) == (512, 1024)
    assert _size(None, Preprocess(stride=32, size=(360, 480))) == (384, 480)
    assert _size(None, Preprocess(stride=32, letterbox=(384, 640))) == (384, 640)
    assert _size((720, 960), Preprocess(stride=16)) == (720, 960)


@pytest.mark.slow
def test_a_checkpoint_is_exported_by_path(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "best")
    manifest = rtseg.export(
        tmp_path / "run", "torch_export", tmp_path / "out", size=(64, 96), dynamic=("batch",)
    )
    assert manifest.config["name"] == "dabnet"
    opened = open_export(tmp_path / "out")
    assert isinstance(opened, Checkpoint)
    assert [item.name for item in opened.info.classes] == ["road", "car", "sky"]


def test_the_package_and_the_function_share_a_name() -> None:
    assert rtseg.export is export
    importlib.reload(importlib.import_module("rtseg.export.choose"))
    importlib.import_module("rtseg.export")
    assert rtseg.export is export
