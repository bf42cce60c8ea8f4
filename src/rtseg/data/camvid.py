"""CamVid as first published (960x720, colored masks), or in the release of 11 classes (480x360).

701 frames, usually 367/101/233. Three layouts:

```
root/train.txt  val.txt  test.txt            one line per frame: image mask
root/train      val      test                images
root/trainannot valannot testannot           masks: 8-bit gray or palette, 0..10, 11 = void

root/train      val      test                <frame>.png
root/train_labels  val_labels  test_labels   <frame>_L.png, in the colors of the 32 labels

root/701_StillsRaw_full                      <frame>.png
root/LabeledApproved_full                    <frame>_L.png, in the colors of the 32 labels
root/train.txt  val.txt  test.txt            one frame per line; the lists of the first layout do
```
Lines of the first release start with `/SegNet/CamVid/` and name `.png` images; the files on disk
may lie and end differently. The original has no splits of its own: the lists must be added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from rtseg.data.camvid_classes import (
    CLASSES_11,
    CLASSES_31,
    DRIVABLE,
    LANE,
    MERGED,
    VOID_COLOR,
)
from rtseg.data.files import LabelTable, Limits, list_images, pack_color, read_sample
from rtseg.data.layout import choose_kinds, require_images
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

_VOID = 11
_SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
_ORIGINAL = ("701_StillsRaw_full", "LabeledApproved_full")
_LABELS_END = "_labels"
_MASK_END = "_L"
_CLASSES = {11: CLASSES_11, 32: CLASSES_31}
Pairs = list[tuple[Path, Path]]


class CamVid:
    """Frames of CamVid with `semantic`, `drivable` and `lane` labels; void is `IGNORE_INDEX`.

    Args:
        root: Folder of one of the three layouts above.
        split: Which frames, in the order of the lists or by name; `trainval` is train followed by
            val.
        classes: 11 classes, or (of colored masks only) the 32 labels; of these Void is no class,
            so that 31 remain.
        kinds: Labels to read. `drivable` is Road and LaneMkgsDriv, `lane` LaneMkgsDriv and
            LaneMkgsNonDriv. In masks of 11 classes both stand under Road: there `drivable` is Road,
            and `lane` is not offered.

    Raises:
        ConfigError: The split or a label kind is unknown, or the masks do not tell the classes or
            the kind apart.
        DataError: A list is missing, empty or not made as above, or a folder holds no images.
    """

    limits: Limits = Limits()
    marks: tuple[str, ...] = (*_ORIGINAL, "trainannot")

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "test", "trainval"],
        classes: Literal[11, 32] = 11,
        kinds: Sequence[Literal["semantic", "drivable", "lane"]] = ("semantic",),
    ) -> None:
        if split not in _SPLITS:
            raise ConfigError(
                f"split {split!r} is unknown",
                where="camvid",
                fix=f"use one of {', '.join(_SPLITS)}",
            )
        if classes not in _CLASSES:
            raise ConfigError(f"classes is {classes}", where="camvid", fix="use 11 or 32")
        found = _find(Path(root), _SPLITS[split])
        offered = _color_tables(classes) if found.colored else _index_tables()
        if not found.colored and (classes == 32 or "lane" in kinds):
            wish = "32 classes" if classes == 32 else "lane lines"
            raise ConfigError(
                f"the masks of 11 classes do not tell {wish} apart",
                where=str(root),
                fix="use the original release with colored masks, or leave that option out",
            )
        self._found = found
        self.classes: tuple[ClassInfo, ...] = _CLASSES[classes]
        self.tables: Mapping[str, LabelTable] = choose_kinds(offered, kinds, reader="camvid")
        self.kinds: tuple[str, ...] = tuple(self.tables)

    def __len__(self) -> int:
        return len(self._found.pairs)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image of a frame and, for each label kind, its mask."""
        image, mask = self._found.pairs[index]
        return (image, *(mask for _ in self.kinds))

    def strays(self) -> tuple[Path, ...]:
        """Return masks without an image; lists may name a part of the files on purpose."""
        wanted = {mask for _, mask in self._found.pairs}
        found = (path for folder in self._found.mask_folders for path in list_images(folder))
        return tuple(path for path in found if path not in wanted)


# ---------------------------------------------------------------- what raw values mean
def _index_tables() -> dict[str, LabelTable]:
    """Return how to read masks of 11 classes, by label kind."""
    remedy = "use the masks with 11 classes, where 0..10 are classes and 11 is void"
    void = {_VOID: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX}
    semantic = {index: index for index in range(len(CLASSES_11))}
    drivable = {index: int(info.name in DRIVABLE) for index, info in enumerate(CLASSES_11)}
    return {
        "semantic": LabelTable({**semantic, **void}, remedy=remedy),
        "drivable": LabelTable({**drivable, **void}, remedy=remedy),
    }


def _color_tables(classes: int) -> dict[str, LabelTable]:
    """Return how to read masks in the colors of the 32 labels, by label kind."""
    ids = range(len(CLASSES_31)) if classes == 32 else MERGED
    names = [info.name for info in CLASSES_31]
    meanings = {
        "semantic": list(ids),
        "drivable": [int(name in DRIVABLE) for name in names],
        "lane": [int(name in LANE) for name in names],
    }
    colors = [pack_color(*info.color) for info in CLASSES_31]
    remedy = "use the masks as they are published; a resized or converted mask has mixed colors"
    return {
        kind: LabelTable(
            {pack_color(*VOID_COLOR): IGNORE_INDEX, **dict(zip(colors, labels, strict=True))},
            color=True,
            remedy=remedy,
        )
        for kind, labels in meanings.items()
    }


# ---------------------------------------------------------------- where the files are
@dataclass(frozen=True)
class _Found:
    """Images with their masks, whether these are colored, and folders that hold no other masks."""

    pairs: Pairs
    colored: bool
    mask_folders: tuple[Path, ...] = ()


def _find(root: Path, parts: Sequence[str]) -> _Found:
    stills, masks = (root / name for name in _ORIGINAL)
    if stills.is_dir():
        lists = [_read_list(root / f"{part}.txt", columns=(1, 2)) for part in parts]
        stems = [PurePosixPath(line[0]).stem for lines in lists for line in lines]
        on_disk = {path.stem: path for path in list_images(stills)}
        images = [on_disk.get(stem, stills / f"{stem}.png") for stem in stems]
        return _Found([_with_mask(image, masks) for image in images], colored=True)
    if any((root / f"{part}{_LABELS_END}").is_dir() for part in ("train", "val", "test")):
        pairs: Pairs = []
        for part in parts:
            fix = f"set root to the folder that holds {part} and {part}{_LABELS_END}"
            folder = root / f"{part}{_LABELS_END}"
            pairs += [_with_mask(path, folder) for path in require_images(root / part, fix=fix)]
        folders = tuple(root / f"{part}{_LABELS_END}" for part in parts)
        return _Found(pairs, colored=True, mask_folders=folders)
    lines = [line for part in parts for line in _read_list(root / f"{part}.txt", columns=(2,))]
    locate = partial(_locate, root, {})
    return _Found([(locate(image), locate(mask)) for image, mask in lines], colored=False)


def _with_mask(image: Path, folder: Path) -> tuple[Path, Path]:
    return image, folder / f"{image.stem}{_MASK_END}.png"


def _read_list(path: Path, *, columns: Sequence[int]) -> list[list[str]]:
    """Return the names on each line of a list; `columns` says how many there may be."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read the list of frames ({error.strerror})",
            where=str(path),
            fix="set root to the folder that holds train.txt, val.txt and test.txt; the original "
            "release has none, but the lists of the release with 11 classes fit it",
        ) from None
    found = []
    for number, line in enumerate(lines, start=1):
        names = line.split()
        if names and len(names) not in columns:
            raise DataError(
                f"line {number} is not `image mask`: {line[:80]!r}",
                where=str(path),
                fix="write two names without spaces per line",
            )
        if names:
            found.append(names)
    if not found:
        raise DataError("names no frame", where=str(path), fix="restore the published list")
    return found


def _locate(root: Path, on_disk: dict[str, dict[str, Path]], listed: str) -> Path:
    """Find a listed file below root by its folder and stem, for lists that do not fit the disk."""
    name = PurePosixPath(listed)
    if name.parent.name not in on_disk:
        found = list_images(root / name.parent.name)
        by_stem = {path.stem: path for path in found}
        on_disk[name.parent.name] = by_stem | {path.name: path for path in found}
    known = on_disk[name.parent.name]
    return known.get(name.name) or known.get(name.stem) or root / name.parent.name / name.name
