"""One result from several looks at an image: other sizes, its mirror image, windows of it.

- *Windows* cover the input of the network. Where they overlap, scores are averaged: logits, or for
  networks of masks the sums over their masks.
- *Views* are whole inputs made of one image. The scores of each are brought to the pixels of the
  image; there the softmax shares are averaged (for networks of masks the sums over their masks, as
  Mask2Former does), and the best class is chosen.

Panoptic and instance results cannot be averaged: the masks of two looks do not correspond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.ops.resize import resize_logits
from rtseg.structures import (
    ClassMapOutput,
    ImageMeta,
    MaskOutput,
    RoadLaneMapOutput,
    RoadLaneOutput,
    SemanticOutput,
)
from rtseg.tasks.fit import padded_source_size, to_source
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from rtseg.tasks.semantic_masks import SemanticMasksTask, semantic_scores

Size = tuple[int, int]
Look = tuple[Tensor, ImageMeta, bool]
"""Input (3, h, w) where the network is, how the image was fitted into it, and whether left and
right were swapped before."""
Maps = tuple[Tensor, ...]
"""Scores of the classes of each pixel, (1, K, h, w): one map, or one for each kind of lane task."""
OVERLAP = 2 / 3
"""decision: windows advance by two thirds of their side, as is usual, if nothing else is asked."""


@dataclass(frozen=True)
class Windows:
    """Parts of an input that a network looks at one after the other.

    size: (h, w) of a window; an input that is smaller in a direction is covered by one. stride:
    rows and columns from one to the next; the last one ends at the border of the input.

    Raises:
        ConfigError: A length is not above 0, or pixels between two windows would be left out.
    """

    size: Size
    stride: Size | None = None

    def __post_init__(self) -> None:
        if min(*self.size, *self.steps) < 1:
            raise ConfigError(
                f"size {list(self.size)} and stride {list(self.steps)} must be positive",
                where="window",
            )
        if any(step > side for step, side in zip(self.steps, self.size, strict=True)):
            raise ConfigError(
                f"stride {list(self.steps)} is larger than the window {list(self.size)}, so that "
                "pixels would be left out",
                where="window",
                fix="use a stride of at most the size",
            )

    @property
    def steps(self) -> Size:
        """The stride, or two thirds of the window."""
        rows, columns = self.size
        return self.stride or (math.ceil(rows * OVERLAP), math.ceil(columns * OVERLAP))

    def places(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return rows and columns of the windows that cover (height, width)."""
        rows, columns = (
            _starts(length, side, step)
            for length, side, step in zip((height, width), self.size, self.steps, strict=True)
        )
        return [
            (slice(top, top + self.size[0]), slice(left, left + self.size[1]))
            for top in rows
            for left in columns
        ]


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, step), last]


# ---------------------------------------------------------------- what tasks have in common
class _Reading(NamedTuple):
    """How maps are read from the output of a task, averaged, and made an output again.

    maps: task, output, size -> its maps; a task may need the size that they are wanted at. shares:
    what is averaged over views. finish: task, maps -> another task with its output.
    """

    maps: Callable[[Any, Any, Size], Maps]
    shares: Callable[[Tensor], Tensor]
    finish: Callable[[Any, Maps], tuple[Any, Any]]


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(1)


def _mask_maps(task: SemanticMasksTask, output: MaskOutput, size: Size) -> Maps:
    if task.sem_order == "resize_first":
        output = MaskOutput(output.class_logits, resize_logits(output.mask_logits, size))
    return (semantic_scores(output, class_loss=task.step.class_loss),)


def _semantic_output(task: Any, maps: Maps) -> tuple[SemanticTask, SemanticOutput]:
    return SemanticTask(task.classes), SemanticOutput(maps[0])


def _road_lane_maps(task: RoadLaneTask, output: RoadLaneOutput, _: Size) -> Maps:
    return tuple(getattr(output, kind) for kind in task.needs)


def _road_lane_output(task: RoadLaneTask, maps: Maps) -> tuple[RoadLaneTask, RoadLaneOutput]:
    given = dict(zip(task.needs, maps, strict=True))
    return task, RoadLaneOutput(given.get("drivable"), given.get("lane"))


_READINGS: dict[type, _Reading] = {
    SemanticTask: _Reading(lambda _, output, __: (output.logits,), _softmax, _semantic_output),
    SemanticMasksTask: _Reading(_mask_maps, lambda scores: scores, _semantic_output),
    RoadLaneTask: _Reading(_road_lane_maps, _softmax, _road_lane_output),
}


def can_average(task: Any) -> bool:
    """Return whether results of a task can be made of several views or windows."""
    return type(task) in _READINGS


def _reading(task: Any) -> _Reading:
    if not can_average(task):
        raise ConfigError(
            f"{type(task).__name__} gives no scores of pixels that could be averaged",
            where="task",
            fix="score it without flip, scales and windows",
        )
    return _READINGS[type(task)]


# ---------------------------------------------------------------- one image
def predict(
    model: nn.Module,
    task: Any,
    looks: Sequence[Look],
    *,
    windows: Windows | None = None,
    confidence: bool = False,
) -> Any:
    """Return the result of one image from all looks at it.

    With a single look, not mirrored and without windows, it is what the task makes of the network's
    output.

    Args:
        model: Network in evaluation mode.
        task: Of the network.
        looks: At the image, at least one.
        windows: Look through windows; at the whole input at once if left out.
        confidence: As for the task; of several looks it is the averaged share.

    Raises:
        ConfigError: The task has no scores of pixels that could be averaged.
    """
    image, meta, mirrored = looks[0]
    if windows is None and len(looks) == 1 and not mirrored:
        return task.postprocess(model(image[None]), [meta], confidence=confidence)[0]
    reading = _reading(task)
    totals = _shares(model, task, looks[0], reading=reading, windows=windows)
    for look in looks[1:]:
        others = _shares(model, task, look, reading=reading, windows=windows)
        totals = tuple(total + other for total, other in zip(totals, others, strict=True))
    # The logarithm of averaged shares is a logit again: its softmax is those shares.
    tiny = torch.finfo(torch.float32).tiny
    finisher, output = reading.finish(task, tuple(item.clamp(min=tiny).log() for item in totals))
    done = ImageMeta(meta.path, meta.source_size, meta.source_size, (0, 0))
    return finisher.postprocess(output, [done], confidence=confidence)[0]


def _shares(
    model: nn.Module, task: Any, look: Look, *, reading: _Reading, windows: Windows | None
) -> Maps:
    """Return what one look gives to the average, at the pixels of the image, not mirrored."""
    image, meta, mirrored = look
    if windows is None:
        scores = reading.maps(task, _scored(model, image[None]), padded_source_size(meta))
    else:
        scores = _through_windows(
            image, windows, lambda part, size: reading.maps(task, _scored(model, part), size)
        )
    shares = [reading.shares(to_source(item, meta)) for item in scores]
    return tuple(item.flip(-1) if mirrored else item for item in shares)


def _scored(model: nn.Module, images: Tensor) -> Any:
    """Return the output of a network that gives scores.

    Raises:
        ConfigError: It is a file that gives chosen classes.
    """
    output = model(images)
    if isinstance(output, (ClassMapOutput, RoadLaneMapOutput)):
        raise ConfigError(
            "the exported file gives chosen classes, which cannot be averaged",
            where="views",
            fix="leave out flip, scales and windows, or export without --with-argmax",
        )
    return output


def _through_windows(image: Tensor, windows: Windows, maps: Callable[[Tensor, Size], Maps]) -> Maps:
    """Average the maps of all windows over an input (3, h, w), each brought to its window's size.

    maps: part (1, 3, h', w'), its size -> maps of it.
    """
    height, width = image.shape[-2:]
    sums: list[Tensor] = []
    count = torch.zeros(height, width, device=image.device)
    for rows, columns in windows.places(height, width):
        part = image[None, :, rows, columns].contiguous()
        size = (part.shape[-2], part.shape[-1])
        found = [resize_logits(item, size) for item in maps(part, size)]
        sums = sums or [item.new_zeros(1, item.shape[1], height, width) for item in found]
        for total, item in zip(sums, found, strict=True):
            total[..., rows, columns] += item
        count[rows, columns] += 1
    return tuple(total / count for total in sums)
