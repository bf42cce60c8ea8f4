"""Any data set in the COCO panoptic format; by default in the layout of COCO 2017 itself.

```
root/train2017  val2017/<image>.jpg                     118,287/5,000 images
root/annotations/panoptic_train2017.json  _val2017.json
root/annotations/panoptic_train2017/<image>.png         unpacked where the archive lies,
root/panoptic_train2017/<image>.png                     or beside the images
```
Other places are given as options in which `{split}` stands for the split. Classes are the
categories of the JSON file in its order, so that ids with gaps become 0..C-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from numpy.typing import NDArray

from rtseg.data.files import LabelReader, Limits, list_images, read_sample
from rtseg.data.layout import choose_kinds, first_folder, require_split
from rtseg.data.panoptic_png import load_panoptic_json
from rtseg.data.panoptic_table import ClassesOfSegments, PanopticTable, class_map, file_digest
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

Kind = Literal["panoptic", "semantic"]
_SPLITS = ("train", "val")
_PLACE = "{split}"
_ANNOTATIONS = "annotations/panoptic_{split}2017.json"
_MASKS = ("annotations/panoptic_{split}2017", "panoptic_{split}2017")
_IMAGES = "{split}2017"


class CocoPanoptic:
    """Images with `panoptic` labels and their segments, and `semantic` labels made from these.

    Args:
        root: Folder that the other places count from.
        split: `train` or `val` of COCO; any name where `annotations` is given.
        annotations: The JSON file, such as `panoptic_{split}.json`.
        masks: Folder of the pictures of ids. None: that of COCO; with `annotations`, the one that
            is named like the JSON file and lies beside it.
        images: Folder of the images. None: that of COCO.
        kinds: The label kinds to offer.

    Raises:
        ConfigError: The split is unknown, `annotations` has no `{split}`, no kind is chosen, or
            there are too many categories for `semantic` labels.
        DataError: The JSON file or a folder is missing, or the file is no panoptic JSON.
    """

    limits: Limits = Limits()
    marks: tuple[str, ...] = tuple(_ANNOTATIONS.replace(_PLACE, split) for split in _SPLITS)

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        annotations: str | None = None,
        masks: str | None = None,
        images: str | None = None,
        kinds: Sequence[Kind] = ("panoptic", "semantic"),
    ) -> None:
        if annotations is None:
            require_split(split, _SPLITS, reader="coco_panoptic")
        elif _PLACE not in annotations:
            raise ConfigError(
                f"annotations is {annotations!r}, one file for all splits",
                where="coco_panoptic",
                fix=f"write {_PLACE} where its name has the split, and choose that by split",
            )

        def place(name: str) -> Path:
            return Path(root) / name.replace(_PLACE, split)

        file = place(annotations or _ANNOTATIONS)
        described = load_panoptic_json(file, class_ids="order", problems="keep")
        self.classes: tuple[ClassInfo, ...] = tuple(described.classes.values())
        beside = file.with_suffix("")
        pictures = [place(masks)] if masks else [beside] if annotations else [*map(place, _MASKS)]
        self._pictures = _require_folder(pictures, what="pictures of ids", option="masks")
        folder = _require_folder([place(images or _IMAGES)], what="images", option="images")
        self._panoptic = PanopticTable(file, self._pictures, described, digest=file_digest(file))
        readers: dict[str, LabelReader] = {
            "panoptic": self._panoptic,
            "semantic": ClassesOfSegments(self._panoptic),
        }
        self.tables: Mapping[str, LabelReader] = choose_kinds(
            readers, kinds, reader="coco_panoptic"
        )
        self.kinds: tuple[str, ...] = tuple(self.tables)
        if "semantic" in self.kinds and len(self.classes) > IGNORE_INDEX:
            raise ConfigError(
                f"{file.name} has {len(self.classes)} categories, too many for semantic labels",
                where="coco_panoptic",
                fix="write kinds: [panoptic]",
            )
        self._pairs = [
            (folder / image, self._pictures / picture)
            for picture, image in described.images.items()
        ]
        self._pairs += [
            (folder / image, self._pictures / PurePosixPath(image).with_suffix(".png"))
            for image in described.unlabelled
        ]
        if not self._pairs:
            raise DataError("describes no image", where=str(file), fix="restore the file")

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int, /) -> Sample:
        image, picture = self._pairs[index]
        sample = read_sample((image, picture), {"panoptic": self._panoptic})  # read once
        ids, segments = sample.labels["panoptic"], self._panoptic.segments(picture)
        labels: dict[str, NDArray[Any]] = {}
        for kind in self.kinds:
            labels[kind] = ids if kind == "panoptic" else class_map(ids, segments)
        return replace(sample, labels=labels, segments=segments if "panoptic" in labels else ())

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return an image, and for each kind the same picture of ids."""
        image, picture = self._pairs[index]
        return (image, *(picture for _ in self.kinds))

    def strays(self) -> tuple[Path, ...]:
        """Return pictures that the JSON file does not describe."""
        known = {picture for _, picture in self._pairs}
        return tuple(path for path in list_images(self._pictures) if path not in known)


def _require_folder(candidates: Sequence[Path], *, what: str, option: str) -> Path:
    folder = first_folder(candidates)
    if folder is None:
        raise DataError(
            f"there is no such folder of {what}",
            where=str(candidates[0]),
            fix=f"unpack it there, or give its place as {option}",
        )
    return folder
