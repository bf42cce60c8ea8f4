"""Stand-ins for the readers: noise, with the options, classes and kinds of the real one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from rtseg.data import DATASETS
from rtseg.data.ade20k_classes import ADE20K_CLASSES
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample, Segment

HEIGHT, WIDTH = 48, 64


def plain(count: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(f"class {index}", (index % 256, 0, 0)) for index in range(count))


CLASSES: dict[str, tuple[ClassInfo, ...]] = {
    "synthetic": CITYSCAPES_CLASSES,
    "camvid": plain(11),
    "cityscapes": CITYSCAPES_CLASSES,
    "bdd100k": (),
    "ade20k": tuple(ADE20K_CLASSES),
    "voc": plain(21),
    "image_folder": plain(1000),
}
KINDS: dict[str, tuple[str, ...]] = {
    "synthetic": ("semantic", "drivable", "lane", "panoptic"),
    "bdd100k": ("drivable", "lane"),
    "image_folder": ("class",),
}


class Noise:
    """Images of noise with labels of every kind that is asked for, enough for the largest batch."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.classes = CLASSES[name]
        self.length = 1024 if name == "image_folder" else 64
        self.kinds = KINDS.get(name, ("semantic",))
        if options.get("panoptic"):
            self.kinds = (*self.kinds, "panoptic")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        labels: dict[str, Any] = {}
        segments: tuple[Segment, ...] = ()
        if "semantic" in self.kinds:
            # blocks, so that a crop holds regions of several classes
            coarse = rng.integers(0, len(self.classes), (HEIGHT // 16, WIDTH // 16), dtype=np.uint8)
            labels["semantic"] = coarse.repeat(16, axis=0).repeat(16, axis=1)
            labels["semantic"][:2] = IGNORE_INDEX
        for kind in {"drivable", "lane"} & set(self.kinds):
            labels[kind] = rng.integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8)
        if "panoptic" in self.kinds:
            labels["panoptic"] = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
            labels["panoptic"] = labels["panoptic"].repeat(16, axis=0).repeat(16, axis=1)
            drawn = rng.integers(0, len(self.classes), 12).tolist()
            segments = tuple(Segment(key, drawn[key - 1]) for key in range(1, 13))
        if "class" in self.kinds:
            labels["class"] = np.array(rng.integers(0, len(self.classes)), np.int64)
        return Sample(image, labels, segments, path=f"noise/{index}")


def stand_in(name: str) -> Callable[..., Noise]:
    """Return a callable with the signature of a reader that gives noise instead of files."""
    reader: Any = DATASETS[name]

    def build(**options: Any) -> Noise:
        return Noise(name, options)

    build.__annotations__ = typing.get_type_hints(reader.__init__)
    build.__signature__ = inspect.signature(reader)  # type: ignore[attr-defined]
    return build
