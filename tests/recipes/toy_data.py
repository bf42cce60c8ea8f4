"""Stand-ins for the readers: noise, with the options, classes and kinds of the real one."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from rtseg.data import DATASETS
from rtseg.data.ade20k_classes import ADE20K_CLASSES
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.transforms import Preprocess
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample, Segment, SemanticOutput
from rtseg.training.teachers import Teacher

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
        self.kinds = tuple(options.get("kinds") or KINDS.get(name, ("semantic",)))
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


class Stages(nn.Module):
    """A network with the sizes and widths of what BSDNet reads of a SegFormer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage3, self.stage4 = nn.Conv2d(3, 320, 1, 16), nn.Conv2d(320, 512, 1, 2)
        self.head = nn.Conv2d(3, num_classes, 1, 4)

    def forward(self, images: Tensor) -> SemanticOutput:
        self.stage4(self.stage3(images))
        return SemanticOutput(self.head(images))


def teacher(*, path: str, download: bool = False, names: str = "compare") -> Teacher:
    """Return a stand-in for a SegFormer with the classes of the data that its path ends with."""
    classes = CLASSES[path.rsplit("_", 1)[1]]
    assert not download
    assert (names == "trust") == ("ade20k" in path)
    spelt = tuple(item.name for item in classes)
    network = Stages(len(classes)).eval().requires_grad_(requires_grad=False)
    return Teacher(network, spelt, Preprocess(), path, "0" * 64)
