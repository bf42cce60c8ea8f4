"""Maps of truth and prediction for every task that has classes of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtseg.metrics.confusion import SegmentationScores
from rtseg.structures import (
    ClassificationResult,
    ClassInfo,
    MaskTarget,
    PanopticResult,
    RoadLaneResult,
    RoadLaneTarget,
    Segment,
    SemanticResult,
    SemanticTarget,
)
from rtseg.tasks.scoring import class_maps, new_metric
from rtseg.tasks.semantic import SemanticTask

NAMES, PALETTE = ("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3))


def masks(labels: Any) -> MaskTarget:
    """Return a target with one mask for each class of a map."""
    found = [index for index in range(3) if (labels == index).any()]
    stack = torch.from_numpy(np.stack([labels == index for index in found]))
    crowd = torch.zeros(len(found), dtype=torch.bool)
    return MaskTarget(
        (torch.tensor(found),), (stack,), (crowd,), torch.from_numpy(labels == 255)[None]
    )


def test_maps_of_classes_are_those_of_the_result_and_the_labels() -> None:
    labels = np.array([[0, 2, 255]])
    result = SemanticResult(np.array([[0, 1, 1]], np.uint8), NAMES, PALETTE)
    for target in (SemanticTarget(torch.from_numpy(labels)[None]), masks(labels)):
        maps = class_maps(result, target)
        assert maps.truth.tolist() == [[0, 2, 255]]
        assert maps.truth.dtype == np.uint8
        assert maps.prediction.tolist() == [[0, 1, 1]]
        assert (maps.names, maps.palette) == (NAMES, PALETTE)


def test_segments_become_their_classes_and_nothing_found_is_void() -> None:
    ids = np.array([[7, 7, 9, 0]], np.int32)
    segments = (Segment(7, 2), Segment(9, 0))
    result = PanopticResult(ids, segments, (0.9, 0.8), NAMES, PALETTE)
    maps = class_maps(result, masks(np.array([[2, 1, 255, 0]])))
    assert maps.prediction.tolist() == [[2, 2, 0, 255]]
    assert maps.truth.tolist() == [[2, 1, 255, 0]]


def road(drivable: Any, lane: Any) -> RoadLaneResult:
    kinds = [None if item is None else np.array([item], bool) for item in (drivable, lane)]
    return RoadLaneResult(kinds[0], kinds[1], ("drivable", "lane"), ((9, 0, 0), (0, 9, 0)))


def test_lanes_lie_on_the_drivable_area() -> None:
    target = RoadLaneTarget(
        torch.tensor([[[0, 1, 1, 255, 0, 255]]]), torch.tensor([[[0, 0, 1, 255, 255, 0]]])
    )
    maps = class_maps(road([0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 0, 0]), target)
    assert maps.truth.tolist() == [[0, 1, 2, 255, 0, 0]]
    assert maps.prediction.tolist() == [[0, 1, 2, 2, 1, 0]]
    assert maps.names == ("background", "drivable", "lane")
    assert maps.palette[1:] == ((9, 0, 0), (0, 9, 0))


def test_a_network_of_one_map_is_drawn_alone() -> None:
    labels = torch.tensor([[[0, 1]]])
    target = RoadLaneTarget(torch.full_like(labels, 255), labels)
    maps = class_maps(road(None, [1, 1]), target)
    assert maps.truth.tolist() == [[0, 2]]
    assert maps.prediction.tolist() == [[2, 2]]


def test_other_results_have_no_maps() -> None:
    result = ClassificationResult(0, np.ones(3, np.float32) / 3, NAMES)
    with pytest.raises(TypeError, match="ClassificationResult has no classes of pixels"):
        class_maps(result, None)


def test_outlines_are_scored_beside_the_own_metric_if_asked_for() -> None:
    task = SemanticTask([ClassInfo(name, (0, 0, 0)) for name in NAMES])
    assert type(new_metric(task)) is SegmentationScores
    assert list(new_metric(task, boundary=True).per_class()[0])[-1] == "boundary_iou"
