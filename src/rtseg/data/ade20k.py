"""ADE20K scene parsing with 150 classes, in its published layout (20,210/2,000 images).

```
root/images/training  validation/<image>.jpg          root: ADEChallengeData2016, or its parent
root/annotations/training  validation/<image>.png     0 = other, 1..150 = classes
root/ade20k_panoptic_train  _val/<image>.png          with `panoptic`: RGB pictures of segment ids
root/ade20k_panoptic_train.json  _val.json            and the segments, by the usual conversion
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtseg.data.ade20k_classes import ADE20K_CLASSES
from rtseg.data.files import (
    FileFaultError,
    LabelReader,
    LabelTable,
    Limits,
    read_mask,
    read_sample,
)
from rtseg.data.layout import Frames, require_images, require_split
from rtseg.data.panoptic_png import ids_from_rgb, read_panoptic_json
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample, Segment

_SPLITS = {"train": "training", "val": "validation"}
_TOP = "ADEChallengeData2016"


class Ade20k:
    """Images of ADE20K with labels of 150 classes; what is none of them is `IGNORE_INDEX`.

    Args:
        root: Folder `ADEChallengeData2016` or the one above it.
        split: `train` or `val`; the labels of `test` are not published.
        panoptic: Also read `panoptic` labels with their segments, from the COCO-style conversion.

    Raises:
        ConfigError: The split is unknown.
        DataError: There are no images, the split is `test`, or the file of segments is missing or
            broken.
    """

    classes: tuple[ClassInfo, ...] = ADE20K_CLASSES
    limits: Limits = Limits()

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "test"],
        panoptic: bool = False,
    ) -> None:
        require_split(split, _SPLITS, reader="ade20k")
        top = Path(root)
        top = top / _TOP if (top / _TOP).is_dir() else top
        part = _SPLITS[split]
        fix = "set root to the folder that holds images and annotations"
        images = require_images(top / "images" / part, fix=fix)
        values = {raw: raw - 1 for raw in range(1, len(ADE20K_CLASSES) + 1)}
        remedy = "use the masks of the scene parsing benchmark, with values 0..150"
        self.tables: Mapping[str, LabelReader] = {
            "semantic": LabelTable({0: IGNORE_INDEX, **values}, remedy=remedy)
        }
        folders = {"semantic": top / "annotations" / part}
        if panoptic:
            name = f"ade20k_panoptic_{split}"
            folders["panoptic"] = top / name
            self._segments = SegmentTable(read_panoptic_json(top / f"{name}.json"))
            self.tables = {**self.tables, "panoptic": self._segments}
        self.kinds: tuple[str, ...] = tuple(self.tables)
        self._frames = Frames(images, folders)

    def __len__(self) -> int:
        return len(self._frames.images)

    def __getitem__(self, index: int, /) -> Sample:
        files = self.files(index)
        sample = read_sample(files, self.tables)
        if "panoptic" not in sample.labels:
            return sample
        shown = self._segments.shown(sample.labels["panoptic"], files[-1].name)
        return replace(sample, segments=shown)

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return an image and its masks."""
        return self._frames.files(index)

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        return self._frames.strays()


@dataclass(frozen=True)
class SegmentTable:
    """Read pictures of segment ids. segments: those of each picture, by its file name."""

    segments: Mapping[str, tuple[Segment, ...]]

    def read(self, path: Path) -> NDArray[np.int32]:
        """Return segment ids, int32 (H, W), 0 = void.

        Raises:
            FileFaultError: The file is no such picture, or shows a segment that is not listed.
        """
        rgb = np.asarray(read_mask(path, color=True), dtype=np.uint8)
        ids = ids_from_rgb(rgb)
        listed = [segment.id for segment in self.segments.get(path.name, ())]
        unknown = np.setdiff1d(ids, [0, *listed])
        if unknown.size:
            raise FileFaultError(
                f"shows the segment {unknown[0]}, which the file of segments does not list",
                kind="value_outside_map",
                where=str(path),
                fix="use the pictures and the JSON file of one conversion",
            )
        return ids

    def shown(self, ids: NDArray[np.int32], name: str) -> tuple[Segment, ...]:
        """Return the listed segments of a picture that have a pixel.

        decision: the usual conversion paints things over stuff and still lists what they cover.
        """
        visible = set(np.unique(ids).tolist())
        return tuple(item for item in self.segments.get(name, ()) if item.id in visible)
