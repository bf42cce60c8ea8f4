"""Scores of semantic segmentation from one confusion matrix over the whole data set.

The matrix counts pixels: rows are the true class, columns the predicted one. Memory depends on the
number of classes alone, and sums of integers do not depend on the order of the images or on how
they were spread over processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from rtseg.errors import DataError
from rtseg.structures import IGNORE_INDEX, MaskTarget, SemanticResult, SemanticTarget

_CHUNK = 1 << 17
"""decision: pixels counted at once; the joint codes (256 KiB) then stay in the L2 cache."""


def confusion_matrix(
    prediction: NDArray[Any], truth: NDArray[Any], num_classes: int, *, where: str = ""
) -> NDArray[np.int64]:
    """Count how often each true class was predicted as each class.

    Both maps are read in chunks, so a pair of uint8 maps costs no copy of its own size.

    Args:
        prediction: Class ids (H, W), integers 0..C-1 at every pixel.
        truth: Class ids (H, W), integers 0..C-1, or `IGNORE_INDEX` where nothing is counted.
        num_classes: Number of classes C, 1 to 255.
        where: Name of the image, for the error message.

    Returns:
        Pixel counts (C, C) int64; rows truth, columns prediction.

    Raises:
        ValueError: If the sizes differ, if C is out of range, or if a prediction is no class.
        DataError: If a label is neither a class nor `IGNORE_INDEX`.
    """
    if not 1 <= num_classes <= IGNORE_INDEX:
        raise ValueError(f"num_classes is {num_classes}; it must be 1 to {IGNORE_INDEX}")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} differ in size; "
            "resize the logits to the size of the labels first"
        )
    if prediction.size == 0:
        return np.zeros((num_classes, num_classes), dtype=np.int64)
    low, high = int(prediction.min()), int(prediction.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"prediction holds {wrong}, but the classes are 0 to {num_classes - 1}")
    if truth.dtype != np.uint8 and (truth.min() < 0 or truth.max() > IGNORE_INDEX):
        raise _label_error(np.unique(truth), num_classes, where)
    counts = _joint_histogram(prediction.reshape(-1), truth.reshape(-1), num_classes)
    if counts[num_classes:IGNORE_INDEX].any():
        raise _label_error(np.flatnonzero(counts.any(axis=1)), num_classes, where)
    return counts[:num_classes]


def _joint_histogram(
    prediction: NDArray[Any], truth: NDArray[Any], num_classes: int
) -> NDArray[np.int64]:
    """Count pairs of a label 0..255 and a class 0..C-1 in two flat maps (N,); return (256, C)."""
    bins = 256 * num_classes
    dtype = np.dtype(np.int16 if bins <= np.iinfo(np.int16).max else np.int32)
    codes = np.empty(min(_CHUNK, truth.size), dtype=dtype)
    counts = torch.zeros(bins, dtype=torch.int64)
    for start in range(0, truth.size, _CHUNK):
        part = codes[: truth.size - start]
        np.multiply(
            truth[start : start + _CHUNK], dtype.type(num_classes), out=part, casting="unsafe"
        )
        np.add(part, prediction[start : start + _CHUNK], out=part, casting="unsafe")
        # torch counts 16-bit codes as they are; numpy would widen each to 8 bytes first
        counts += torch.bincount(torch.from_numpy(part), minlength=bins)
    return counts.numpy().reshape(256, num_classes)


def _label_error(values: NDArray[Any], num_classes: int, where: str) -> DataError:
    """Name the labels among `values` that are neither a class nor void."""
    known = ((values >= 0) & (values < num_classes)) | (values == IGNORE_INDEX)
    wrong = ", ".join(str(int(value)) for value in values[~known][:5])
    return DataError(
        f"label {wrong} is not a class (0 to {num_classes - 1}) and not {IGNORE_INDEX} (ignore)",
        where=where,
        fix="map it in label_map of data.yaml",
    )


class SegmentationScores(Metric):
    """Accumulate a confusion matrix and report IoU, accuracy and Dice over everything seen.

    With no labelled pixel seen every score is 0 and `classes_in_mean` is 0: no value is ever NaN,
    so scores can be compared and written as JSON.

    Source: LSA-BiNet, eqs. 13-14, for IoU and for the exclusion rule of `miou_paper`.

    Args:
        num_classes: Number of classes C, 1 to 255.
        class_names: Names by class id, for `per_class`; the ids if left out.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int, class_names: Sequence[str] | None = None) -> None:
        super().__init__()
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes is {num_classes}; it must be 1 to {IGNORE_INDEX}")
        names = tuple(class_names or (str(index) for index in range(num_classes)))
        if len(names) != num_classes:
            raise ValueError(f"{len(names)} class names for {num_classes} classes")
        self.num_classes = num_classes
        self.class_names = names
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=zeros, dist_reduce_fx="sum")

    def update(self, result: SemanticResult, target: SemanticTarget | MaskTarget) -> None:
        """Count one image.

        Args:
            result: Prediction; its mask (H, W) holds classes 0..C-1.
            target: Labels (1, H, W) or (H, W) of any integer type, with `IGNORE_INDEX` for void;
                or the masks of one image, void where none of them is.

        Raises:
            ValueError: If sizes differ or a prediction is no class.
            DataError: If a label is neither a class nor `IGNORE_INDEX`.
        """
        labels = label_map(target)
        counts = confusion_matrix(result.mask, labels, self.num_classes, where=result.source)
        self.confusion += torch.from_numpy(counts).to(self.confusion.device)

    def merge(self, other: SegmentationScores) -> None:
        """Add what another metric of the same classes has counted.

        Raises:
            ValueError: If the classes differ.
        """
        if self.class_names != other.class_names:
            raise ValueError(
                f"cannot merge scores of {other.num_classes} classes {other.class_names} "
                f"into scores of {self.num_classes} classes {self.class_names}"
            )
        self.confusion = self.confusion + other.confusion.to(self.confusion.device)
        self._update_count += other.update_count
        self._computed = None

    def matrix(self) -> NDArray[np.int64]:
        """Return the pixel counts (C, C), summed over all processes; every process must call it."""
        with self.sync_context():
            return self.confusion.cpu().numpy().copy()

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return `confusion`: `matrix` and the class names; every process must call it."""
        return {"confusion": (self.matrix(), list(self.class_names))}

    def compute(self) -> dict[str, float]:
        """Score everything seen so far.

        Returns:
            Shares in [0, 1], but for the count `classes_in_mean`:
            `miou`: mean IoU over classes in truth or prediction; a class never hit counts as 0.
            `miou_paper`: mean IoU over classes with at least one hit; hides classes never hit.
            `classes_in_mean`: number of classes that `miou` averages.
            `pixel_accuracy`: share of labelled pixels that are right.
            `mean_accuracy`: mean share of right pixels over classes that occur in truth.
            `frequency_weighted_iou`: IoU weighted with the classes' shares of the labelled pixels.
            `mean_dice`: mean of 2 hits / (truth + prediction) over the classes of `miou`.
        """
        matrix = self.confusion.cpu().numpy()  # the base class has synchronised it already
        hits, truth, union = _areas(matrix)
        iou = _ratio(hits, union)
        total = truth.sum()
        return {
            "miou": _mean(iou, union > 0),
            "miou_paper": _mean(iou, hits > 0),
            "classes_in_mean": int((union > 0).sum()),
            "pixel_accuracy": float(hits.sum() / max(total, 1)),
            "mean_accuracy": _mean(_ratio(hits, truth), truth > 0),
            "frequency_weighted_iou": float((truth * iou).sum() / max(total, 1)),
            "mean_dice": _mean(_ratio(2 * hits, union + hits), union > 0),
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Score every class; every process must call it.

        Returns:
            By class id: `name`, `iou`, `accuracy`, `dice` in [0, 1] and `pixels` (true ones).
            `iou` and `dice` are None for a class in neither truth nor prediction, `accuracy` is
            None for a class without truth.
        """
        hits, truth, union = _areas(self.matrix())
        iou, accuracy = _ratio(hits, union), _ratio(hits, truth)
        dice = _ratio(2 * hits, union + hits)
        return [
            {
                "name": name,
                "iou": float(iou[index]) if union[index] else None,
                "accuracy": float(accuracy[index]) if truth[index] else None,
                "dice": float(dice[index]) if union[index] else None,
                "pixels": int(truth[index]),
            }
            for index, name in enumerate(self.class_names)
        ]


def label_map(target: SemanticTarget | MaskTarget) -> NDArray[Any]:
    """Return the class of every pixel (H, W) of the one image of a target."""
    if isinstance(target, SemanticTarget):
        labels = target.labels
        return (labels[0] if labels.ndim == 3 and labels.shape[0] == 1 else labels).cpu().numpy()
    painted = np.full(target.masks[0].shape[1:], IGNORE_INDEX, np.uint8)
    for label, mask in zip(target.labels[0].tolist(), target.masks[0], strict=True):
        painted[mask.cpu().numpy()] = label
    return painted


def _areas(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return hits, true pixels and union of every class, each (C,)."""
    hits, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return hits, truth, truth + predicted - hits


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide where there is something to divide by; 0 elsewhere."""
    return part / np.maximum(whole, 1)


def _mean(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> float:
    """Average the chosen values; 0 if there are none."""
    return float(values[chosen].mean()) if chosen.any() else 0.0
