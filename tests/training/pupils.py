"""A student of the toy task beside a teacher, both so small that a step takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.data.transforms import Preprocess
from rtseg.structures import SemanticOutput
from rtseg.tasks.semantic import SemanticTask
from rtseg.training.distill import DistilledTask
from rtseg.training.distill_options import DistillOptions, Pair
from rtseg.training.options import Plan
from rtseg.training.teachers import Teacher, digest
from training.toy import CLASSES, PREPROCESS, Toy, toy_plan

PAIRS = (Pair("norm", "deep", weight=2.0), Pair("last", "wide"))


class Wise(nn.Module):
    """A teacher with features at half and at a quarter of the size, and logits at a quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.last = nn.Conv2d(5, len(CLASSES), 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.last(self.wide(self.norm(self.deep(images)).relu())))


def teacher(network: nn.Module | None = None, preprocess: Preprocess = PREPROCESS) -> Teacher:
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(77)
            network = Wise()
    network.eval().requires_grad_(False)
    names = tuple(item.name for item in CLASSES)
    return Teacher(network, names, preprocess, "memory", digest(network))


def lesson(student: nn.Module, given: Teacher | None = None, **options: Any) -> DistilledTask:
    """Return the toy task with a teacher; `options` go to `DistillOptions`."""
    return DistilledTask(
        SemanticTask(CLASSES),
        student,
        given or teacher(),
        preprocess=PREPROCESS,
        options=DistillOptions(**{"pairs": PAIRS, **options}),
    )


def pupil_plan(*, mode: str = "both", **options: Any) -> Plan:
    """Return a plan that learns from the teacher; `options` go to `toy_plan`."""
    plan = toy_plan(**options)
    return replace(plan, task=lesson(plan.model, mode=mode))


def pupil() -> Toy:
    torch.manual_seed(5)
    return Toy(dropout=0.0)
