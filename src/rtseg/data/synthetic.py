"""The embedded data set: procedural street scenes with exact labels, drawn on demand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.scene.canvas import Region
from rtseg.data.scene.compose import draw_scene
from rtseg.errors import ConfigError, nearest
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample, Segment

SPLITS = ("train", "val", "test")
SMALLEST = 32


class Synthetic:
    """Draw street scenes with semantic, panoptic, drivable and lane labels.

    A sample depends on seed, split, index and size only, whoever asks for it and in whatever order.
    The street of an index is the same at every size.

    Labels: `semantic` holds the 19 Cityscapes train ids, 255 on our own bonnet; `panoptic` the id
    of each thing and of each stuff class, 0 on the bonnet; `drivable` is 1 on the visible road
    surface of our direction of travel, its lane lines included; `lane` is 1 on lane lines
    (crosswalks and tram tracks are none).
    """

    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES
    kinds = ("semantic", "drivable", "lane", "panoptic")

    def __init__(
        self,
        *,
        split: str = "train",
        size: tuple[int, int] | list[int] = (256, 512),
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        """Check the options; nothing is drawn yet.

        Args:
            split: `train`, `val` or `test`; no two share a scene.
            size: Height and width in pixels, 32 or more each.
            length: Number of scenes, 1 or more.
            seed: Any whole number from 0 to 2**64 - 1; another seed gives other scenes.

        Raises:
            ConfigError: An option is out of range.
        """
        if split not in SPLITS:
            near = nearest(split, SPLITS, count=1)[0]
            raise ConfigError(
                f"there is no split {split!r}",
                where="synthetic",
                fix=f"use train, val or test; the nearest is {near!r}",
            )
        if len(size) != 2 or min(size) < SMALLEST:
            raise ConfigError(
                f"size is {list(size)}",
                where="synthetic",
                fix=f"give [height, width] with {SMALLEST} or more pixels each",
            )
        if length < 1:
            raise ConfigError(f"length is {length}", where="synthetic", fix="ask for 1 or more")
        if not 0 <= seed < 1 << 64:
            raise ConfigError(f"seed is {seed}", where="synthetic", fix="use 0 to 2**64 - 1")
        self.split = split
        self.size = (int(size[0]), int(size[1]))
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Draw scene `index`; negative indices count from the end.

        Raises:
            IndexError: `index` is outside the data set.
        """
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of synthetic:{self.split}, which has {self.length}")
        index %= self.length
        stream = (SPLITS.index(self.split) << 56) | index
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, stream], np.uint64)))
        scene = draw_scene(rng, self.size)
        labels, segments = _labels(scene.codes, scene.regions)
        name = f"synthetic:{self.split}/{index}"
        return Sample(scene.image, labels, segments, name, scene.attributes)


def _labels(
    codes: NDArray[np.int32], regions: tuple[Region, ...]
) -> tuple[dict[str, NDArray[Any]], tuple[Segment, ...]]:
    """Translate codes (H, W) to the four kinds of labels and the segments that are visible."""
    stuff = len(CITYSCAPES_CLASSES)
    classes = np.array([region.class_id for region in regions], np.uint8)
    ids = np.array(
        [
            0
            if r.class_id == IGNORE_INDEX
            else stuff + r.instance
            if r.instance
            else 1 + r.class_id
            for r in regions
        ],
        np.int32,
    )
    drivable = np.array([region.drivable for region in regions], np.uint8)
    lane = np.array([region.lane for region in regions], np.uint8)
    shown = np.flatnonzero(np.bincount(codes.ravel(), minlength=len(regions)))
    visible = {int(ids[code]): int(classes[code]) for code in shown if ids[code]}
    labels: dict[str, NDArray[Any]] = {
        "semantic": classes[codes],
        "drivable": drivable[codes],
        "lane": lane[codes],
        "panoptic": ids[codes],
    }
    return labels, tuple(Segment(key, visible[key]) for key in sorted(visible))
