"""Runs that must not depend on how their batches are divided; `python parity.py FOLDER PROCESSES`.

Images differ in how many of their pixels are labelled, and in how many masks they have. Chance is
kept out: no dropout, frozen batch norms, and the same points for every mask.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.data.transforms import Augment
from rtseg.losses.batch import batch_sum
from rtseg.losses.cross_entropy import ohem_cross_entropy
from rtseg.losses.distillation import match_statistics, ofa_distillation
from rtseg.structures import (
    IGNORE_INDEX,
    ClassificationOutput,
    ClassInfo,
    MaskOutput,
    RoadLaneOutput,
    Sample,
    Segment,
    SemanticOutput,
)
from rtseg.tasks import TASKS
from rtseg.training import run_log
from rtseg.training.loop import fit
from rtseg.training.optim import sgd
from rtseg.training.options import Plan
from rtseg.training.run_log import RunLog
from training.toy import toy_plan

STEPS, BATCH, QUERIES = 20, 8, 6
CLASSES = tuple(ClassInfo(name, (0, 0, 0), thing=name == "c") for name in "abc")
WEIGHTS = (0.5, 1.0, 3.0)


class Uneven:
    """Noise with labels of every kind; image i has about i / 12 of its pixels void."""

    classes = CLASSES
    kinds = ("semantic", "drivable", "lane", "panoptic", "class")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int, /) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        void = rng.random((16, 20)) < index / 12
        semantic = np.minimum(image[..., 0] // 86, index % 3).astype(np.uint8)
        labels: dict[str, NDArray[Any]] = {
            name: np.where(void, IGNORE_INDEX, values).astype(np.uint8)
            for name, values in (
                ("semantic", semantic),
                ("drivable", image[..., 1] > 100),
                ("lane", image[..., 2] > 220),
            )
        }
        labels["panoptic"] = np.where(void, 0, semantic + 1).astype(np.int32)
        labels["class"] = np.array(index % 3, np.int64)
        segments = tuple(Segment(item + 1, item) for item in range(index % 3 + 1))
        return Sample(image, labels, segments, path=f"uneven/{index}")


class Net(nn.Module):
    """A convolution with batch norm, and the outputs that a task needs."""

    def __init__(self, make: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.maps, self.aux = nn.Conv2d(8, QUERIES, 1), nn.Conv2d(8, QUERIES, 1)
        self.scores = nn.Linear(8, QUERIES * 4)
        self.make = make

    def forward(self, images: Tensor) -> Any:
        return self.make(self, self.stem(images))

    def masks(self, features: Tensor) -> MaskOutput:
        classes = self.scores(features.mean((2, 3))).view(-1, QUERIES, 4)
        earlier = MaskOutput(classes * 0.5, self.aux(features))
        return MaskOutput(classes, self.maps(features), (earlier,))


def maps(net: Net, features: Tensor) -> SemanticOutput:
    return SemanticOutput(net.maps(features)[:, :3], (net.aux(features)[:, :3],))


def road(net: Net, features: Tensor) -> RoadLaneOutput:
    found = net.maps(features)
    return RoadLaneOutput(found[:, :2], found[:, 2:4])


def whole(net: Net, features: Tensor) -> ClassificationOutput:
    return ClassificationOutput(net.scores(features.mean((2, 3)))[:, :3])


@dataclasses.dataclass(frozen=True)
class Case:
    """A task with its options; `parts`: whether its terms may also come from parts of a batch."""

    task: str
    make: Callable[[Net, Tensor], Any]
    weights: tuple[float, ...] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    parts: bool = True


CASES = {
    "ce": Case("semantic", maps, WEIGHTS, {"label_smoothing": 0.1, "aux_weight": 0.4}),
    "dice": Case("semantic", maps, None, {"dice_weight": 1.0}, parts=False),
    "ohem": Case("semantic", maps, WEIGHTS, {"loss": "ohem"}, parts=False),
    "road": Case("road_lane", road, parts=False),
    "classes": Case("classification", whole),
    "masks": Case("semantic_masks", Net.masks, WEIGHTS, {"points": 32, "ignore_void": True}),
    "panoptic": Case("panoptic", Net.masks, None, {"points": 32, "class_loss": "bce"}),
    "things": Case("instance", Net.masks, None, {"points": 32}),
}


def plan_of(name: str, **options: Any) -> Plan:
    """Build the run of a case."""
    case = CASES[name]
    torch.manual_seed(0)
    plan = toy_plan(
        model=Net(case.make), train=Uneven(), augment=Augment(crop=(12, 16), flip=0.5),
        optimizer=functools.partial(sgd, lr=0.05),
        **{"batch_size": BATCH, "iterations": STEPS, "freeze_batch_norm": True, **options},
    )  # fmt: skip
    return dataclasses.replace(plan, task=TASKS[case.task](CLASSES, case.weights, **case.options))


def same_points(rand: Any) -> Any:
    """Return `torch.rand` with the same points (..., P, 2) for every image and mask."""

    def draw(*size: int, **options: Any) -> Tensor:
        if len(size) < 3 or size[-1] != 2:
            return rand(*size, **options)
        steps = torch.arange(1, size[-2] + 1)[:, None] * torch.tensor([0.618034, 0.754878])
        return (steps % 1).expand(*size)

    return draw


def curve(folder: Path) -> list[dict[str, float]]:
    """Return the loss terms of every step of a run."""
    events = run_log.read_log(folder)
    return [event["terms"] for event in events if event["event"] == "train"]


def train(name: str, folder: Path, **options: Any) -> Path:
    """Train a case into a folder of its own, and return that; once only."""
    own = folder / name
    if not own.exists():
        fit(plan_of(name, **options), own, RunLog(own, display=lambda _: None))
    return own


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # so few easy pixels that the limit is the rank of a pixel in the whole batch
    "ohem": lambda own, _, labels: ohem_cross_entropy(
        own, labels, threshold=0.0, min_kept_fraction=0.2
    ),
    "ofa": ofa_distillation,
    "statistics": lambda own, other, _: batch_sum(match_statistics(own, other).pow(3).sum()),
}


def losses(rank: int, world: int) -> dict[str, tuple[float, Tensor]]:
    """Return value and gradient of single losses on the share of a process."""
    generator = torch.Generator().manual_seed(3)
    own, other = (torch.randn(8, 3, 6, 5, generator=generator) for _ in range(2))
    labels = torch.randint(0, 3, (8, 6, 5), generator=generator)
    labels[torch.rand(8, 6, 5, generator=generator) < torch.arange(8)[:, None, None] / 8] = 255
    found = {}
    for name, loss in LOSSES.items():
        parts = [item.chunk(world)[rank] for item in (own, other, labels)]
        leaf = parts[0].clone().requires_grad_()
        value = loss(leaf, parts[1], parts[2])
        (gradient,) = torch.autograd.grad(value, leaf)
        found[name] = (float(value.detach()), gradient / world)
    return found


def main(folder: Path, processes: int) -> None:
    torch.rand = same_points(torch.rand)
    run_log._tensorboard = lambda *_: None
    for name, case in CASES.items():
        train(name, folder, devices=processes, threads=1)
        if processes == 2 and case.parts:
            train(name, folder / "parts", devices=processes, threads=1, accumulate=2)
    rank = dist.get_rank()
    torch.save(losses(rank, processes), folder / f"losses{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
