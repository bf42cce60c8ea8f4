from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from export.networks import CLASSES
from rtseg.errors import ConfigError
from rtseg.export.choose import chooser, chosen
from rtseg.structures import (
    ClassificationOutput,
    ClassMapOutput,
    ImageMeta,
    MaskOutput,
    RoadLaneOutput,
    SemanticOutput,
)
from rtseg.tasks import rebuild

SIZE = (24, 40)
META = [ImageMeta("", SIZE, SIZE, (0, 0))] * 2


def logits(channels: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, 6, 10, generator=torch.Generator().manual_seed(seed))


def masks() -> MaskOutput:
    generator = torch.Generator().manual_seed(1)
    return MaskOutput(torch.randn(2, 7, 5, generator=generator), logits(7))


@pytest.mark.parametrize(
    ("task", "options", "output"),
    [
        ("semantic", {}, SemanticOutput(logits(4))),
        ("semantic_masks", {}, masks()),
        ("semantic_masks", {"sem_order": "resize_first"}, masks()),
        ("semantic_masks", {"class_loss": "bce"}, masks()),
    ],
)
def test_maps_are_those_that_the_task_makes(
    task: str, options: dict[str, Any], output: Any
) -> None:
    built = rebuild(task, CLASSES, options)
    found = chooser(built)(output, SIZE)
    assert found.classes.dtype == torch.uint8
    expected = built.postprocess(output, META)
    results = built.postprocess(found, META)
    for one, other, map_ in zip(expected, results, found.classes.numpy(), strict=True):
        assert np.array_equal(one.mask, map_)
        assert np.array_equal(other.mask, map_)
    assert len(np.unique(found.classes.numpy())) > 2


@pytest.mark.parametrize("tasks", ["both", "lane"])
def test_road_and_lane_maps_are_those_that_the_task_makes(tasks: str) -> None:
    built = rebuild("road_lane", (), {"tasks": tasks})
    drivable = logits(2) if tasks == "both" else None
    output = RoadLaneOutput(drivable, logits(2, seed=2))
    found = chooser(built)(output, SIZE)
    for one, other in zip(
        built.postprocess(output, META), built.postprocess(found, META), strict=True
    ):
        assert np.array_equal(one.lane, other.lane)
        assert 0 < one.lane.mean() < 1
        assert (one.drivable is None) == (tasks == "lane")
        assert tasks == "lane" or np.array_equal(one.drivable, other.drivable)


@pytest.mark.parametrize("task", ["panoptic", "instance", "classification"])
def test_tasks_without_a_class_map_refuse(task: str) -> None:
    with pytest.raises(ConfigError, match="Task gives no map of classes"):
        chooser(rebuild(task, CLASSES, {}))


def test_classes_are_read_from_every_output() -> None:
    scores = torch.tensor([[[[1.0, 5.0]], [[2.0, 3.0]]]])
    assert chosen(SemanticOutput(scores))["logits"].tolist() == [[[1, 0]]]
    assert list(chosen(RoadLaneOutput(None, scores))) == ["lane"]
    assert chosen(ClassificationOutput(torch.tensor([[0.0, 9.0, 1.0]])))["logits"].tolist() == [1]
    given = torch.tensor([[[3, 1]]], dtype=torch.uint8)
    assert chosen(ClassMapOutput(given))["classes"] is given
    # One query of each class; the first is sure of the left pixel, the second of the right one.
    one = MaskOutput(
        torch.tensor([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]]),
        torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]]),
    )
    assert chosen(one)["classes"].tolist() == [[[0, 1]]]
