"""What data sets yield, and what losses and metrics read.

Label maps hold class ids 0..C-1 and `IGNORE_INDEX` where nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

IGNORE_INDEX = 255
"""Label of a pixel that counts neither in a loss nor in a metric; the same value in files."""


# ---------------------------------------------------------------- what a data set yields
@dataclass(frozen=True)
class ClassInfo:
    """One class of a data set: its name, its RGB color (0-255), whether it is a countable thing."""

    name: str
    color: tuple[int, int, int]
    thing: bool = False


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map: its id there (> 0), its class id, whether it is a crowd."""

    id: int
    class_id: int
    crowd: bool = False


@dataclass(frozen=True)
class Sample:
    """One image with whatever labels its data set offers; a data set knows no task.

    image: uint8 (H, W, 3) RGB as read; augmentation makes it float32 (H, W, 3), still in 0-255.
    labels: by kind. `semantic` uint8 (H, W) of class ids; `drivable`, `lane` uint8 (H, W) of 0
        and 1; `panoptic` int32 (H, W) of segment ids, 0 = void; all but `panoptic` use
        `IGNORE_INDEX` for void. `class` is a single class id, int64 of shape ().
    segments: one entry for each id of the panoptic map.
    path: the file the image came from, or a name that says how to draw it again
        (`synthetic:seed=0/7`).
    attributes: facts about the scene such as weather or time of day.
    """

    image: NDArray[Any]
    labels: Mapping[str, NDArray[Any]]
    segments: tuple[Segment, ...] = ()
    path: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------- what losses and metrics read
class SemanticTarget(NamedTuple):
    """`labels`: (B, H, W) int64, class ids and `IGNORE_INDEX`."""

    labels: Tensor


class RoadLaneTarget(NamedTuple):
    """`drivable`, `lane`: (B, H, W) int64 of 0, 1 and `IGNORE_INDEX`.

    A kind that a sample lacks is `IGNORE_INDEX` everywhere.
    """

    drivable: Tensor
    lane: Tensor


class MaskTarget(NamedTuple):
    """Labelled masks, as many per image as it shows (M, which may be 0).

    `labels`: per image (M,) int64, class ids.
    `masks`: per image (M, H, W) bool.
    `crowd`: per image (M,) bool, regions of many things that were not told apart; losses leave
        them out.
    `ignore`: (B, H, W) bool, pixels where nothing is known.
    """

    labels: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    crowd: tuple[Tensor, ...]
    ignore: Tensor


class ClassificationTarget(NamedTuple):
    """`labels`: (B,) int64, class ids."""

    labels: Tensor


class ImageMeta(NamedTuple):
    """Where an image of a batch came from and how it was fitted into it.

    path: as in `Sample`. source_size: (H, W) of the image before any resize.
    input_size: (h, w) after the size rule, before padding.
    padding: rows and columns added by padding, all sides together, in input pixels.
    offset: those of them that lie above and at the left of the image.
    """

    path: str
    source_size: tuple[int, int]
    input_size: tuple[int, int]
    padding: tuple[int, int]
    offset: tuple[int, int] = (0, 0)


class Batch(NamedTuple):
    """Normalized images (B, 3, H, W) with their target.

    In training one target for all; in evaluation one per image, at native size.
    """

    images: Tensor
    target: Any
    meta: tuple[ImageMeta, ...]
    faults: tuple[str, ...] = ()
