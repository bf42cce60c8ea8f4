"""Choose classes where a task itself would, so that a file can do it and a check can compare it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from rtseg.errors import ConfigError
from rtseg.export.graph import Choose, Size
from rtseg.ops.resize import resize_logits
from rtseg.structures import (
    ClassMapOutput,
    MaskOutput,
    RoadLaneMapOutput,
    RoadLaneOutput,
    SemanticOutput,
)
from rtseg.tasks import Task
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from rtseg.tasks.semantic_masks import SemanticMasksTask, semantic_scores


def chooser(task: Task) -> Choose:
    """Return what makes maps at the size of the input out of the output of a task's network.

    Raises:
        ConfigError: The task gives no map of classes.
    """
    if isinstance(task, SemanticTask):
        return _classes
    if isinstance(task, SemanticMasksTask):
        return functools.partial(_classes_of_masks, task=task)
    if isinstance(task, RoadLaneTask):
        return _road_lane
    raise ConfigError(
        f"{type(task).__name__} gives no map of classes that a file could choose",
        where="with_argmax",
        fix="leave it out",
    )


def _classes(output: SemanticOutput, size: Size) -> ClassMapOutput:
    return ClassMapOutput(_best(resize_logits(output.logits, size)))


def _classes_of_masks(output: MaskOutput, size: Size, *, task: SemanticMasksTask) -> ClassMapOutput:
    if task.sem_order == "resize_first":
        masks = resize_logits(output.mask_logits, size)
        output = MaskOutput(output.class_logits, masks)
    scores = semantic_scores(output, class_loss=task.step.class_loss)
    return ClassMapOutput(_best(resize_logits(scores, size)))


def _road_lane(output: RoadLaneOutput, size: Size) -> RoadLaneMapOutput:
    return RoadLaneMapOutput(
        *(None if logits is None else _marked(resize_logits(logits, size)) for logits in output)
    )


def _marked(logits: Tensor) -> Tensor:
    """Return where channel 1 of two wins, (B, H, W) uint8; cheaper in engines than arg-max."""
    return (logits[:, 1] > logits[:, 0]).to(torch.uint8)


def _best(scores: Tensor) -> Tensor:
    """Return the best class of each pixel, (B, H, W) uint8; the lowest id wins a tie.

    Not `resize_argmax`: its kernel is no part of an exported graph.
    """
    return scores.argmax(dim=1).to(torch.uint8)


def chosen(output: Any) -> dict[str, Tensor]:
    """Return the classes that an output stands for, by name, at the output's own resolution.

    Masks are added up as for semantic segmentation, whatever their task is.
    """
    if isinstance(output, MaskOutput):
        return {"classes": semantic_scores(output).argmax(dim=1)}
    maps = {key: value for key, value in output._asdict().items() if isinstance(value, Tensor)}
    return {
        key: value.argmax(dim=1) if value.is_floating_point() else value
        for key, value in maps.items()
    }
