"""What each format and precision needs, and the formats that the other tests do not write."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from export.networks import small
from rtseg.errors import ConfigError, MissingError
from rtseg.export import FORMATS, export
from rtseg.export.formats import require_format
from rtseg.export.graph import Graph, traces
from rtseg.runtimes import open_export

SIZE = (32, 40)


def test_float_precisions_of_every_format() -> None:
    floats = {"fp32", "fp16", "bf16"}
    assert {name: floats - item.write.keys() for name, item in FORMATS.items()} == {
        "onnx": {"bf16"}, "openvino": set(), "torch_export": set(), "aoti": set(),
        "tensorrt": set(),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="for onnx, or openvino or torch_export"):
        require_format("onnx", "bf16")


@pytest.mark.parametrize("name", ["onnx", "openvino", "tensorrt"])
def test_a_missing_package_is_named_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = FORMATS[name].packages[0]
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda item: None if item == package else object()
    )
    with pytest.raises(MissingError, match=f"{package} is not installed; pip install"):
        require_format(name, "fp32")
    monkeypatch.setattr(importlib.util, "find_spec", found)


def test_a_program_of_torch_is_the_network(tmp_path: Path) -> None:
    loaded = small()
    manifest = export(loaded, "torch_export", tmp_path / "out", size=SIZE)
    assert sorted(manifest.files) == ["model.pt2"]
    assert manifest.parity["error"] < 1e-6
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    images = torch.randn(1, 3, 48, 56)
    with torch.no_grad():
        torch.testing.assert_close(program(images)[0], loaded.model(images).logits)


@pytest.mark.parametrize(
    "precision",
    ["fp32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fp16", "bf16"))],
)
def test_openvino_files(tmp_path: Path, precision: Any) -> None:
    pytest.importorskip("openvino")
    loaded = small()
    manifest = export(
        loaded, "openvino", tmp_path / "out", size=SIZE, dynamic=("batch",), precision=precision
    )
    assert sorted(manifest.files) == ["model.bin", "model.xml"]
    assert manifest.parity["engine"] == "openvino"
    weights = (tmp_path / "out" / "model.bin").stat().st_size
    count = sum(value.numel() for value in loaded.model.parameters())
    per_weight = 2 if precision == "fp16" else 4
    assert per_weight * count <= weights < (per_weight + 1.5) * count
    low, high = {"fp32": (0, 1e-5), "fp16": (1e-6, 1e-2), "bf16": (1e-4, 5e-2)}[precision]
    if precision != "bf16" or _computes_in_bf16():
        assert low < manifest.parity["error"] < high


def _computes_in_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_tensorrt_says_what_it_needs() -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("it is installed")
    with pytest.raises(MissingError, match="tensorrt is not installed; pip install tensorrt"):
        require_format("tensorrt", "fp16")


@pytest.mark.gpu
def test_tensorrt_engines(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    manifest = export(small(), "tensorrt", tmp_path / "out", size=SIZE)
    assert sorted(manifest.files) == ["model.engine"]
    assert open_export(tmp_path / "out", device="cuda").model.engine == "tensorrt"


class _Builder:
    """Records what a profile is asked for."""

    def create_optimization_profile(self) -> _Builder:
        return self

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.asked = (name, *shapes)


@pytest.mark.parametrize(
    ("axes", "shapes"),
    [
        (("batch", "hw"), [(1, 3, 32, 32), (2, 3, 32, 40), (5, 3, 64, 80)]),
        (("batch",), [(1, 3, 32, 40), (2, 3, 32, 40), (5, 3, 32, 40)]),
        (("hw",), [(1, 3, 32, 32), (1, 3, 32, 40), (1, 3, 64, 80)]),
    ],
)
def test_tensorrt_is_told_the_range_of_inputs(axes: Any, shapes: list[tuple[int, ...]]) -> None:
    from rtseg.export.tensorrt import _profile

    traced = next(traces(Graph(small().model), SIZE, divisors=(8, 8), axes=axes))
    builder = _Builder()
    assert _profile(builder, traced) is builder
    assert builder.asked == ("image", *shapes)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_packages(tmp_path: Path, precision: Any) -> None:
    loaded = small()
    manifest = export(loaded, "aoti", tmp_path / "out", size=SIZE, precision=precision)
    assert sorted(manifest.files) == ["model.pt2"]
    assert manifest.facts["device"] == "cpu"
    images = torch.randn(3, 3, 40, 48)
    output = open_export(tmp_path / "out").model(images)
    with torch.no_grad():
        expected = loaded.model(images).logits
    near = 1e-4 if precision == "fp32" else 5e-2
    assert (output.logits - expected).abs().max() < near * expected.abs().max()
