"""CamVid with 11 classes, in the layout published for segmentation (480x360, 367/101/233 frames).

```
root/train.txt  val.txt  test.txt        one line per frame: image mask
root/train      val      test            images
root/trainannot valannot testannot       masks: 8-bit grey or palette, 11 = void
```
Lines of the first release start with `/SegNet/CamVid/` and name `.png` images; the files on disk
may lie and end differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from rtseg.data.files import LabelTable, Limits, list_images, read_sample
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

# Names, order and colours as in the published class list; void (11) is not a class.
CLASSES = (
    ClassInfo("Sky", (128, 128, 128)),
    ClassInfo("Building", (128, 0, 0)),
    ClassInfo("Pole", (192, 192, 128)),
    ClassInfo("Road", (128, 64, 128)),
    ClassInfo("Pavement", (60, 40, 222)),
    ClassInfo("Tree", (128, 128, 0)),
    ClassInfo("SignSymbol", (192, 128, 128)),
    ClassInfo("Fence", (64, 64, 128)),
    ClassInfo("Car", (64, 0, 128), thing=True),
    ClassInfo("Pedestrian", (64, 64, 0), thing=True),
    ClassInfo("Bicyclist", (0, 128, 192), thing=True),
)
_VOID = 11
_SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}


class CamVid:
    """Frames of CamVid with `semantic` labels of 11 classes; void becomes `IGNORE_INDEX`.

    Args:
        root: Folder with the lists and the image and mask folders.
        split: Which frames, in the order of the lists; `trainval` is train followed by val.

    Raises:
        ConfigError: The split is unknown.
        DataError: A list is missing, empty or not made of pairs.
    """

    classes: tuple[ClassInfo, ...] = CLASSES
    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()

    def __init__(
        self, root: str | Path, *, split: Literal["train", "val", "test", "trainval"]
    ) -> None:
        if split not in _SPLITS:
            raise ConfigError(
                f"split {split!r} is unknown",
                where="camvid",
                fix=f"use one of {', '.join(_SPLITS)}",
            )
        folder = Path(root)
        on_disk: dict[str, dict[str, Path]] = {}
        pairs = [pair for name in _SPLITS[split] for pair in _read_list(folder / f"{name}.txt")]
        locate = partial(_locate, folder, on_disk)
        self._pairs = [(locate(image), locate(mask)) for image, mask in pairs]
        values = {index: index for index in range(len(CLASSES))}
        self.tables: Mapping[str, LabelTable] = {
            "semantic": LabelTable(
                {**values, _VOID: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX},
                remedy="use the masks with 11 classes, where 0..10 are classes and 11 is void",
            )
        }

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, Path]:
        """Return the image and the mask of a frame."""
        return self._pairs[index]

    def strays(self) -> tuple[Path, ...]:
        """Return nothing: the lists may name a part of the files on purpose."""
        return ()


def _read_list(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read the list of frames ({error.strerror})",
            where=str(path),
            fix="set root to the folder that holds train.txt, val.txt and test.txt",
        ) from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        match line.split():
            case []:
                continue
            case [image, mask]:
                pairs.append((image, mask))
            case _:
                raise DataError(
                    f"line {number} is not `image mask`: {line[:80]!r}",
                    where=str(path),
                    fix="write two names without spaces per line",
                )
    if not pairs:
        raise DataError("names no frame", where=str(path), fix="restore the published list")
    return pairs


def _locate(root: Path, on_disk: dict[str, dict[str, Path]], listed: str) -> Path:
    """Find a listed file below root by its folder and stem, for lists that do not fit the disk."""
    name = PurePosixPath(listed)
    if name.parent.name not in on_disk:
        found = list_images(root / name.parent.name)
        by_stem = {path.stem: path for path in found}
        on_disk[name.parent.name] = by_stem | {path.name: path for path in found}
    known = on_disk[name.parent.name]
    return known.get(name.name) or known.get(name.stem) or root / name.parent.name / name.name
