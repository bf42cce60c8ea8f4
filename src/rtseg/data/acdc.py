"""ACDC, street scenes in fog, at night, in rain and in snow, with the classes of Cityscapes.

1920x1080, 1,600 frames in train and 406 in val. In its published layout:

```
root/rgb_anon/<condition>/<split>/<sequence>/<frame>_rgb_anon.png
root/gt/<condition>/<split>/<sequence>/<frame>_gt_labelIds.png        34 ids
root/gt/<condition>/<split>/<sequence>/<frame>_gt_labelTrainIds.png   0..18
```
Folders named after the archives (`rgb_anon_trainvaltest/rgb_anon`, `gt_trainval/gt`) do as well.
The reference frames in good weather (`train_ref`, ...) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.cityscapes_labels import label_tables
from rtseg.data.files import LabelTable, Limits, read_sample
from rtseg.data.layout import first_folder, require_known, require_split
from rtseg.data.nested import NestedFrames
from rtseg.structures import ClassInfo, Sample

CONDITIONS = ("fog", "night", "rain", "snow")
_SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
_IMAGES = ("rgb_anon", "rgb_anon_trainvaltest/rgb_anon")
_MASKS = ("gt", "gt_trainval/gt")


class Acdc:
    """Frames of ACDC with `semantic` labels of 19 classes, and their condition as attribute.

    Args:
        root: Folder that holds `rgb_anon` and `gt`.
        split: Which frames, by split, condition, sequence and name; `trainval` is train followed
            by val. The labels of `test` are not published.
        condition: Only frames in `fog`, at `night`, in `rain` or in `snow`; None for all.
        masks: Which mask files to read, by the end of their name.

    Raises:
        ConfigError: The split, the condition or the kind of mask is unknown.
        DataError: There are no images of a condition, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES
    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()
    marks: tuple[str, ...] = (*_IMAGES, _MASKS[1])

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "test"],
        condition: Literal["fog", "night", "rain", "snow"] | None = None,
        masks: Literal["labelTrainIds", "labelIds"] = "labelTrainIds",
    ) -> None:
        require_split(split, _SPLITS, reader="acdc")
        tables = label_tables()
        require_known(masks, tables, what="masks", reader="acdc")
        if condition is not None:
            require_known(condition, CONDITIONS, what="condition", reader="acdc")
        self.tables: Mapping[str, LabelTable] = {"semantic": tables[masks]}
        images, labels = (
            first_folder([Path(root) / name for name in names]) or Path(root) / names[0]
            for names in (_IMAGES, _MASKS)
        )
        chosen = CONDITIONS if condition is None else (condition,)
        parts = [Path(name) / part for part in _SPLITS[split] for name in chosen]
        self._frames = NestedFrames(
            [(images / part, labels / part) for part in parts],
            image_end="_rgb_anon",
            mask_ends=[f"_gt_{masks}.png"],
            fix="set root to the folder that holds rgb_anon and gt, or choose a condition",
        )

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int, /) -> Sample:
        sample = read_sample(self.files(index), self.tables)
        return replace(sample, attributes=self.attributes(index))

    def attributes(self, index: int, /) -> Mapping[str, str]:
        """Return the `condition` of a frame."""
        return {"condition": self.files(index)[0].parts[-4]}

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image of a frame and its mask."""
        return self._frames.files(index)

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        return self._frames.strays()
