"""Cityscapes with the 19 scored classes, in its published layout (2048x1024, 2,975/500 frames).

```
root/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png
root/gtFine/<split>/<city>/<frame>_gtFine_labelIds.png        as downloaded: 34 ids
root/gtFine/<split>/<city>/<frame>_gtFine_labelTrainIds.png   made by the authors' scripts: 0..18
root/gtFine/<split>/<city>/<frame>_gtFine_instanceIds.png     as downloaded: panoptic segments
root/gtFine/<split>/<city>/<frame>_gtFine_polygons.json       as downloaded: any of these, drawn
root/gtCoarse/<split>/<city>/<frame>_gtCoarse_...             the same, with less detail
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.cityscapes_labels import InstanceIds, label_tables, segments_of
from rtseg.data.cityscapes_polygons import InstancePolygons, SemanticPolygons
from rtseg.data.files import LabelReader, Limits, read_sample
from rtseg.data.layout import require_known, require_split
from rtseg.data.nested import NestedFrames
from rtseg.errors import ConfigError
from rtseg.structures import ClassInfo, Sample

_SPLITS = {
    "train": ("train",),
    "val": ("val",),
    "trainval": ("train", "val"),
    "train_extra": ("train_extra",),
}
_FOLDERS = {"fine": "gtFine", "coarse": "gtCoarse"}


class Cityscapes:
    """Frames of Cityscapes with labels of 19 classes; all others are `IGNORE_INDEX`, or void.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine` or `gtCoarse`.
        split: Which frames, by city and name; `trainval` is train followed by val, `train_extra`
            are the 19,998 frames with coarse labels only. The labels of `test` are hidden (its
            published masks are void), so it is refused.
        masks: Which files to read, by the end of their name; with `polygons` the `panoptic` labels
            are drawn too, with the others they come from `instanceIds`.
        panoptic: Also read `panoptic` labels with their segments.
        annotations: Labels of the folder `gtFine` or of `gtCoarse`.

    Raises:
        ConfigError: The split, the kind of mask or the annotations are unknown, or the split has
            coarse labels only.
        DataError: There are no images, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES
    limits: Limits = Limits()
    marks: tuple[str, ...] = ("leftImg8bit", *_FOLDERS.values())

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "train_extra", "test"],
        masks: Literal["labelIds", "labelTrainIds", "polygons"] = "labelIds",
        panoptic: bool = False,
        annotations: Literal["fine", "coarse"] = "fine",
    ) -> None:
        require_split(split, _SPLITS, reader="cityscapes")
        require_known(annotations, _FOLDERS, what="annotations", reader="cityscapes")
        if annotations == "fine" and split == "train_extra":
            raise ConfigError(
                "split 'train_extra' has coarse labels only",
                where="cityscapes",
                fix="set annotations: coarse",
            )
        labels = _FOLDERS[annotations]
        self.tables, ends = _readers(masks, panoptic=panoptic)
        self.kinds: tuple[str, ...] = tuple(self.tables)
        folder = Path(root)
        self._frames = NestedFrames(
            [(folder / "leftImg8bit" / part, folder / labels / part) for part in _SPLITS[split]],
            image_end="_leftImg8bit",
            mask_ends=[f"_{labels}_{end}" for end in ends],
            fix=f"set root to the folder that holds leftImg8bit and {labels}",
        )

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int, /) -> Sample:
        sample = read_sample(self.files(index), self.tables)
        if "panoptic" not in sample.labels:
            return sample
        return replace(sample, segments=segments_of(sample.labels["panoptic"]))

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image of a frame and the file of each label kind."""
        return self._frames.files(index)

    def strays(self) -> tuple[Path, ...]:
        """Return label files whose image is not there."""
        return self._frames.strays()


def _readers(masks: str, *, panoptic: bool) -> tuple[Mapping[str, LabelReader], list[str]]:
    """Return how to read each label kind, and how the names of its files end."""
    tables = label_tables()
    require_known(masks, [*tables, "polygons"], what="masks", reader="cityscapes")
    readers: dict[str, LabelReader] = {}
    if masks == "polygons":
        readers["semantic"] = SemanticPolygons(tables["labelIds"])
        if panoptic:
            readers["panoptic"] = InstancePolygons()
        return readers, ["polygons.json"] * len(readers)
    readers["semantic"] = tables[masks]
    if not panoptic:
        return readers, [f"{masks}.png"]
    return {**readers, "panoptic": InstanceIds()}, [f"{masks}.png", "instanceIds.png"]
