"""Every family can learn: eight images of its task by heart, to 95 % of the best score.

The shapes are large, because logits at an eighth of the size cannot follow thin ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtseg.checkpoint import create_model
from rtseg.data.loader import EvalCollate, EvalView, opened
from rtseg.data.transforms import Preprocess
from rtseg.evaluation import evaluate
from rtseg.models import MODELS
from rtseg.structures import Batch, ClassInfo, Sample, Segment
from rtseg.tasks import TASKS

COLORS = ((200, 40, 40), (40, 180, 60), (50, 60, 210), (220, 200, 40))
CLASSES = tuple(
    ClassInfo(f"class {index}", color, thing=index >= 2) for index, color in enumerate(COLORS)
)
CELL = 32
GOAL = 0.95
CHECK_EVERY = 10


class Blocks:
    """Eight images of colored blocks, with labels of every kind."""

    classes = CLASSES
    kinds = ("semantic", "drivable", "lane", "panoptic", "class")

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int, /) -> Sample:
        rng = np.random.default_rng(index)
        coarse = np.full((self.size // CELL,) * 2, index % len(CLASSES), np.uint8)
        coarse[:1, :2] = (index + 1 + index // 4) % len(CLASSES)
        coarse[1:, 2:] = (index + 2 + index // 4) % len(CLASSES)
        noise = rng.normal(0, 10, (self.size, self.size, 3))
        semantic = enlarged(coarse)
        image = np.clip(np.array(COLORS)[semantic] + noise, 0, 255).astype(np.uint8)
        ids, segments = self.panoptic(coarse)
        labels: dict[str, NDArray[Any]] = {
            "semantic": semantic,
            "drivable": (semantic == 0).astype(np.uint8),
            "lane": (semantic == 1).astype(np.uint8),
            "panoptic": ids,
            "class": np.array(index % len(CLASSES), np.int64),
        }
        return Sample(image, labels, segments, path=f"blocks/{index}")

    def panoptic(self, coarse: NDArray[np.uint8]) -> tuple[NDArray[np.int32], tuple[Segment, ...]]:
        """Make one segment of the cells of each class."""
        present = np.unique(coarse).tolist()
        ids = enlarged(coarse.astype(np.int32) + 1)
        return ids, tuple(Segment(item + 1, item) for item in present)


def enlarged(coarse: NDArray[Any]) -> NDArray[Any]:
    return coarse.repeat(CELL, axis=0).repeat(CELL, axis=1)


SCORES: dict[str, Callable[[dict[str, float]], float]] = {
    "semantic": lambda scores: scores["miou"],
    "semantic_masks": lambda scores: scores["miou"],
    "panoptic": lambda scores: scores["pq"],
    "instance": lambda scores: scores["ap"],
    "road_lane": lambda scores: min(scores["drivable_miou"], scores["lane_iou"]),
    "classification": lambda scores: scores["accuracy"],
}


@dataclass(frozen=True)
class Case:
    """How a network learns the images: its task, learning rate, and at most how many steps."""

    task: str = "semantic"
    lr: float = 2e-3
    steps: int = 200
    switches: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def learn(name: str, case: Case, *, size: int = 96) -> float:
    """Train on all eight images at once until they are known; return the last score."""
    torch.manual_seed(0)
    data, preprocess = Blocks(size), Preprocess()
    task = TASKS[case.task](CLASSES, **case.options)
    classes = None if case.task == "road_lane" else len(CLASSES)
    model = create_model(name, classes, **case.switches)
    samples = [data[index] for index in range(len(data))]
    images = torch.stack([preprocess.fit(sample.image).image for sample in samples])
    batch = Batch(images, task.target(samples), ())
    collate = EvalCollate(task.target)
    view = EvalView(data, preprocess, range(len(data)))  # type: ignore[arg-type]
    singles = [collate([view[index]]) for index in range(len(data))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.lr, weight_decay=0.0)
    score = 0.0
    for step in range(1, case.steps + 1):
        model.train()
        terms = task.training_step(model, batch)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % CHECK_EVERY == 0 and step >= 40:
            score = SCORES[case.task](evaluate(model, task, opened(singles)).scores)
            if score >= GOAL:
                break
    return score


SMALLEST = {
    "twinmixing_nano": Case("road_lane", lr=5e-3),
    "dabnet": Case(),
    "bisegunet_edge": Case(),
    "bsdnet_s": Case(),
    "bisenetformer_stdc1": Case(
        "panoptic",
        lr=5e-4,
        switches={"base_width": 32, "queries": 20},
        options={"points": 1024},
    ),
}
REST = {
    "twinmixing_tiny": Case("road_lane", lr=5e-3),
    "twinmixing_base": Case("road_lane"),
    "twinmixing_large": Case("road_lane"),
    "lsa_binet": Case(),
    "bisegunet": Case(),
    "bisegunet_s2": Case(),
    "bisegunet_half": Case(),
    "bsdnet_b": Case(lr=1e-3),
    "sctnet_s": Case(),
    "sctnet_b": Case(lr=1e-3),
    "bisenetformer_stdc2": Case("semantic_masks", lr=5e-4, options={"points": 1024}),
    "bisenetformer_r50": Case("instance", lr=3e-4, options={"points": 1024}),
    "stdc1_classifier": Case("classification"),
    "stdc2_classifier": Case("classification"),
    "bsdnet_s_classifier": Case("classification"),
    "bsdnet_b_classifier": Case("classification"),
}


def test_every_network_is_taught() -> None:
    assert {*SMALLEST, *REST} == set(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_the_smallest_of_each_family_learns_eight_images_by_heart(name: str) -> None:
    assert learn(name, SMALLEST[name]) >= GOAL


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(REST))
def test_every_network_learns_eight_images_by_heart(name: str) -> None:
    assert learn(name, REST[name]) >= GOAL
