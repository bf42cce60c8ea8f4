"""Boundary IoU: how well classes are outlined, whatever their size.

Only pixels near the outline of a class count, in truth and in prediction, so that the inside of
large regions hides nothing.

Source: "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation" (Cheng et al., 2021),
section 4, and the authors' published code, from which the details come: the distance is 2 % of the
diagonal, rounded, at least 1; it is counted in steps to any of the 8 neighbors; the border of the
image is an outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt
from torch import Tensor
from torchmetrics import Metric

from rtseg.errors import DataError
from rtseg.metrics.confusion import label_map
from rtseg.structures import IGNORE_INDEX, MaskTarget, SemanticResult, SemanticTarget

RATIO = 0.02
"""Of the distance to the diagonal of the image. Source: the paper's choice for large images."""


def boundary_distance(height: int, width: int, *, ratio: float = RATIO) -> int:
    """Return how far from an outline pixels of an image count, in pixels, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_region(labels: NDArray[Any], distance: int) -> NDArray[np.bool_]:
    """Mark the pixels that lie near the outline of their own region, on its inner side.

    One distance transform serves all classes: the last pixel on the shortest way to another label
    still has the label of the first, so the distance to the nearest outline pixel of any class is
    that to the outline of the own class.

    Args:
        labels: Any integers (H, W).
        distance: Pixels with another label, or the end of the image, within this many steps to one
            of the 8 neighbors are marked; at least 1.

    Returns:
        (H, W).
    """
    if labels.size == 0:
        return np.zeros(labels.shape, np.bool_)
    outline = np.zeros(labels.shape, np.bool_)
    outline[[0, -1]] = outline[:, [0, -1]] = True
    neighbors = (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    )
    for first, second in neighbors:
        differ = labels[first] != labels[second]
        outline[first] |= differ
        outline[second] |= differ
    if distance == 1:
        return outline
    steps: NDArray[np.int32] = distance_transform_cdt(~outline, metric="chessboard")
    return steps < distance


def boundary_counts(
    prediction: NDArray[Any], truth: NDArray[Any], num_classes: int, *, where: str = ""
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count boundary pixels that truth and prediction share, and those of either, by class.

    decision: where truth is void, the prediction is taken as void too. So what is predicted there
    changes nothing, and a perfect prediction scores 1 although void has an outline.

    Args:
        prediction: Class ids (H, W), integers 0..C-1 at every pixel.
        truth: Class ids (H, W), integers 0..C-1, or `IGNORE_INDEX` where nothing is counted.
        num_classes: Number of classes C.
        where: Name of the image, for the error message.

    Returns:
        Intersection and union, each (C,).

    Raises:
        ValueError: The sizes differ.
        DataError: A label or a prediction is no class.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in size")
    distance = boundary_distance(*truth.shape)
    known = truth != IGNORE_INDEX
    guess = np.where(known, prediction, IGNORE_INDEX)
    near_truth = boundary_region(truth, distance) & known
    near_guess = boundary_region(guess, distance) & known
    shared = near_truth & near_guess & (truth == guess)
    counts = [
        _by_class(labels[chosen], num_classes, where)
        for labels, chosen in ((truth, shared), (truth, near_truth), (guess, near_guess))
    ]
    return counts[0], counts[1] + counts[2] - counts[0]


def _by_class(labels: NDArray[Any], num_classes: int, where: str) -> NDArray[np.int64]:
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:  # every region has an outline, so no label goes unseen
        raise DataError(
            f"{len(counts) - 1} is none of the {num_classes} classes",
            where=where,
            fix="map it in label_map of data.yaml",
        )
    return counts


class BoundaryIoU(Metric):
    """Accumulate boundary pixels over a whole set, and report Boundary IoU.

    decision: pixels are summed over all images before they are divided, as for `miou`.

    Args:
        class_names: Names by class id.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    intersection: Tensor
    union: Tensor

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        for name in ("intersection", "union"):
            zeros = torch.zeros(len(self.class_names), dtype=torch.int64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, result: SemanticResult, target: SemanticTarget | MaskTarget) -> None:
        """Count one image, as `SegmentationScores` does.

        Raises:
            ValueError: The sizes differ.
            DataError: A label is neither a class nor `IGNORE_INDEX`.
        """
        counts = boundary_counts(
            result.mask, label_map(target), len(self.class_names), where=result.source
        )
        for state, count in zip((self.intersection, self.union), counts, strict=True):
            state += torch.from_numpy(count).to(state.device)

    def compute(self) -> dict[str, float]:
        """Score everything seen so far.

        Returns:
            `boundary_iou` in [0, 1]: mean over the classes in truth or prediction; 0 without any.
        """
        occurs = self.union > 0
        shares = self.intersection[occurs].double() / self.union[occurs]
        return {"boundary_iou": float(shares.mean()) if len(shares) else 0.0}

    def per_class(self) -> list[dict[str, Any]]:
        """Score every class; every process must call it.

        Returns:
            By class id: `name`, and `boundary_iou` in [0, 1] or None for a class that does not
            occur.
        """
        with self.sync_context():
            pairs = zip(self.intersection.tolist(), self.union.tolist(), strict=True)
            shares = [shared / either if either else None for shared, either in pairs]
        return [
            {"name": name, "boundary_iou": share}
            for name, share in zip(self.class_names, shares, strict=True)
        ]

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return nothing."""
        return {}
