"""Every network, in the formats that engines read."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from rtseg.checkpoint import Checkpoint, ModelInfo, class_count, create_model
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.export import export
from rtseg.export.graph import Graph, traces
from rtseg.models import MODELS
from rtseg.runtimes import deployable

SIZE = (128, 160)
POOLS = (384, 416)
"""A size at which the largest pool of DAPPM still sees more than one position."""
ANY_SIZE = ("bisegunet", "bisenetformer", "bsdnet", "dabnet", "sctnet", "stdc", "twinmixing")
"""Beginnings of the names of networks whose files take any size."""
FORBIDDEN = {"If", "Loop", "Scan", "NonZero", "ScatterND"}
"""Operators that depend on values, or that engines run slowly."""
TASKS = {"bisenetformer": "semantic_masks", "twinmixing": "road_lane"}
STRIDES = {"bisegunet": 16, "bisenetformer": 32, "dabnet": 8, "lsa": 8, "twinmixing": 32}


JUMPS = 1e-2
"""Largest error of networks whose queries may jump; of others 1e-4."""


def limit(name: str) -> float:
    return JUMPS if name.startswith("bisenetformer") else 1e-4


def beginning(name: str) -> str:
    return name.split("_")[0]


@functools.lru_cache(maxsize=1)
def checkpoint(name: str) -> Checkpoint:
    """Return a network with random weights; its norms have the statistics of random images."""
    torch.manual_seed(0)
    model = create_model(name, class_count(name, len(CITYSCAPES_CLASSES))).train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(2, 3, 64, 96))
    task = "classification" if "classifier" in name else TASKS.get(beginning(name), "semantic")
    preprocess = {"stride": STRIDES.get(beginning(name), 1)}
    info = ModelInfo(name, {}, task, CITYSCAPES_CLASSES, preprocess)
    return Checkpoint(model.eval(), info, Path(name))


def operators(path: Path) -> set[str]:
    import onnx

    model = onnx.load(path)
    nested = {node.op_type for function in model.functions for node in function.node}
    return nested | {node.op_type for node in model.graph.node}


@pytest.mark.slow
def test_a_network_without_resizes_in_the_way(tmp_path: Path) -> None:
    """BSDNet-S for one size stands for all in the default run."""
    pytest.importorskip("onnxruntime")
    manifest = export(checkpoint("bsdnet_s"), "onnx", tmp_path / "out", size=(64, 96), dynamic=())
    assert not operators(tmp_path / "out" / "model.onnx") & FORBIDDEN
    assert manifest.parity["error"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bsdnet_s", "lsa_binet", "twinmixing_nano"])
def test_small_networks_follow_the_rules_of_graphs(name: str, tmp_path: Path) -> None:
    _check_onnx(name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_follows_the_rules_of_graphs(name: str, tmp_path: Path) -> None:
    _check_onnx(name, tmp_path)


def _check_onnx(name: str, folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    size = POOLS if name.startswith("sctnet") else SIZE
    manifest = export(checkpoint(name), "onnx", folder / "out", size=size)
    assert not operators(folder / "out" / "model.onnx") & FORBIDDEN
    assert manifest.parity["error"] <= limit(name)
    assert manifest.parity["agreement"] >= 0.9999
    free = name.startswith(ANY_SIZE)
    assert manifest.facts["dynamic"] == (["batch", "hw"] if free else ["batch"])
    assert len(manifest.parity["cases"]) == (6 if free else 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in sorted(MODELS) if name.endswith(("_s", "_nano", "_edge", "binet", "1"))],
)
def test_adaptive_pools_see_the_whole_map(name: str) -> None:
    graph = Graph(deployable(checkpoint(name).model))
    program = next(traces(graph, (64, 96), divisors=(1, 1), axes=())).program
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert len(calls) > 50
    adaptive = [node for node in calls if "adaptive" in str(node.target)]
    assert all(list(node.args[1]) == [1, 1] for node in adaptive)


@pytest.mark.long
@pytest.mark.parametrize("format_name", ["openvino", "torch_export", "aoti"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_in_every_format(name: str, format_name: str, tmp_path: Path) -> None:
    if format_name == "openvino":
        pytest.importorskip("openvino")
    manifest = export(checkpoint(name), format_name, tmp_path / "out", size=SIZE)
    assert manifest.parity["error"] <= limit(name)
    assert manifest.parity["agreement"] >= 0.9999


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in sorted(MODELS) if "classifier" not in name])
def test_every_network_from_pixels_to_classes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    manifest = export(
        checkpoint(name), "openvino", tmp_path / "out", size=SIZE,
        with_preprocess=True, with_argmax=True,
    )  # fmt: skip
    assert manifest.parity["agreement"] >= 0.9999
