"""Files in eight bits as rtseg itself rounds: what they hold, and which checks they pass."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.networks import PREPROCESS, Small, checkpoint, small
from rtseg.checkpoint import Checkpoint
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.preprocess import Preprocess
from rtseg.data.spec import parse_spec
from rtseg.data.synthetic import Synthetic
from rtseg.errors import CheckFailedError, ConfigError, DataError
from rtseg.export import FORMATS, export, int8, onnx, writing
from rtseg.export.alone import AloneError, call_alone
from rtseg.export.graph import Traced
from rtseg.export.verify import Case, Reference
from rtseg.quantization import QuantizedNetwork, quantize
from rtseg.quantization.fake import integer_weight
from rtseg.runtimes import Manifest, open_export, read_manifest
from rtseg.structures import SemanticOutput

pytestmark = pytest.mark.slow  # quantizing and exporting take seconds each

onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (32, 40)
DATA = {name: Synthetic(split=name, size=SIZE, length=5) for name in ("train", "val")}


def street() -> Checkpoint:
    """Return a network with the classes of `DATA`."""
    torch.manual_seed(0)
    model = Small()
    model.head = nn.Conv2d(8, len(CITYSCAPES_CLASSES), 1)
    nn.init.normal_(model.head.weight)
    loaded = checkpoint(model)
    model.deployable = lambda: model  # type: ignore[method-assign]
    return dataclasses.replace(
        loaded, info=dataclasses.replace(loaded.info, classes=CITYSCAPES_CLASSES)
    )


def rounded(*, seed: int = 0) -> QuantizedNetwork:
    images = [torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 4 - 2]
    return quantize(small(seed=seed).model, images)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("int8") / "out"
    options: dict[str, Any] = {"precision": "int8", "size": SIZE, "calib": DATA, "calib_count": 3}
    return folder, export(street(), "onnx", folder, **options)


@pytest.fixture
def one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "engines", lambda *_: ["onnxruntime"])


def graph_of(path: Path) -> Any:
    import onnx as library

    return library.load(path).graph


# ---------------------------------------------------------------- the file
def test_figures_of_the_comparison_stand_in_the_manifest(written: tuple[Path, Manifest]) -> None:
    folder, manifest = written
    assert read_manifest(folder) == manifest
    assert manifest.precision == "int8"
    assert manifest.facts["dynamic"] == ["batch", "hw"]
    assert manifest.parity["engine"] == "onnxruntime"
    assert manifest.parity["agreement"] >= manifest.parity["gate"]["agreement"] > 0.95
    data = manifest.parity["data"]
    assert data["gate"] == 1.0
    assert data["scored"] == {"split": "val", "images": 3}
    assert (data["ranges"]["split"], data["ranges"]["count"]) == ("train", 3)
    assert len(data["ranges"]["sha256"]) == 64
    scores = data["scores"]["miou"]
    assert 0 < scores["fp32"] != scores["int8"]
    assert abs(scores["fp32"] - scores["int8"]) <= 0.01


def test_openvino_reads_the_same_file(written: tuple[Path, Manifest]) -> None:
    pytest.importorskip("openvino")
    folder, manifest = written
    assert manifest.parity["others"]["openvino"] >= manifest.parity["gate"]["agreement"]
    images = torch.randn(1, 3, *SIZE)
    ours, theirs = (
        open_export(folder, runtime=name).model(images).logits
        for name in ("onnxruntime", "openvino")
    )
    assert (ours - theirs).abs().max() < 0.02 * ours.abs().max()


@pytest.mark.usefixtures("one_engine")
def test_weights_are_bytes_with_the_scales_of_torch(tmp_path: Path) -> None:
    network = rounded()
    export(checkpoint(network), "onnx", tmp_path / "out", precision="int8", size=SIZE)
    from onnx import numpy_helper

    held = {
        item.name: numpy_helper.to_array(item)
        for item in graph_of(tmp_path / "out" / "model.onnx").initializer
    }
    for layer in (network.network.stem[0].layer, network.network.head[0].layer):
        integers, scale = integer_weight(layer.weight)
        assert any(
            value.dtype == np.int8 and np.array_equal(value, integers.numpy())
            for value in held.values()
        )
        assert any(np.array_equal(value, scale.numpy()) for value in held.values())
    scale, zero = network.network.stem[1].grid()
    assert any(value.shape == () and value == scale.numpy() for value in held.values())
    assert any(value.dtype == np.uint8 and value == zero.numpy() for value in held.values())
    assert not any(value.dtype == np.float32 and value.ndim == 4 for value in held.values())


@pytest.mark.usefixtures("one_engine")
def test_the_file_computes_what_torch_simulates(tmp_path: Path) -> None:
    network = rounded()
    export(checkpoint(network), "onnx", tmp_path / "out", precision="int8", size=SIZE)
    images = torch.rand(2, 3, 48, 56) * 4 - 2
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", options)
    (logits,) = session.run(None, {"image": images.numpy()})
    with torch.no_grad():
        expected = network(images).logits
        real = small().model(images).logits
    near = np.isclose(logits, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert near.mean() > 0.99
    assert np.isclose(logits, real.numpy(), rtol=1e-4, atol=1e-4).mean() < 0.5


@pytest.mark.usefixtures("one_engine")
def test_onnx_runtime_multiplies_bytes(tmp_path: Path) -> None:
    export(checkpoint(rounded()), "onnx", tmp_path / "out", precision="int8", size=SIZE)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", options)
    kinds = Counter(node.op_type for node in graph_of(tmp_path / "optimized.onnx").node)
    assert (kinds["QLinearConv"], kinds["Conv"]) == (2, 0)


# ---------------------------------------------------------------- networks that are quantized
def test_a_network_with_ranges_of_its_own_takes_no_images(tmp_path: Path) -> None:
    loaded = checkpoint(rounded())
    with pytest.raises(ConfigError, match="calib: the network is quantized already"):
        export(loaded, "onnx", tmp_path / "a", precision="int8", size=SIZE, calib=DATA)
    with pytest.raises(ConfigError, match="run/best: is a quantized network, whose rounding no"):
        export(loaded, "onnx", tmp_path / "a", size=SIZE)
    with pytest.raises(ConfigError, match="calib: fp32 needs no images"):
        export(small(), "onnx", tmp_path / "a", size=SIZE, calib=DATA)
    with pytest.raises(ConfigError, match="calib: int8 needs images to take ranges from"):
        export(small(), "onnx", tmp_path / "a", precision="int8", size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_it_becomes_a_file_of_openvino_without_nncf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pytest.importorskip("openvino")
    monkeypatch.setattr(writing, "engines", lambda *_: ["openvino"])
    network = rounded()
    manifest = export(
        checkpoint(network), "openvino", tmp_path / "out", precision="int8", size=SIZE
    )
    assert "data" not in manifest.parity
    model = engine.Core().read_model(str(tmp_path / "out" / "model.xml"))
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert kinds["FakeQuantize"] == 4
    types = {node.get_element_type().get_type_name() for node in model.get_ops()}
    assert "i8" in types


# ---------------------------------------------------------------- checks
@pytest.mark.usefixtures("one_engine")
def test_a_wrong_scale_in_the_file_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(traced: Traced, folder: Path) -> str:
        import onnx as library
        from onnx import numpy_helper

        name = onnx.write(traced, folder)
        model = library.load(folder / name)
        used = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
        scale = next(item for item in model.graph.initializer if item.name == used)
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, used))
        library.save(model, folder / name)
        return name

    monkeypatch.setitem(FORMATS["onnx"].write, "int8", write)
    with pytest.raises(CheckFailedError, match="output 'logits' differs") as caught:
        export(checkpoint(rounded()), "onnx", tmp_path / "out", precision="int8", size=SIZE)
    assert caught.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_differ_as_much_as_the_network_from_itself() -> None:
    batches = [Case(SIZE, 2)]
    network = rounded()
    reference = Reference(network, Preprocess(**PREPROCESS))
    gate = int8.tolerance(network, reference, batches)
    assert gate.error is None
    assert 0.95 < gate.agreement <= 0.998

    class Edge(nn.Module):
        """Round values that lie on the border between two bytes; shaken, all fall down."""

        def __init__(self) -> None:
            super().__init__()
            self.round = int8.FakeQuantize()
            self.round.high.fill_(255)

        def forward(self, images: Tensor) -> SemanticOutput:
            half = self.round(torch.full_like(images[:, :1], 0.5))
            half[:, :, :, 1:] = 0
            return SemanticOutput(torch.cat((half - 0.5, 0 * half), dim=1))

    edge = QuantizedNetwork(Edge()).eval()
    gate = int8.tolerance(edge, Reference(edge, Preprocess(**PREPROCESS)), batches)
    assert gate.agreement == pytest.approx(1 - 0.002 - 4 / 40)
    assert int8.tolerance(small().model, reference, batches) == int8.RUN


@pytest.mark.parametrize(("gate", "fine"), [(1.0, False), (1.2, True)])
def test_a_score_may_drop_by_the_gate(
    monkeypatch: pytest.MonkeyPatch, gate: float, fine: bool
) -> None:
    loaded, found = street(), iter([{"miou": 0.5}, {"miou": 0.489}])
    monkeypatch.setattr(int8, "score", lambda *_: SimpleNamespace(scores=next(found)))
    preprocess = Preprocess(**PREPROCESS)
    images = int8.open_images(DATA, preprocess, count=2)
    reference = Reference(loaded.model, preprocess)

    def judged() -> dict[str, Any]:
        return int8.judge(loaded, loaded, images, reference=reference, gate=gate)

    if fine:
        assert judged()["scores"] == {"miou": {"fp32": 0.5, "int8": 0.489}}
    else:
        with pytest.raises(CheckFailedError, match=r"0.4890 instead of 0.5000: 1.10 points lower"):
            judged()


@pytest.mark.usefixtures("one_engine")
@pytest.mark.parametrize(("alike", "fine"), [(0.5, True), (1.01, False)])
def test_without_labels_pixels_keep_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: float, fine: bool
) -> None:
    monkeypatch.setattr(int8, "ALIKE", alike)
    loaded = small()  # other classes than those of the data
    options: dict[str, Any] = {"precision": "int8", "size": SIZE, "calib": DATA, "calib_count": 2}
    options |= {"with_preprocess": True, "with_argmax": True}
    if not fine:
        with pytest.raises(CheckFailedError, match="pixels keep their class, at least 101% have"):
            export(loaded, "onnx", tmp_path / "out", **options)
        assert list(tmp_path.iterdir()) == []
        return
    data = export(loaded, "onnx", tmp_path / "out", **options).parity["data"]
    assert 0.9 < data["agreement"] < 1
    assert data["gate"] == 0.5
    pixels = torch.from_numpy(np.stack([DATA["val"][index].image for index in (0, 1)]))
    assert len(open_export(tmp_path / "out").model(pixels).classes.unique()) > 1


# ---------------------------------------------------------------- images
def test_images_are_drawn_of_both_splits() -> None:
    preprocess = Preprocess(**PREPROCESS)
    images = int8.open_images(DATA, preprocess, count=2)
    assert images.splits == ("train", "val")
    assert len(list(images.calibration)) == len(images.scored) == 2
    place = images.calibration.indices[0]
    torch.testing.assert_close(
        next(iter(images.calibration)), preprocess.fit(DATA["train"][place].image).image[None]
    )
    (pixels, *_) = images.in_pixels(scored=True)
    scored = {str(image.image.tobytes()) for image in (DATA["val"][index] for index in range(5))}
    assert str(pixels[0].permute(1, 2, 0).byte().numpy().tobytes()) in scored
    only = int8.open_images({"val": DATA["val"]}, preprocess, count=9)
    assert (only.splits, len(only.scored)) == (("val", "val"), 5)
    other = int8.open_images({"day": DATA["val"]}, preprocess, count=1)
    assert other.splits == ("day", "day")
    with pytest.raises(DataError, match="nowhere: does not exist"):
        int8.open_images("nowhere", preprocess, count=1)


# ---------------------------------------------------------------- a process of its own
def test_what_a_process_does_to_itself_is_told() -> None:
    call_alone(print, "remarks of an engine")
    with pytest.raises(AloneError, match=r"crashed \(signal 6\)"):
        call_alone(os.abort)
    with pytest.raises(AloneError, match=r"failed \(ValueError: invalid literal"):
        call_alone(int, "x")
    with pytest.raises(DataError, match="nowhere: does not exist") as caught:
        call_alone(parse_spec, "nowhere")
    assert caught.value.exit_code == 3


def test_a_file_that_ends_an_engine_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: Traced, folder: Path) -> str:
        (folder / "model.onnx").write_bytes(b"no graph")
        return "model.onnx"

    monkeypatch.setitem(FORMATS["onnx"].write, "int8", write)
    monkeypatch.setattr(int8, "installed", lambda: {"onnxruntime": ""})
    with pytest.raises(CheckFailedError, match="onnx: onnxruntime does not run it: cannot"):
        export(checkpoint(rounded()), "onnx", tmp_path / "out", precision="int8", size=SIZE)
    assert list(tmp_path.iterdir()) == []
