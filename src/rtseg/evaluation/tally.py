"""What an evaluation counts: over the whole set, and over the images with a fact in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rtseg.errors import DataError, nearest
from rtseg.evaluation.images import ImageScores, ImageTally, Shown
from rtseg.evaluation.processes import gathered
from rtseg.tasks import Scores, Task
from rtseg.tasks.scoring import new_metric

UNKNOWN = "(unknown)"
"""Group of the images that lack an attribute which the first one has."""


@dataclass(frozen=True)
class Group:
    """Scores of the images with one value of an attribute."""

    value: str
    images: int
    scores: dict[str, float]
    metric: Any


@dataclass(frozen=True)
class Evaluation:
    """Scores over a whole set: by name, by class, and the metric they come from.

    groups: by attribute, scores of the images with each of its values. per_image: scores of every
    image in the order of the set, if asked for. worst: images with the lowest scores, lowest first.
    """

    scores: dict[str, float]
    per_class: list[dict[str, Any]]
    metric: Any
    images: int
    seconds: float
    groups: dict[str, list[Group]] = field(default_factory=dict)
    per_image: list[ImageScores] = field(default_factory=list)
    worst: list[Shown] = field(default_factory=list)

    def group_rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return by attribute one row of scores for each of its values."""
        return {
            name: [{name: item.value, "images": item.images, **item.scores} for item in groups]
            for name, groups in self.groups.items()
        }


class Tally:
    """Count images; in several processes, those of this one.

    Args:
        task: Gives the metric.
        device: Where its sums are kept, so that processes can add up theirs.
        boundary: Also score outlines of classes (Boundary IoU).
        by: Attributes by whose values scores are grouped; in one process only.
        per_image: Also score every image alone.
        worst: How many of the images with the lowest scores are kept.

    Raises:
        ConfigError: The task has no such scores.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: torch.device | str,
        boundary: bool = False,
        by: Sequence[str] = (),
        per_image: bool = False,
        worst: int = 0,
    ) -> None:
        self.task, self.device, self.boundary = task, device, boundary
        self.whole = self._new()
        self.groups: dict[str, dict[str, Scores]] = {name: {} for name in by}
        self.sizes: Counter[tuple[str, str]] = Counter()
        wanted = per_image or worst > 0
        self.alone = ImageTally(task, keep=per_image, worst=worst) if wanted else None
        self.images = 0

    def _new(self) -> Scores:
        metric = new_metric(self.task, boundary=self.boundary)
        if isinstance(metric, nn.Module):
            metric.to(self.device)
        scores: Scores = metric
        return scores

    def add(
        self,
        result: Any,
        target: Any,
        *,
        number: int = 0,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Count one image.

        Args:
            result: What was found.
            target: Its labels.
            number: Its place in the set.
            attributes: Facts about it.

        Raises:
            DataError: The first image lacks an attribute by which scores are grouped.
        """
        facts = attributes or {}
        self.whole.update(result, target)
        for name, metrics in self.groups.items():
            if name not in facts and not metrics:
                raise _no_attribute(name, facts, result.source)
            value = facts.get(name, UNKNOWN)
            if value not in metrics:
                metrics[value] = self._new()
            metrics[value].update(result, target)
            self.sizes[name, value] += 1
        if self.alone is not None:
            self.alone.add(result, target, number=number, attributes=facts)
        self.images += 1

    def finish(self, *, seconds: float) -> Evaluation:
        """Return all scores, added up over all processes; every process must call it."""
        scores = dict(self.whole.compute())
        per_image: list[ImageScores] = []
        worst: list[Shown] = []
        if self.alone is not None:
            per_image, worst = self.alone.scores(), self.alone.worst()
            means = [entry.mean for entry in per_image if entry.mean is not None]
            if means:
                scores[self.alone.name] = sum(means) / len(means)
        return Evaluation(
            scores,
            self.whole.per_class(),
            self.whole,
            sum(gathered([self.images])),
            seconds,
            {name: self._grouped(name) for name in self.groups},
            per_image,
            worst,
        )

    def _grouped(self, name: str) -> list[Group]:
        return [
            Group(value, self.sizes[name, value], metric.compute(), metric)
            for value, metric in sorted(self.groups[name].items())
        ]


def _no_attribute(name: str, facts: Mapping[str, str], where: str) -> DataError:
    if not facts:
        return DataError(
            f"has no attributes, so that scores cannot be grouped by {name!r}",
            where=where,
            fix="use data that tell weather, scene or the like",
        )
    close = nearest(name, facts, count=1)[0]
    return DataError(
        f"has no attribute {name!r} (it has: {', '.join(sorted(facts))})",
        where=where,
        fix=f"did you mean {close!r}?",
    )
