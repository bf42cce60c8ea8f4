"""Boundary IoU: cases by hand, two independent slow versions, void, sums over images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from rtseg.errors import DataError
from rtseg.metrics import boundary
from rtseg.metrics.boundary import (
    BoundaryIoU,
    boundary_counts,
    boundary_distance,
    boundary_region,
)
from rtseg.structures import MaskTarget, SemanticResult, SemanticTarget

CLASSES = 3
MAPS = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


@st.composite
def pairs(draw: Any) -> Any:
    shape = draw(MAPS)
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1)))
    truth = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255])))
    kept = draw(hnp.arrays(np.bool_, shape))  # or hardly a pixel would agree
    return np.where(kept & (truth != 255), truth, prediction), truth


def slow_region(labels: Any, distance: int) -> Any:
    """Look at every pixel in the square around each one; outside of the image lies something."""
    found = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for y, x in np.ndindex(height, width):
        for dy in range(-distance, distance + 1):
            for dx in range(-distance, distance + 1):
                row, column = y + dy, x + dx
                inside = 0 <= row < height and 0 <= column < width
                if not inside or labels[row, column] != labels[y, x]:
                    found[y, x] = True
    return found


def eroded_counts(prediction: Any, truth: Any, distance: int) -> tuple[list[int], list[int]]:
    """Do it class by class by eroding masks, as the published code does."""
    square = np.ones((3, 3), bool)
    shared, either = [], []
    for index in range(CLASSES):
        sides = []
        for labels in (truth, np.where(truth == 255, 255, prediction)):
            mask = np.pad(labels == index, 1)
            core = ndimage.binary_erosion(mask, square, iterations=distance)
            sides.append((mask & ~core)[1:-1, 1:-1])
        shared.append(int((sides[0] & sides[1]).sum()))
        either.append(int((sides[0] | sides[1]).sum()))
    return shared, either


@given(hnp.arrays(np.uint8, MAPS, elements=st.sampled_from([0, 0, 0, 0, 1, 255])),
       st.integers(1, 4))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_region_equals_looking_around_every_pixel(labels: Any, distance: int) -> None:
    assert np.array_equal(boundary_region(labels, distance), slow_region(labels, distance))


@given(pairs(), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_counts_equal_eroding_every_class(pair: Any, distance: int) -> None:
    prediction, truth = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundary, "boundary_distance", lambda *_: distance)
        shared, either = boundary_counts(prediction, truth, CLASSES)
    assert (shared.tolist(), either.tolist()) == eroded_counts(prediction, truth, distance)


def test_larger_regions_equal_eroding_too() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, CLASSES, (5, 7)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    prediction = np.roll(blocks, (3, -4), (0, 1))
    blocks[10:40, 50:60] = 255
    shared, either = boundary_counts(prediction, blocks, CLASSES)
    assert (shared.tolist(), either.tolist()) == eroded_counts(prediction, blocks, 3)


@pytest.mark.parametrize(
    ("size", "distance"),
    [((1024, 2048), 46), ((360, 480), 12), ((3, 4), 1), ((60, 80), 2), ((75, 100), 2), ((1, 1), 1)],
)  # 2289.7, 600, 5, 100, 125 (2.5 is rounded to even), 1.4 times 0.02
def test_distance_is_two_percent_of_the_diagonal(size: tuple[int, int], distance: int) -> None:
    assert boundary_distance(*size) == distance


def test_squares_by_hand() -> None:
    truth = np.zeros((7, 7), np.uint8)
    truth[1:6, 1:6] = 1  # 5x5
    prediction = np.zeros((7, 7), np.uint8)
    prediction[2:5, 2:5] = 1  # 3x3 inside of it
    shared, either = boundary_counts(prediction, truth, 2)
    # Class 1: outlines of 16 and 8 pixels that do not touch. Class 0: all 24 of truth are outline
    # (the frame); of the prediction 40, all but none: two rings, both within one step.
    assert shared.tolist() == [24, 0]
    assert either.tolist() == [40, 24]


def result_of(mask: Any) -> SemanticResult:
    names = tuple("abc")
    return SemanticResult(np.asarray(mask, np.uint8), names, ((0, 0, 0),) * 3, source="x.png")


def scores_of(*seen: tuple[Any, Any]) -> BoundaryIoU:
    metric = BoundaryIoU("abc")
    for prediction, truth in seen:
        labels = torch.from_numpy(np.asarray(truth).astype(np.int64))[None]
        metric.update(result_of(prediction), SemanticTarget(labels))
    return metric


@given(pairs())
@settings(max_examples=40, deadline=None)
def test_a_perfect_prediction_scores_one_and_void_changes_nothing(pair: Any) -> None:
    prediction, truth = pair
    known = truth != 255
    perfect = scores_of((np.where(known, truth, prediction), truth)).compute()["boundary_iou"]
    assert perfect == (1.0 if known.any() else 0.0)
    other = np.where(known, prediction, 2 - prediction)
    first, second = scores_of((prediction, truth)), scores_of((other, truth))
    assert torch.equal(first.intersection, second.intersection)
    assert torch.equal(first.union, second.union)


def test_pixels_are_summed_before_they_are_divided() -> None:
    empty = np.zeros((1, 2), np.uint8)
    wrong = np.array([[1, 1, 1, 0]], np.uint8)
    metric = scores_of((empty, empty), (wrong, np.zeros((1, 4), np.uint8)))
    # Class a: 2 of 2, then 1 of 4 pixels; class b: 0 of 3; class c does not occur.
    assert metric.compute() == {"boundary_iou": pytest.approx((3 / 6 + 0) / 2)}
    assert metric.per_class() == [
        {"name": "a", "boundary_iou": 0.5}, {"name": "b", "boundary_iou": 0.0},
        {"name": "c", "boundary_iou": None},
    ]  # fmt: skip
    assert metric.matrices() == {}


def test_masks_are_taken_as_labels() -> None:
    truth = np.array([[0, 0, 1], [255, 2, 2]], np.uint8)
    masks = torch.from_numpy(np.stack([truth == index for index in range(3)]))
    ignore = torch.from_numpy(truth == 255)[None]
    target = MaskTarget((torch.arange(3),), (masks,), (torch.zeros(3, dtype=torch.bool),), ignore)
    metric = BoundaryIoU("abc")
    prediction = np.array([[0, 1, 1], [0, 2, 0]], np.uint8)
    metric.update(result_of(prediction), target)
    assert metric.compute() == scores_of((prediction, truth)).compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_seen_and_nothing_labelled_score_zero() -> None:
    assert BoundaryIoU("abc").compute() == {"boundary_iou": 0.0}
    void = scores_of((np.zeros((2, 2)), np.full((2, 2), 255)))
    assert void.compute() == {"boundary_iou": 0.0}
    assert {row["boundary_iou"] for row in void.per_class()} == {None}
    assert boundary_region(np.zeros((0, 3), np.uint8), 2).shape == (0, 3)


@pytest.mark.parametrize("value", [3, 254])
def test_labels_that_are_no_class_are_named(value: int) -> None:
    with pytest.raises(DataError, match=rf"x\.png: {value} is none of the 3 classes"):
        scores_of((np.zeros((9, 9)), np.full((9, 9), value)))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) and truth \(2, 1\) differ in size"):
        boundary_counts(np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.uint8), 3)
