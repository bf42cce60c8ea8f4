"""Groups add up to the whole; single images are scored and ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtseg.errors import ConfigError, DataError
from rtseg.evaluation.tally import UNKNOWN, Tally
from rtseg.structures import (
    ClassInfo,
    RoadLaneResult,
    RoadLaneTarget,
    SemanticResult,
    SemanticTarget,
)
from rtseg.tasks.classification import ClassificationTask
from rtseg.tasks.instance import InstanceTask
from rtseg.tasks.panoptic import PanopticTask
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask

CLASSES = tuple(ClassInfo(name, (1, 2, 3), thing=True) for name in "abc")
TASK = SemanticTask(CLASSES)
WEATHER = ("rain", "clear", "rain", "fog", "clear", "rain")


def pair(number: int) -> tuple[SemanticResult, SemanticTarget]:
    rng = np.random.default_rng(number)
    mask = rng.integers(0, 3, (5, 6), dtype=np.uint8)
    truth = np.where(rng.random((5, 6)) < 0.5, mask, rng.choice([0, 1, 2, 255], (5, 6)))
    result = SemanticResult(mask, tuple("abc"), ((0, 0, 0),) * 3, source=f"{number}.png")
    return result, SemanticTarget(torch.from_numpy(truth.astype(np.int64))[None])


def tallied(**options: Any) -> Tally:
    tally = Tally(TASK, device="cpu", **options)
    for number, weather in enumerate(WEATHER):
        facts = {"weather": weather, "scene": "street"}
        tally.add(*pair(number), number=number, attributes=facts)
    return tally


def test_groups_add_up_to_the_whole() -> None:
    found = tallied(by=["weather", "scene"], boundary=True).finish(seconds=1.5)
    assert (found.images, found.seconds) == (6, 1.5)
    assert [(g.value, g.images) for g in found.groups["weather"]] == [
        ("clear", 2), ("fog", 1), ("rain", 3),
    ]  # fmt: skip
    assert [(g.value, g.images) for g in found.groups["scene"]] == [("street", 6)]
    whole = found.metric.matrices()["confusion"][0]
    for groups in found.groups.values():
        parts = [group.metric.matrices()["confusion"][0] for group in groups]
        assert np.array_equal(sum(parts), whole)
    assert found.groups["scene"][0].scores == found.scores
    rain = Tally(TASK, device="cpu", boundary=True)
    for number in (0, 2, 5):
        rain.add(*pair(number))
    assert found.groups["weather"][2].scores == rain.finish(seconds=0).scores
    assert "boundary_iou" in found.scores
    assert found.group_rows()["weather"][1] == {
        "weather": "fog", "images": 1, **found.groups["weather"][1].scores,
    }  # fmt: skip


def test_an_attribute_that_no_image_has_is_named_at_the_first_one() -> None:
    tally = Tally(TASK, device="cpu", by=["wether"])
    with pytest.raises(
        DataError, match=r"0\.png: has no attribute 'wether' .*scene, weather.*'wea"
    ):
        tally.add(*pair(0), attributes={"weather": "rain", "scene": "street"})
    with pytest.raises(DataError, match=r"0\.png: has no attributes"):
        Tally(TASK, device="cpu", by=["weather"]).add(*pair(0))


def test_images_that_lack_an_attribute_of_others_are_a_group() -> None:
    tally = Tally(TASK, device="cpu", by=["weather"])
    tally.add(*pair(0), attributes={"weather": "rain"})
    tally.add(*pair(1), attributes={})
    groups = tally.finish(seconds=0).groups["weather"]
    assert [(group.value, group.images) for group in groups] == [(UNKNOWN, 1), ("rain", 1)]


def image_miou(number: int) -> float:
    result, target = pair(number)
    truth = target.labels[0].numpy()
    known, ious = truth != 255, []
    for index in range(3):
        first, second = (known & (labels == index) for labels in (truth, result.mask))
        if (first | second).any():
            ious.append((first & second).sum() / (first | second).sum())
    return float(np.mean(ious))


def test_every_image_is_scored_alone() -> None:
    found = tallied(per_image=True).finish(seconds=0)
    expected = [image_miou(number) for number in range(6)]
    assert [entry.mean for entry in found.per_image] == pytest.approx(expected)
    assert [entry.path for entry in found.per_image] == [f"{number}.png" for number in range(6)]
    assert found.per_image[3].attributes == {"weather": "fog", "scene": "street"}
    assert found.per_image[3].scores["miou"] == pytest.approx(expected[3])
    assert next(iter(found.per_image[3].scores)) == "image_miou"
    assert found.scores["image_miou"] == pytest.approx(np.mean(expected))
    assert found.scores["image_miou"] != pytest.approx(found.scores["miou"])
    assert "image_miou" not in found.metric.compute()
    assert found.worst == []


def test_the_worst_images_are_kept_lowest_first() -> None:
    found = tallied(worst=3).finish(seconds=0)
    order = sorted(range(6), key=image_miou)[:3]
    assert [item.scores.number for item in found.worst] == order
    assert [item.result.source for item in found.worst] == [f"{number}.png" for number in order]
    assert found.per_image == []
    assert "image_miou" not in found.scores
    assert tallied().finish(seconds=0).worst == []


def test_of_equally_bad_images_the_first_ones_are_kept() -> None:
    tally = Tally(TASK, device="cpu", worst=2)
    for number in (3, 1, 2, 0):
        tally.add(*pair(7), number=number)
    assert [item.scores.number for item in tally.finish(seconds=0).worst] == [0, 1]


def test_images_without_labels_are_neither_good_nor_bad() -> None:
    tally = Tally(TASK, device="cpu", per_image=True, worst=5)
    result, target = pair(0)
    tally.add(result, SemanticTarget(torch.full_like(target.labels, 255)), number=0)
    empty = tally.finish(seconds=0)
    assert empty.per_image[0].mean is None
    assert "image_miou" not in empty.scores
    assert empty.worst == []
    tally.add(*pair(1), number=1)
    assert tally.finish(seconds=0).scores["image_miou"] == pytest.approx(image_miou(1))


def test_a_road_without_lanes_is_ranked_by_its_drivable_area() -> None:
    tally = Tally(RoadLaneTask(()), device="cpu", per_image=True)
    half = np.array([[True, True, False, False]])
    nothing = np.zeros((1, 4), bool)
    result = RoadLaneResult(half, nothing, ("drivable", "lane"), ((1, 2, 3),) * 2, source="r.png")
    labels = torch.tensor([[[1, 0, 0, 0]]])
    tally.add(result, RoadLaneTarget(labels, torch.zeros_like(labels)))
    (entry,) = tally.finish(seconds=0).per_image
    assert entry.mean == 0.5
    assert entry.scores["lane_iou"] == 0
    assert not any(name.endswith("_batch16") for name in entry.scores)


@pytest.mark.parametrize("task", [InstanceTask(CLASSES), ClassificationTask(CLASSES)])
@pytest.mark.parametrize("options", [{"per_image": True}, {"worst": 1}])
def test_tasks_without_scores_of_single_images_are_refused_at_once(
    task: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="no score that says how good"):
        Tally(task, device="cpu", **options)


def test_segments_are_ranked_by_panoptic_quality() -> None:
    assert Tally(PanopticTask(CLASSES), device="cpu", worst=1).alone.name == "image_pq"  # type: ignore[union-attr]


@pytest.mark.parametrize("task", [InstanceTask(CLASSES), PanopticTask(CLASSES), RoadLaneTask(())])
def test_outlines_are_for_classes_of_pixels(task: Any) -> None:
    with pytest.raises(ConfigError, match="outlines are scored for semantic segmentation only"):
        Tally(task, device="cpu", boundary=True)
