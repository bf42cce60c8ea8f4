"""PASCAL VOC 2012 with 21 classes (1,464/1,449 images), and its extension by SBD (10,582/1,449).

```
root/JPEGImages/<image>.jpg                     root: VOC2012, or the folder above VOCdevkit/VOC2012
root/SegmentationClass/<image>.png              palette files: 0..20, 255 = border
root/ImageSets/Segmentation/train.txt  val.txt  one name per line
root/SegmentationClassAug/<image>.png           with `sbd`: gray files of all 12,031 images,
sbd_root/                                       or instead SBD as it is downloaded (see `sbd.py`)
```
Both ways give the training set known as train_aug, sorted by name: the train images of VOC and all
images of SBD, but those of VOC's val list. The converted masks are all that lie in their folder;
from SBD's own files, an image that VOC has labelled, too, gets VOC's mask with its borders, as in
the converted ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rtseg.data.files import LabelReader, LabelTable, Limits, list_images, read_sample
from rtseg.data.layout import require_split
from rtseg.data.palette import spread_color
from rtseg.data.sbd import MatOrPicture, sbd_folder, sbd_stems
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip
_SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
_NESTED = (Path(), Path("VOC2012"), Path("VOCdevkit/VOC2012"))
_EXTENDED = "SegmentationClassAug"
Pair = tuple[Path, Path]
"""An image and its mask."""


class Voc:
    """Images of PASCAL VOC 2012 with `semantic` labels of 21 classes; borders are `IGNORE_INDEX`.

    Args:
        root: Folder `VOC2012`, or the one that holds it or `VOCdevkit`.
        split: Which images, in the order of the lists; `trainval` is train followed by val. The
            labels of `test` are not published.
        sbd: Train on the extended set; val stays that of VOC.
        sbd_root: Folder `benchmark_RELEASE` of SBD, or one above or below it, to take the extension
            from; None: from the converted masks in `root`.

    Raises:
        ConfigError: The split is unknown, or `sbd_root` is given without `sbd`.
        DataError: A list or the extended masks are missing or empty, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = tuple(
        ClassInfo(name, spread_color(index), thing=index > 0) for index, name in enumerate(NAMES)
    )
    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()
    marks: tuple[str, ...] = ("ImageSets/Segmentation", "SegmentationClass", "SegmentationClassAug")

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "test"],
        sbd: bool = False,
        sbd_root: str | Path | None = None,
    ) -> None:
        require_split(split, _SPLITS, reader="voc")
        if sbd_root is not None and not sbd:
            raise ConfigError(
                "sbd_root is given, but sbd is not", where="voc", fix="add sbd: true or remove it"
            )
        top = Path(root)
        folder = next((top / n for n in _NESTED if (top / n / "ImageSets").is_dir()), top)
        self._pairs: list[Pair] = []
        for part in _SPLITS[split]:
            if not sbd or part != "train":
                self._pairs += _listed(folder, part)
            elif sbd_root is None:
                self._pairs += _converted(folder)
            else:
                self._pairs += _with_sbd(folder, sbd_folder(sbd_root))
        values = {index: index for index in [*range(len(NAMES)), IGNORE_INDEX]}
        remedy = "use masks whose values (of palette files: indices) are 0..20 and 255"
        table = LabelTable(values, remedy=remedy)
        self.tables: Mapping[str, LabelReader] = {"semantic": MatOrPicture(table)}

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


def _listed(root: Path, part: str) -> list[Pair]:
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    return [(images / f"{stem}.jpg", masks / f"{stem}.png") for stem in _read_list(root, part)]


def _converted(root: Path) -> list[Pair]:
    """Return images and converted masks, but for those that are scored."""
    masks = list_images(root / _EXTENDED)
    if not masks:
        raise DataError(
            "holds no masks",
            where=str(root / _EXTENDED),
            fix="put the converted masks of VOC and SBD there, set sbd_root, or leave sbd out",
        )
    scored = set(_read_list(root, "val"))
    images = root / "JPEGImages"
    return [(images / f"{path.stem}.jpg", path) for path in masks if path.stem not in scored]


def _with_sbd(root: Path, sbd: Path) -> list[Pair]:
    """Return the train pairs of VOC and those that only SBD has, but for those that are scored."""
    pairs = {image.stem: (image, mask) for image, mask in _listed(root, "train")}
    for stem in sbd_stems(sbd) - pairs.keys():
        pairs[stem] = (sbd / "img" / f"{stem}.jpg", sbd / "cls" / f"{stem}.mat")
    for stem in _read_list(root, "val"):
        pairs.pop(stem, None)
    return [pairs[stem] for stem in sorted(pairs)]
