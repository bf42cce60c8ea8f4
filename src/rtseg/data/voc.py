"""PASCAL VOC 2012 with 21 classes (1,464/1,449 images), and its extension by SBD (10,582/1,449).

```
root/JPEGImages/<image>.jpg                     root: VOC2012, or the folder above VOCdevkit/VOC2012
root/SegmentationClass/<image>.png              palette files: 0..20, 255 = border
root/ImageSets/Segmentation/train.txt  val.txt  one name per line
root/SegmentationClassAug/<image>.png           with `sbd`: gray files of all 12,031 images
```
decision: the extension is read from the widely used folder of converted masks, not from the
original .mat files; its training set is every mask there but those of VOC's val list, which are the
10,582 images of the list known as train_aug.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rtseg.data.files import LabelTable, Limits, list_images, read_sample
from rtseg.data.layout import require_split
from rtseg.data.palette import spread_color
from rtseg.errors import DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip
_SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
_NESTED = (Path(), Path("VOC2012"), Path("VOCdevkit/VOC2012"))
_EXTENDED = "SegmentationClassAug"


class Voc:
    """Images of PASCAL VOC 2012 with `semantic` labels of 21 classes; borders are `IGNORE_INDEX`.

    Args:
        root: Folder `VOC2012`, or the one that holds it or `VOCdevkit`.
        split: Which images, in the order of the lists; `trainval` is train followed by val. The
            labels of `test` are not published.
        sbd: Train on the extended set; val stays that of VOC.

    Raises:
        ConfigError: The split is unknown.
        DataError: A list or the extended masks are missing or empty, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = tuple(
        ClassInfo(name, spread_color(index), thing=index > 0) for index, name in enumerate(NAMES)
    )
    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "test"],
        sbd: bool = False,
    ) -> None:
        require_split(split, _SPLITS, reader="voc")
        top = Path(root)
        folder = next((top / n for n in _NESTED if (top / n / "ImageSets").is_dir()), top)
        self._pairs: list[tuple[Path, Path]] = []
        for part in _SPLITS[split]:
            extended = sbd and part == "train"
            stems = _extended_train(folder) if extended else _read_list(folder, part)
            masks = folder / (_EXTENDED if extended else "SegmentationClass")
            images = folder / "JPEGImages"
            self._pairs += [(images / f"{stem}.jpg", masks / f"{stem}.png") for stem in stems]
        values = {index: index for index in [*range(len(NAMES)), IGNORE_INDEX]}
        remedy = "use masks whose values (of palette files: indices) are 0..20 and 255"
        self.tables: Mapping[str, LabelTable] = {"semantic": LabelTable(values, remedy=remedy)}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, Path]:
        """Return an image and its mask."""
        return self._pairs[index]

    def strays(self) -> tuple[Path, ...]:
        """Return nothing: most images of the set belong to other tasks."""
        return ()


def _read_list(root: Path, part: str) -> list[str]:
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    try:
        stems = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(
            f"cannot read the list of images ({error.strerror})",
            where=str(path),
            fix="set root to the folder VOC2012 or the one that holds VOCdevkit",
        ) from None
    if not stems:
        raise DataError("names no image", where=str(path), fix="restore the published list")
    return stems


def _extended_train(root: Path) -> list[str]:
    masks = list_images(root / _EXTENDED)
    if not masks:
        raise DataError(
            "holds no masks",
            where=str(root / _EXTENDED),
            fix="put the converted masks of VOC and SBD there, or leave sbd out",
        )
    scored = set(_read_list(root, "val"))
    return [path.stem for path in masks if path.stem not in scored]
