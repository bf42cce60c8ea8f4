"""What an evaluation asks of every task besides its metric: outlines, and maps to be drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtseg.errors import ConfigError
from rtseg.structures import IGNORE_INDEX, PanopticResult, RoadLaneResult, SemanticResult

Color = tuple[int, int, int]
BACKGROUND: Color = (71, 85, 105)
"""Of what is neither drivable nor lane."""


def new_metric(task: Any, *, boundary: bool = False) -> Any:
    """Return an empty metric of a task, with scores of outlines beside its own if asked for.

    Raises:
        ConfigError: The task has no class for every pixel, so that there are no outlines to score.
    """
    metric = task.new_metric()
    if not boundary:
        return metric
    from rtseg.metrics.boundary import BoundaryIoU
    from rtseg.metrics.confusion import SegmentationScores
    from rtseg.metrics.joined import Joined

    if not isinstance(metric, SegmentationScores):
        raise ConfigError(
            "outlines are scored for semantic segmentation only",
            where="boundary",
            fix="leave it out",
        )
    return Joined(metric, BoundaryIoU(metric.class_names))


class ClassMaps(NamedTuple):
    """Truth and prediction of an image as class ids (H, W), uint8, 255 = void; how to draw them."""

    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    palette: tuple[Color, ...]
    names: tuple[str, ...]


def class_maps(result: Any, target: Any) -> ClassMaps:
    """Return what a result and its labels say about the class of each pixel.

    Of drivable area and lanes the classes are background, drivable and lane, which lies on top.

    Raises:
        TypeError: The result says nothing about single pixels.
    """
    from rtseg.metrics.confusion import label_map

    if isinstance(result, RoadLaneResult):
        return _road_lane_maps(result, target)
    if isinstance(result, PanopticResult):
        prediction = np.full(result.ids.shape, IGNORE_INDEX, np.uint8)
        for segment in result.segments:
            prediction[result.ids == segment.id] = segment.class_id
    elif isinstance(result, SemanticResult):
        prediction = result.mask.astype(np.uint8, copy=False)
    else:
        raise TypeError(f"{type(result).__name__} has no classes of pixels")
    truth = label_map(target).astype(np.uint8, copy=False)
    return ClassMaps(truth, prediction, result.palette, result.names)


def _road_lane_maps(result: RoadLaneResult, target: Any) -> ClassMaps:
    kinds = [kind for kind in result.names if getattr(result, kind) is not None]
    size = getattr(result, kinds[0]).shape
    truth, prediction = np.full(size, IGNORE_INDEX, np.uint8), np.zeros(size, np.uint8)
    for kind in kinds:
        label = 1 + result.names.index(kind)
        labels = getattr(target, kind).cpu().numpy().reshape(size)
        truth[(labels == 0) & (truth == IGNORE_INDEX)] = 0
        truth[labels == 1] = label
        prediction[getattr(result, kind)] = label
    names = ("background", *result.names)
    return ClassMaps(truth, prediction, (BACKGROUND, *result.palette), names)
