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
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from rtseg.data.ade20k_classes import ADE20K_CLASSES
from rtseg.data.files import LabelReader, LabelTable, Limits, read_sample
from rtseg.data.layout import Frames, require_images, require_split
from rtseg.data.panoptic_png import load_panoptic_json
from rtseg.data.panoptic_table import PanopticTable, file_digest
from rtseg.errors import DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

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
        DataError: There are no images, the split is `test`, or the segments or their pictures are
            missing, broken or of other classes.
    """

    classes: tuple[ClassInfo, ...] = ADE20K_CLASSES
    limits: Limits = Limits()
    marks: tuple[str, ...] = (
        "images/validation",
        "annotations/training",
        "annotations/validation",
        "ade20k_panoptic_train.json",
        "ade20k_panoptic_val.json",
    )

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
            self._segments = _load_segments(top / name)
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
        visible = set(np.unique(sample.labels["panoptic"]).tolist())
        listed = self._segments.segments(files[-1])
        return replace(sample, segments=tuple(item for item in listed if item.id in visible))

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return an image and its masks."""
        return self._frames.files(index)

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        return self._frames.strays()


def _load_segments(folder: Path) -> PanopticTable:
    """Read the JSON file beside a folder of pictures of ids.

    decision: its areas are not compared and hidden segments are left out, since the usual
    conversion paints things over stuff and still lists what they cover, with its whole area.
    """
    file = folder.with_name(f"{folder.name}.json")
    described = load_panoptic_json(file, problems="keep")
    things = {number: item.thing for number, item in described.classes.items()}
    if things != {number: item.thing for number, item in enumerate(ADE20K_CLASSES)}:
        raise DataError(
            f"its {len(things)} categories are not the 150 classes, numbered 0 to 149",
            where=str(file),
            fix="use the conversion made for the scene parsing benchmark",
        )
    if not folder.is_dir():
        fix = "unpack the pictures of segment ids there, or leave panoptic out"
        raise DataError("there is no such folder", where=str(folder), fix=fix)
    return PanopticTable(file, folder, described, covered="allow", digest=file_digest(file))
