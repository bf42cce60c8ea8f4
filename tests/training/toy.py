"""A network, a data set and a plan so small that a run takes a fraction of a second."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.checkpoint import ModelInfo
from rtseg.data.transforms import Augment, Preprocess
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Sample, SemanticOutput
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.loop import fit
from rtseg.training.optim import SCHEDULES, adamw
from rtseg.training.options import Plan, TrainData, TrainOptions
from rtseg.training.run_log import RunLog

CLASSES = (
    ClassInfo("low", (1, 2, 3)),
    ClassInfo("middle", (4, 5, 6)),
    ClassInfo("high", (7, 8, 9)),
)
PREPROCESS = Preprocess(mean=(127.5, 127.5, 127.5), std=(60.0, 60.0, 60.0), stride=4)


class Toy(nn.Module):
    """Two convolutions with batch norm and dropout: logits at half the size."""

    def __init__(self, *, dropout: float = 0.3, norm: bool = True, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.last(self.dropout(F.relu(self.norm(self.first(images))))))


class Pictures:
    """Images of noise in memory; the label is the brightness of the red channel in thirds."""

    classes = CLASSES
    kinds = ("semantic",)

    def __init__(
        self,
        length: int,
        *,
        size: tuple[int, int] = (16, 20),
        seed: int = 0,
        bad: Sequence[int] = (),
    ) -> None:
        self.length, self.size, self.seed, self.bad = length, size, seed, tuple(bad)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        path = f"picture/{index}"
        if index in self.bad:
            raise DataError("cannot be read", where=path)
        rng = np.random.default_rng([self.seed, index])
        image = rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
        return Sample(image, {"semantic": (image[..., 0] // 86).astype(np.uint8)}, path=path)


def toy_plan(
    *,
    model: nn.Module | None = None,
    train: Any = None,
    val: Any = None,
    select: bool = True,
    workers: int = 0,
    max_bad: float = 0.001,
    augment: Augment | None = None,
    weights: Sequence[float] | None = None,
    schedule: str = "poly",
    optimizer: Any = None,
    **options: Any,
) -> Plan:
    """Return a plan of a run on the CPU; `options` go to `TrainOptions`."""
    chosen = TrainOptions(**{"batch_size": 4, "device": "cpu", "log_every": 1, **options})
    if model is None:
        torch.manual_seed(chosen.seed)
        model = Toy()
    return Plan(
        model,
        SemanticTask(CLASSES, weights),
        TrainData(
            train if train is not None else Pictures(10),
            val,
            augment or Augment(crop=(12, 12), flip=0.5),
            PREPROCESS,
            workers,
            max_bad,
            select=select,
        ),
        chosen,
        optimizer or functools.partial(adamw, lr=0.01),
        SCHEDULES[schedule],
        ModelInfo("", {}, "semantic", CLASSES, {}),
    )


def run(plan: Plan, folder: Path, *, resume: bool = False, display: Any = None) -> dict[str, float]:
    """Train a plan into a folder."""
    return fit(plan, folder, RunLog(folder, display=display or (lambda _: None)), resume=resume)
