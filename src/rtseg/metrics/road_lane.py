"""Scores of drivable area and lane lines, over the whole set and as published: by batches of 16.

Only pixel counts are kept, eight numbers per image. The scores over the whole set are worked out
from their sum, so they depend neither on the order of the images nor on how these were spread over
processes. The published averages do depend on the order; processes that each took every n-th image
give those of the original order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from rtseg.metrics.confusion import confusion_matrix
from rtseg.structures import RoadLaneResult, RoadLaneTarget

KINDS = ("drivable", "lane")
BATCH = 16
"""Images per batch of the published averages. Source: TwinMixing's and YOLOP's released code."""
WEIGHTS = {"drivable_miou": 0.2, "lane_iou": 0.8}
"""Of `score`. Source: TwinMixing's released code."""


class RoadLaneScores(Metric):
    """Count hits and errors of one or both maps, and score them.

    A share with nothing to divide by is 0, so that no value is NaN; in `drivable_miou` a class in
    neither truth nor prediction is left out of the mean instead.

    Args:
        kinds: The maps to score, of `drivable` and `lane`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: list[Tensor]

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        # Rows (1 + 4 * kinds,): number of the image in this process, then the counts of each kind:
        # background right, background wrong, foreground missed, foreground found.
        self.add_state("counts", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        super().reset()
        # decision: never an empty list, since a process without images has to send something.
        size = (0, 1 + 4 * len(self.kinds))
        self.counts = [torch.zeros(size, dtype=torch.int64, device=self.device)]

    def update(self, result: RoadLaneResult, target: RoadLaneTarget) -> None:
        """Count one image.

        Args:
            result: Prediction, maps (H, W) of bool.
            target: Labels (1, H, W) or (H, W) of 0, 1 and `IGNORE_INDEX`.

        Raises:
            ValueError: If the result lacks a map, or the sizes differ.
            DataError: If a label is none of the three values.
        """
        row = [np.array([len(self.counts) - 1], dtype=np.int64)]
        for kind in self.kinds:
            mask = getattr(result, kind)
            if mask is None:
                raise ValueError(f"the result has no map of kind {kind!r}; score the other kind")
            labels = getattr(target, kind).cpu().numpy()
            labels = labels.reshape(labels.shape[-2:])
            row.append(
                confusion_matrix(mask.view(np.uint8), labels, 2, where=result.source).ravel()
            )
        self.counts.append(torch.from_numpy(np.concatenate(row))[None].to(self.device))

    def _rows(self) -> NDArray[np.int64]:
        """Return the counts (N, 4 * kinds) in the order of the images, before or after a sync."""
        rows = dim_zero_cat(self.counts).cpu().numpy()
        return np.asarray(rows[np.argsort(rows[:, 0], kind="stable"), 1:], dtype=np.int64)

    def compute(self) -> dict[str, float]:
        """Score everything seen so far.

        Returns:
            Shares in [0, 1] over all pixels of the set:
            `drivable_miou`: mean IoU of drivable area and background.
            `lane_iou`: IoU of the lane lines alone.
            `lane_accuracy`: share of the true lane pixels that were found.
            `lane_balanced_accuracy`: mean of that share and of the background's.
            The same with the suffix `_batch16`: worked out for each batch of 16 images and averaged
            by their number, as published. `score`: 0.2 `drivable_miou` + 0.8 `lane_iou`, if both
            kinds are scored.
        """
        rows = self._rows()
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        scores: dict[str, float] = {}
        for index, kind in enumerate(self.kinds):
            columns = slice(4 * index, 4 * index + 4)
            scores |= _scores(kind, rows[:, columns].sum(axis=0))
            for name in _published(kind, np.zeros(4, dtype=np.int64)):
                sums = [
                    len(part) * _published(kind, part[:, columns].sum(axis=0))[name]
                    for part in batches
                ]
                scores[f"{name}_batch{BATCH}"] = sum(sums) / max(len(rows), 1)
        if self.kinds == KINDS:
            scores["score"] = sum(weight * scores[name] for name, weight in WEIGHTS.items())
        return scores

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return the pixel counts (2, 2) of each kind, rows truth; every process must call it."""
        with self.sync_context():
            totals = self._rows().sum(axis=0).reshape(-1, 2, 2)
        return {
            kind: (matrix, ["background", kind])
            for kind, matrix in zip(self.kinds, totals, strict=True)
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Score each kind; every process must call it.

        Returns:
            `name`, `iou`, `background_iou`, `accuracy`, `balanced_accuracy` in [0, 1], None where
            there is nothing to divide by, and `pixels` (true ones).
        """
        rows = []
        for kind, (matrix, _) in self.matrices().items():
            shares = _shares(matrix.ravel())
            found, free = shares["accuracy"], shares.pop("background_accuracy")
            balanced = None if found is None or free is None else (found + free) / 2
            pixels = int(matrix[1].sum())
            rows.append({"name": kind, **shares, "balanced_accuracy": balanced, "pixels": pixels})
        return rows


def _shares(counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Return IoU and accuracy of foreground and background; None if there is nothing to divide by.

    counts: (4,) of right background, false foreground, missed foreground, right foreground.
    """
    empty, false, missed, found = (int(count) for count in counts)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "iou": share(found, found + false + missed),
        "background_iou": share(empty, empty + false + missed),
        "accuracy": share(found, found + missed),
        "background_accuracy": share(empty, empty + false),
    }


def _published(kind: str, counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the scores of one kind by name; a share with nothing to divide by counts as 0."""
    shares = {name: value or 0.0 for name, value in _shares(counts).items()}
    if kind == "drivable":
        return {"drivable_miou": (shares["iou"] + shares["background_iou"]) / 2}
    return {
        "lane_iou": shares["iou"],
        "lane_accuracy": shares["accuracy"],
        "lane_balanced_accuracy": (shares["accuracy"] + shares["background_accuracy"]) / 2,
    }


def _scores(kind: str, counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the scores of one kind; a class that does not occur is left out of the mean IoU."""
    scores = _published(kind, counts)
    shares = _shares(counts)
    if kind == "drivable" and None in (shares["iou"], shares["background_iou"]):
        scores["drivable_miou"] *= 2
    return scores
