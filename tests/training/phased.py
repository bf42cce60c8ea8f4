"""A network of binary layers so small that a run through all phases takes no time."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.binary import BinaryConv2d
from rtseg.structures import SemanticOutput
from rtseg.training.binarize import PhasedTask
from rtseg.training.optim import adam
from rtseg.training.options import Plan
from rtseg.training.phases import Phases
from rtseg.training.run_log import read_log
from training.toy import CLASSES, toy_plan

THREE = Phases((2, 4, 2), groups=2, penalty=0.1, recalibrate=1)
FIVE = Phases((1, 1, 1, 2, 2), groups=2)


class Small(nn.Module):
    """Three binary layers with norms, at 1/2 and 1/4: logits at half the size."""

    def __init__(self, *, act_bits: Any = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.a = BinaryConv2d(4, 4, 3, act_bits=act_bits)
        self.b = BinaryConv2d(4, 6, 3, stride=2, groups=2, act_bits=act_bits)
        self.c = BinaryConv2d(6, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (4, 4, 6, 4))
        self.last = nn.Conv2d(4, len(CLASSES), 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        x = images
        for conv, norm in zip((self.first, self.a, self.b, self.c), self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return SemanticOutput(self.last(x))


def plan_of(phases: Phases = THREE, *, model: nn.Module | None = None, **options: Any) -> Plan:
    """Return a plan whose network becomes binary."""
    torch.manual_seed(3)
    network = Small() if model is None else model
    chosen: dict[str, Any] = {"iterations": 8, "optimizer": functools.partial(adam, lr=0.02)}
    plan = toy_plan(model=network, **{**chosen, **options})
    task = PhasedTask(plan.task, network, phases)
    return dataclasses.replace(plan, task=task, hooks=task.hooks)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_log(folder) if event["event"] == kind]
