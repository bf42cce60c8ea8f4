"""Scores of single images, and the images with the lowest ones."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtseg.errors import ConfigError
from rtseg.evaluation.processes import gathered
from rtseg.tasks import Task

COLUMNS = {"iou": "image_miou", "pq": "image_pq"}
"""Score by class that is averaged over an image, and what the average is called."""
OF_SETS = "_batch16"
"""End of the names of scores that mean nothing for a single image."""


class ImageScores(NamedTuple):
    """Scores of one image.

    number: place of the image in the set. mean: mean IoU (or PQ) of the classes that occur in its
    labels or its result; None if nothing is labelled. scores: all that the metric says, the mean
    first.
    """

    number: int
    path: str
    mean: float | None
    scores: dict[str, float | None]
    attributes: dict[str, str]


class Shown(NamedTuple):
    """An image that is kept to be shown: its scores, its result and its labels."""

    scores: ImageScores
    result: Any
    target: Any


class ImageTally:
    """Score images one by one; in several processes, those of this one.

    Args:
        task: Gives the metric.
        keep: Keep the scores of all images.
        worst: How many of the images with the lowest means are kept with their results.

    Raises:
        ConfigError: The scores of the task say nothing about a single image.
    """

    def __init__(self, task: Task, *, keep: bool, worst: int) -> None:
        self.metric = task.new_metric()
        self.metric.distributed_available_fn = _nobody_else  # scored here, whatever others do
        self.column = _column(self.metric.per_class())
        self.keep, self.count = keep, worst
        self.all: list[ImageScores] = []
        self.lowest: list[tuple[float, int, Shown]] = []

    @property
    def name(self) -> str:
        """What the mean of an image is called."""
        return COLUMNS[self.column]

    def add(self, result: Any, target: Any, *, number: int, attributes: Mapping[str, str]) -> None:
        """Score one image; see `Tally.add`."""
        self.metric.reset()
        self.metric.update(result, target)
        found = [row[self.column] for row in self.metric.per_class()]
        known = [value for value in found if value is not None]
        mean = sum(known) / len(known) if known else None
        scores: dict[str, float | None] = {self.name: mean}
        scores |= {k: v for k, v in self.metric.compute().items() if not k.endswith(OF_SETS)}
        entry = ImageScores(number, result.source, mean, scores, dict(attributes))
        if self.keep:
            self.all.append(entry)
        if mean is not None:
            heapq.heappush(self.lowest, (-mean, -number, Shown(entry, result, target)))
        if len(self.lowest) > self.count:
            heapq.heappop(self.lowest)

    def scores(self) -> list[ImageScores]:
        """Return the scores of all images of all processes, in the order of the set."""
        return sorted(gathered(self.all))

    def worst(self) -> list[Shown]:
        """Return the images of all processes that have the lowest means, lowest first."""
        shown = gathered([item for _, _, item in self.lowest])
        shown.sort(key=lambda item: (item.scores.mean, item.scores.number))
        return shown[: self.count]


def _nobody_else() -> bool:
    return False


def _column(rows: Sequence[Mapping[str, Any]]) -> str:
    for name in COLUMNS:
        if rows and name in rows[0]:
            return name
    raise ConfigError(
        "this task has no score that says how good the result of a single image is",
        where="task",
        fix="leave out scores of single images and the sheet of the worst ones",
    )
