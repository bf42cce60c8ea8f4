"""Cityscapes with the 19 scored classes, in its published layout (2048x1024, 2,975/500 frames).

```
root/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png
root/gtFine/<split>/<city>/<frame>_gtFine_labelIds.png        as downloaded: 34 ids
root/gtFine/<split>/<city>/<frame>_gtFine_labelTrainIds.png   made by the authors' scripts: 0..18
root/gtFine/<split>/<city>/<frame>_gtFine_instanceIds.png     as downloaded: panoptic segments
```
An instance id below 1000 is a label id, any other is a label id times 1000 plus a count. A thing
with an id below 1000 is a group that was not told apart, so it is a crowd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.files import (
    FileFaultError,
    LabelReader,
    LabelTable,
    Limits,
    list_images,
    read_mask,
    read_sample,
)
from rtseg.data.layout import require_split
from rtseg.errors import ConfigError, DataError, nearest
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample, Segment

# Label ids of the 19 scored classes in train-id order. Source: Cityscapes label definition.
_SCORED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_IDS = 34  # ids 0..33 occur in files; the license plate (-1) is never painted
_GROUP = 1000  # instance ids below are label ids
_IMAGE_END = "_leftImg8bit"
_SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}


class Cityscapes:
    """Frames of Cityscapes with labels of 19 classes; all others are `IGNORE_INDEX`, or void.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine`.
        split: Which frames, by city and name; `trainval` is train followed by val. The labels of
            `test` are hidden (its published masks are void), so it is refused.
        masks: Which mask files to read for the `semantic` labels, by the end of their name.
        panoptic: Also read `panoptic` labels with their segments.

    Raises:
        ConfigError: The split or the kind of mask is unknown.
        DataError: There are no images, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES
    limits: Limits = Limits()

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "test"],
        masks: Literal["labelIds", "labelTrainIds"] = "labelIds",
        panoptic: bool = False,
    ) -> None:
        require_split(split, _SPLITS, reader="cityscapes")
        tables = _tables()
        if masks not in tables:
            raise ConfigError(
                f"masks {masks!r} is unknown",
                where="cityscapes",
                fix=f"did you mean {nearest(masks, tables, count=1)[0]!r}?",
            )
        folder = Path(root)
        self.tables: Mapping[str, LabelReader] = {"semantic": tables[masks]}
        self._mask_ends = [f"_gtFine_{masks}"]
        if panoptic:
            self.tables = {**self.tables, "panoptic": InstanceIds()}
            self._mask_ends.append("_gtFine_instanceIds")
        self.kinds: tuple[str, ...] = tuple(self.tables)
        self._files: list[tuple[Path, ...]] = []
        self._mask_folders: set[Path] = set()
        for part in _SPLITS[split]:
            self._add_split(folder, part)

    def _add_split(self, root: Path, split: str) -> None:
        images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
        cities = {path.name for top in (images, masks) if top.is_dir() for path in top.iterdir()}
        found = len(self._files)
        for city in sorted(cities):
            self._mask_folders.add(masks / city)
            for image in list_images(images / city):
                if image.stem.endswith(_IMAGE_END):
                    frame = image.stem.removesuffix(_IMAGE_END)
                    ends = [masks / city / f"{frame}{end}.png" for end in self._mask_ends]
                    self._files.append((image, *ends))
        if len(self._files) == found:
            raise DataError(
                f"holds no <city>/<frame>{_IMAGE_END}.png",
                where=str(images),
                fix="set root to the folder that holds leftImg8bit and gtFine",
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> Sample:
        sample = read_sample(self.files(index), self.tables)
        if "panoptic" not in sample.labels:
            return sample
        return replace(sample, segments=segments_of(sample.labels["panoptic"]))

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image and the masks of a frame."""
        return self._files[index]

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        wanted = {mask for _, *masks in self._files for mask in masks}
        found = (path for folder in sorted(self._mask_folders) for path in list_images(folder))
        ends = tuple(self._mask_ends)
        return tuple(path for path in found if path.stem.endswith(ends) and path not in wanted)


@dataclass(frozen=True)
class InstanceIds:
    """Read `_instanceIds` files; their numbers are the segment ids, what is not scored is 0."""

    def read(self, path: Path) -> NDArray[np.int32]:
        """Return segment ids, int32 (H, W).

        Raises:
            FileFaultError: The file cannot be read, or an id belongs to no label.
        """
        ids = read_mask(path).astype(np.int32)
        labels = _label_ids(ids)
        wrong = ids[(labels >= _NUM_IDS) & (ids != IGNORE_INDEX)]
        if wrong.size:
            raise FileFaultError(
                f"mask holds the instance id {wrong[0]}, which belongs to no label",
                kind="value_outside_map",
                where=str(path),
                fix="use the instanceIds files as they are published",
            )
        ids[~np.isin(labels, _SCORED_IDS)] = 0
        return ids


def segments_of(ids: NDArray[np.int32]) -> tuple[Segment, ...]:
    """Return the segments of a map (H, W) of scored instance ids."""
    segments = []
    for number in np.unique(ids[ids > 0]).tolist():
        class_id = _SCORED_IDS.index(_label_ids(number))
        crowd = CITYSCAPES_CLASSES[class_id].thing and number < _GROUP
        segments.append(Segment(number, class_id, crowd=crowd))
    return tuple(segments)


def _label_ids(ids: Any) -> Any:
    """Return the label id of an instance id, or of many."""
    return np.where(np.asarray(ids) < _GROUP, ids, np.asarray(ids) // _GROUP)


def _tables() -> dict[str, LabelTable]:
    """Return how to read each kind of mask, by the end of its name."""
    ids = dict.fromkeys([*range(_NUM_IDS), IGNORE_INDEX], IGNORE_INDEX)
    ids |= {raw: train_id for train_id, raw in enumerate(_SCORED_IDS)}
    train_ids = {index: index for index in [*range(len(_SCORED_IDS)), IGNORE_INDEX]}
    remedy = "use the masks that belong to `masks` (labelIds or labelTrainIds)"
    return {
        "labelIds": LabelTable(ids, remedy=remedy),
        "labelTrainIds": LabelTable(train_ids, remedy=remedy),
    }
