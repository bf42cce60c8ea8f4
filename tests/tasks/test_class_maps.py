"""What an exported file has chosen becomes a result as scores do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.structures import ClassInfo, ClassMapOutput, ImageMeta, RoadLaneMapOutput
from rtseg.tasks import rebuild
from rtseg.tasks.fit import map_to_source
from rtseg.tasks.views import Windows, predict

CLASSES = tuple(ClassInfo(name, (i, i, i)) for i, name in enumerate("abcdef"))
MAP = torch.arange(6, dtype=torch.uint8).view(2, 3)


def test_a_map_of_the_size_of_its_source_stays() -> None:
    assert torch.equal(map_to_source(MAP, ImageMeta("", (2, 3), (2, 3), (0, 0))), MAP)


def test_padding_is_cut_off() -> None:
    assert map_to_source(MAP, ImageMeta("", (1, 2), (1, 2), (1, 1))).tolist() == [[0, 1]]
    centred = ImageMeta("", (1, 2), (1, 2), (1, 1), (1, 1))
    assert map_to_source(MAP, centred).tolist() == [[4, 5]]


def test_each_pixel_of_the_source_takes_the_nearest_class() -> None:
    doubled = map_to_source(MAP, ImageMeta("", (4, 6), (2, 3), (0, 0)))
    assert torch.equal(doubled, MAP.repeat_interleave(2, 0).repeat_interleave(2, 1))
    # Of 3 columns shrunk to 1, the one in the middle is nearest.
    assert map_to_source(MAP, ImageMeta("", (2, 1), (2, 3), (0, 0))).tolist() == [[1], [4]]
    # Half of the input is padding: 2 of 4 source rows would be.
    assert map_to_source(MAP, ImageMeta("", (2, 3), (1, 3), (1, 0))).tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("task", ["semantic", "semantic_masks"])
def test_maps_of_a_batch_become_results(task: str) -> None:
    built = rebuild(task, CLASSES, {})
    meta = [ImageMeta("one", (2, 3), (2, 3), (0, 0)), ImageMeta("two", (2, 2), (2, 2), (0, 1))]
    output = ClassMapOutput(torch.stack([MAP, MAP.flip(1)]))
    first, second = built.postprocess(output, meta)
    assert (first.source, second.source) == ("one", "two")
    assert first.mask.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.mask.tolist() == [[2, 1], [5, 4]]
    assert first.mask.dtype == np.uint8
    assert first.names == tuple("abcdef")
    assert first.confidence is None
    with pytest.raises(ConfigError, match="confidence: the exported file gives chosen classes"):
        built.postprocess(output, meta, confidence=True)


def test_maps_of_road_and_lanes_become_results() -> None:
    meta = [ImageMeta("", (2, 2), (2, 2), (0, 1))]
    lane = (MAP % 2)[None]
    (result,) = rebuild("road_lane", (), {}).postprocess(RoadLaneMapOutput(1 - lane, lane), meta)
    assert result.lane.tolist() == [[False, True], [True, False]]
    assert result.drivable.tolist() == [[True, False], [False, True]]
    single = rebuild("road_lane", (), {"tasks": "lane"})
    (result,) = single.postprocess(RoadLaneMapOutput(None, lane), meta)
    assert result.drivable is None
    with pytest.raises(ConfigError, match="the network gives lane, the task expects drivable"):
        rebuild("road_lane", (), {}).postprocess(RoadLaneMapOutput(None, lane), meta)


class Chooses(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return ClassMapOutput(torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8))


def test_chosen_classes_are_not_averaged() -> None:
    task = rebuild("semantic", CLASSES, {})
    look = (torch.zeros(3, 8, 8), ImageMeta("", (8, 8), (8, 8), (0, 0)), False)
    assert predict(Chooses(), task, [look]).mask.shape == (8, 8)
    for options in ({"looks": [look, look]}, {"looks": [look], "windows": Windows((4, 4))}):
        with pytest.raises(ConfigError, match="views: the exported file gives chosen classes"):
            predict(Chooses(), task, **options)
