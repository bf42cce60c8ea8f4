"""Small networks to export, each with its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.structures import ClassInfo, RoadLaneOutput, SemanticOutput

NAMES = ("road", "car", "sky", "tree")
CLASSES = tuple(
    ClassInfo(name, (40 * i, 0, 0), thing=name == "car") for i, name in enumerate(NAMES)
)
PREPROCESS: dict[str, Any] = {"mean": [100, 110, 120], "std": [60, 50, 40], "stride": 8}


class Small(nn.Module):
    """Two convolutions at half the size; the result is resized inside.

    pool: side of the pooled map that is added, which only one size of image makes exactly.
    flipped: the deployable form resizes with aligned corners, which is wrong.
    """

    def __init__(self, *, pool: int | None = None, flipped: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, len(NAMES), 1)
        self.pool, self.flipped, self.aligned = pool, flipped, False
        nn.init.normal_(self.head.weight)

    def forward(self, images: Tensor) -> SemanticOutput:
        """Score every pixel."""
        x = F.relu(self.stem(images))
        if self.pool is not None:
            side = int(x.shape[-1]) // self.pool
            x = x + F.interpolate(F.max_pool2d(x, side), size=x.shape[-2:])
        size = images.shape[-2:]
        logits = F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=self.aligned)
        return SemanticOutput(logits)

    def deployable(self) -> Small:
        """Return a copy."""
        clone = Small(pool=self.pool)
        clone.load_state_dict(self.state_dict())
        clone.aligned = self.flipped
        return clone.eval()


class Lanes(nn.Module):
    """One map of lanes, from one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: Tensor) -> RoadLaneOutput:
        """Score lanes alone."""
        return RoadLaneOutput(None, self.conv(images))


def checkpoint(
    model: nn.Module,
    task: str = "semantic",
    *,
    stride: int = 8,
    **options: Any,
) -> Checkpoint:
    """Return a checkpoint of a network, as if it had been loaded."""
    recipe = {"task": {"name": task, **options}}
    info = ModelInfo("", {}, task, CLASSES, {**PREPROCESS, "stride": stride}, recipe)
    return Checkpoint(model.eval(), info, Path("run/best"))


def small(*, seed: int = 0, pool: int | None = None, flipped: bool = False) -> Checkpoint:
    """Return a checkpoint of `Small`."""
    torch.manual_seed(seed)
    return checkpoint(Small(pool=pool, flipped=flipped))
