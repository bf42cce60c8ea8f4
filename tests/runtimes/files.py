"""Exported folders made by hand: a small network, its file, and a manifest that fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.checkpoint import ModelInfo, sha256
from rtseg.runtimes import MANIFEST, Manifest, Port
from rtseg.structures import ClassInfo, SemanticOutput

CLASSES = (ClassInfo("road", (128, 64, 128)), ClassInfo("sky", (70, 130, 180)))
INFO = ModelInfo("", {}, "semantic", CLASSES, {"stride": 4})


class Net(nn.Module):
    """Two strided convolutions: scores of 2 classes at a quarter of the size."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, len(CLASSES), 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.head(self.stem(images).relu()))


class Plain(nn.Module):
    """A network with its outputs as a plain tuple of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for value in self.network(image) if isinstance(value, Tensor))


def write_manifest(folder: Path, **changes: Any) -> Manifest:
    """Write the manifest of `model.onnx`, or of another file, as the changes say."""
    manifest = Manifest(
        format="onnx",
        file="model.onnx",
        files={},
        precision="fp32",
        image=Port("image", "float32", (None, 3, None, None)),
        outputs=(Port("logits", "float32", (None, 2, None, None)),),
        output="SemanticOutput",
        divisors=(4, 4),
        with_preprocess=False,
        with_argmax=False,
        config=json.loads(INFO.to_json()),
    )
    manifest = replace(manifest, **changes)
    files = {path.name: sha256(path) for path in folder.iterdir() if path.name != MANIFEST}
    manifest = replace(manifest, files=files)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def write_onnx(
    folder: Path,
    network: nn.Module,
    *,
    names: Sequence[str] = ("logits",),
    example: Tensor | None = None,
    **changes: Any,
) -> Path:
    """Write a network as ONNX for any batch and size, or for those of an example."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = None
    if example is None:
        example = torch.zeros(2, 3, 32, 32)
        free = torch.export.Dim.DYNAMIC
        shapes = ({0: free, 2: free, 3: free},)
    torch.onnx.export(
        Plain(network).eval(), (example,), folder / "model.onnx", dynamo=True, verbose=False,
        input_names=["image"], output_names=list(names), dynamic_shapes=shapes,
        external_data=False,
    )  # fmt: skip
    write_manifest(folder, **changes)
    return folder
