"""Panoptic quality: how well segments are found (RQ) and how well they are outlined (SQ).

Of each class and over the whole data set, with TP matched pairs, FP segments predicted in vain and
FN segments missed: PQ = sum of IoU / (TP + FP/2 + FN/2) = SQ * RQ, SQ = sum of IoU / TP, RQ =
TP / (TP + FP/2 + FN/2).

Source: "Panoptic Segmentation", sections 4.1 and 4.2, and the published COCO panoptic tool, whose
rules for void and crowds these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from rtseg.errors import DataError
from rtseg.structures import ClassInfo, MaskTarget, PanopticResult, Segment

_CHUNK = 1 << 16
"""decision: pixels counted at once, so that what is computed of them stays in the cache."""
_LARGEST_ID = (1 << 24) - 1
_UNLISTED, _VOID, _FIRST = 0, 1, 2
"""Codes of pixels: an id without a segment; id 0; the first segment."""


class PanopticCounts(NamedTuple):
    """Sums by class, each (C,).

    `iou`: float64, over the matched pairs. `tp`, `fp`, `fn`: int64, pairs matched, predictions in
    vain, segments missed.
    """

    iou: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]


def panoptic_quality_counts(
    prediction: NDArray[Any],
    found: Sequence[Segment],
    truth: NDArray[Any],
    labelled: Sequence[Segment],
    *,
    num_classes: int,
    where: str = "",
) -> PanopticCounts:
    """Match the segments of one image.

    A pair matches if it has one class, the labelled segment is no crowd, and its IoU is above 0.5;
    pixels of a prediction on void are left out of the union. A labelled segment without a partner
    is missed, unless it is a crowd. A prediction without one is in vain, unless more than half of
    it lies on void and on the crowd of its class (the last one listed, if there are several).

    Args:
        prediction: Segment ids (H, W), integers in 0..2^24-1; 0 where nothing was found.
        found: A segment for each id above 0, and no other.
        truth: Segment ids (H, W) of the same kind; 0 = void.
        labelled: A segment for each id above 0, and no other.
        num_classes: Number of classes C.
        where: Name of the image, for error messages.

    Raises:
        ValueError: The maps differ in size.
        DataError: Ids and segments of a map disagree, or a class is none of the C.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in size")
    sides = (prediction, found, f"{where or 'image'}, prediction")
    true_sides = (truth, labelled, f"{where or 'image'}, truth")
    for ids, segments, place in (sides, true_sides):
        _require_segments(ids, segments, num_classes, where=place)
    counts = _joint_histogram(prediction, found, truth, labelled)
    for areas, (ids, segments, place) in ((counts.sum(0), sides), (counts.sum(1), true_sides)):
        _require_agreement(areas, ids, segments, where=place)
    return _match(counts, found, labelled, num_classes)


def _require_segments(
    ids: NDArray[Any], segments: Sequence[Segment], num_classes: int, *, where: str
) -> None:
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if low < 0 or high > _LARGEST_ID:
        raise DataError(f"id {low if low < 0 else high} is not in 0 to {_LARGEST_ID}", where=where)
    listed = [segment.id for segment in segments]
    if len(set(listed)) < len(listed) or not all(0 < item <= _LARGEST_ID for item in listed):
        raise DataError(f"segment ids must differ and be 1 to {_LARGEST_ID}: {listed}", where=where)
    for segment in segments:
        if not 0 <= segment.class_id < num_classes:
            raise DataError(
                f"segment {segment.id} has class {segment.class_id}, but the classes are 0 to "
                f"{num_classes - 1}",
                where=where,
                fix="map its category to a class, or to void",
            )


def _joint_histogram(
    prediction: NDArray[Any],
    found: Sequence[Segment],
    truth: NDArray[Any],
    labelled: Sequence[Segment],
) -> NDArray[np.int64]:
    """Count the pixels of each pair of codes: (codes of truth, codes of prediction)."""
    shape = (_FIRST + len(labelled), _FIRST + len(found))
    bins = shape[0] * shape[1]
    dtype = np.dtype(np.int16 if bins <= np.iinfo(np.int16).max else np.int64)
    rows = _codes(truth, labelled, dtype, step=shape[1])
    columns = _codes(prediction, found, dtype, step=1)
    first, second = truth.reshape(-1), prediction.reshape(-1)
    pairs, others = (np.empty(min(_CHUNK, first.size), dtype) for _ in range(2))
    counts = torch.zeros(bins, dtype=torch.int64)
    for start in range(0, first.size, _CHUNK):
        part, other = pairs[: first.size - start], others[: first.size - start]
        np.take(rows, first[start : start + _CHUNK], out=part, mode="clip")
        np.take(columns, second[start : start + _CHUNK], out=other, mode="clip")
        part += other
        # torch counts 16-bit codes as they are; numpy would widen each to 8 bytes first
        counts += torch.bincount(torch.from_numpy(part), minlength=bins)
    return counts.numpy().reshape(shape)


def _codes(
    ids: NDArray[Any], segments: Sequence[Segment], dtype: np.dtype[Any], *, step: int
) -> NDArray[Any]:
    """Return the code times `step` of every id up to the largest one."""
    listed = [segment.id for segment in segments]
    largest = max(int(ids.max(initial=0)), *listed, 0)
    codes = np.zeros(largest + 1, dtype)  # of large ids, only the pages that occur are touched
    codes[0] = _VOID * step
    codes[listed] = np.arange(_FIRST, _FIRST + len(listed)) * step
    return codes


def _require_agreement(
    areas: NDArray[np.int64], ids: NDArray[Any], segments: Sequence[Segment], *, where: str
) -> None:
    """Raise unless every pixel has a segment and every segment a pixel; `areas` is by code."""
    if areas[_UNLISTED]:
        wrong = set(np.unique(ids).tolist()) - {segment.id for segment in segments} - {0}
        raise DataError(
            f"id {min(wrong)} occurs in the map, but not among its segments", where=where
        )
    for segment, area in zip(segments, areas[_FIRST:], strict=True):
        if not area:
            raise DataError(f"segment {segment.id} has no pixel in the map", where=where)


def _match(
    counts: NDArray[np.int64],
    found: Sequence[Segment],
    labelled: Sequence[Segment],
    num_classes: int,
) -> PanopticCounts:
    classes = np.array([item.class_id for item in found], np.int64)
    true_classes = np.array([item.class_id for item in labelled], np.int64)
    crowd = np.array([item.crowd for item in labelled], np.bool_)
    shared, on_void = counts[_FIRST:, _FIRST:], counts[_VOID, _FIRST:]
    areas, true_areas = counts.sum(0)[_FIRST:], counts.sum(1)[_FIRST:]
    union = true_areas[:, None] + areas - shared - on_void
    comparable = (true_classes[:, None] == classes) & ~crowd[:, None]
    hits = comparable & (2 * shared > union)  # at most one in each row and column

    unclear = on_void.copy()  # of each prediction: pixels that prove nothing
    crowds = {item.class_id: row for row, item in enumerate(labelled) if item.crowd}
    for class_id, row in crowds.items():
        unclear += np.where(classes == class_id, shared[row], 0)
    in_vain = ~hits.any(axis=0) & (2 * unclear <= areas)
    missed = ~hits.any(axis=1) & ~crowd
    rows, columns = np.nonzero(hits)
    ratios = shared[rows, columns] / union[rows, columns]
    return PanopticCounts(
        iou=np.bincount(true_classes[rows], ratios, num_classes).astype(np.float64),
        tp=np.bincount(true_classes[rows], minlength=num_classes),
        fp=np.bincount(classes[in_vain], minlength=num_classes),
        fn=np.bincount(true_classes[missed], minlength=num_classes),
    )


# ---------------------------------------------------------------- over a data set
class PanopticQuality(Metric):
    """Accumulate matches and report PQ, SQ and RQ over everything seen.

    Means are over the classes that occur in truth or prediction. Where there is none (nothing
    seen, or no class of the kind) a score is 0, so no value is ever NaN.

    Args:
        classes: Classes by id; `thing` says in which of the two means one counts.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    iou: Tensor
    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        for name in PanopticCounts._fields:
            dtype = torch.float64 if name == "iou" else torch.int64
            zeros = torch.zeros(len(self.classes), dtype=dtype)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, result: PanopticResult, target: MaskTarget) -> None:
        """Count one image.

        Args:
            result: Prediction (H, W).
            target: Of one image: masks (M, H, W) that do not overlap; pixels in none are void.

        Raises:
            ValueError: If sizes differ or masks overlap.
            DataError: If a class is none of the metric's, or ids and segments of the result
                disagree.
        """
        (labels,), (masks,), (crowd,) = target.labels, target.masks, target.crowd
        ids, areas = _ids_of_masks(masks)
        labelled = [
            Segment(number, int(label), bool(is_crowd))
            for number, (label, is_crowd) in enumerate(zip(labels, crowd, strict=True), start=1)
            if areas[number - 1]
        ]
        counts = panoptic_quality_counts(
            result.ids,
            result.segments,
            ids,
            labelled,
            num_classes=len(self.classes),
            where=result.source,
        )
        for name, values in counts._asdict().items():
            total: Tensor = getattr(self, name)
            total += torch.from_numpy(values).to(total.device)

    def compute(self) -> dict[str, float]:
        """Score everything seen so far.

        Returns:
            In [0, 1], but for the count `classes_in_mean`: `pq`, `sq`, `rq`, means over classes;
            the same with the ending `_things` and `_stuff` over those classes alone;
            `classes_in_mean`: number of classes that `pq` averages.
        """
        scores = _scores(self._counts())
        occurs = scores.pop("count") > 0
        things = np.array([item.thing for item in self.classes], np.bool_)
        groups = {"": occurs, "_things": occurs & things, "_stuff": occurs & ~things}
        means = {
            f"{name}{ending}": float(values[chosen].mean()) if chosen.any() else 0.0
            for ending, chosen in groups.items()
            for name, values in scores.items()
        }
        return {**means, "classes_in_mean": int(occurs.sum())}

    def per_class(self) -> list[dict[str, Any]]:
        """Score every class; every process must call it.

        Returns:
            By class id: `name`, `pq`, `sq`, `rq` in [0, 1], or None for a class in neither truth
            nor prediction, and the numbers `tp`, `fp`, `fn`.
        """
        with self.sync_context():
            counts = self._counts()
        scores = _scores(counts)
        occurs = scores.pop("count") > 0
        return [
            {
                "name": item.name,
                **{
                    name: float(values[index]) if occurs[index] else None
                    for name, values in scores.items()
                },
                "tp": int(counts.tp[index]),
                "fp": int(counts.fp[index]),
                "fn": int(counts.fn[index]),
            }
            for index, item in enumerate(self.classes)
        ]

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return nothing: segments that do not match are not confused with another class."""
        return {}

    def _counts(self) -> PanopticCounts:
        return PanopticCounts(
            *(getattr(self, name).cpu().numpy() for name in PanopticCounts._fields)
        )


def _ids_of_masks(masks: Tensor) -> tuple[NDArray[Any], list[int]]:
    """Return the ids (H, W) of bool masks (M, H, W) that do not overlap, 1..M, and their areas."""
    dtype = torch.uint8 if len(masks) <= 255 else torch.int32
    ids = torch.zeros(masks.shape[1:], dtype=dtype)
    for number, mask in enumerate(masks.cpu().view(torch.uint8), start=1):
        ids.add_(mask, alpha=number)
    areas = [int(np.count_nonzero(mask)) for mask in masks.cpu().numpy()]
    if np.count_nonzero(ids.numpy()) < sum(areas):
        raise ValueError("masks of panoptic labels overlap; each pixel belongs to one segment")
    return ids.numpy(), areas


def _scores(counts: PanopticCounts) -> dict[str, NDArray[np.float64]]:
    """Return `pq`, `sq`, `rq` by class, 0 where there is nothing, and the divisor `count`."""
    count = counts.tp + (counts.fp + counts.fn) / 2
    recognised = counts.tp / np.maximum(count, 0.5)
    quality = counts.iou / np.maximum(counts.tp, 1)
    return {
        "pq": counts.iou / np.maximum(count, 0.5),
        "sq": quality,
        "rq": recognised,
        "count": count,
    }
