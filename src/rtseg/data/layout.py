"""What readers of published layouts share: splits, roots, and masks paired with images by stem."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rtseg.data.files import list_images
from rtseg.errors import ConfigError, DataError, nearest

T = TypeVar("T")


def require_split(split: str, known: Collection[str], *, reader: str) -> None:
    """Raise unless a reader has a split; that of hidden labels, `test`, has an error of its own.

    Raises:
        ConfigError: The split is unknown.
        DataError: It is `test`.
    """
    if split in known:
        return
    if split == "test":
        raise DataError(
            "labels are not published",
            where=f"{reader} test",
            fix="score on val, or predict the images",
        )
    require_known(split, known, what="split", reader=reader)


def require_known(value: str, known: Collection[str], *, what: str, reader: str) -> None:
    """Raise a `ConfigError` that names the nearest choice unless a value is one of them."""
    if value not in known:
        raise ConfigError(
            f"{what} {value!r} is unknown",
            where=reader,
            fix=f"did you mean {nearest(value, known, count=1)[0]!r}?",
        )


def choose_kinds(tables: Mapping[str, T], kinds: Sequence[str], *, reader: str) -> dict[str, T]:
    """Return the tables of some label kinds, in the order of `kinds`.

    Raises:
        ConfigError: A kind has no table, or there is none.
    """
    if not kinds:
        fix = f"name at least one of {', '.join(tables)}"
        raise ConfigError("kinds is empty", where=reader, fix=fix)
    for kind in kinds:
        require_known(kind, tables, what="label kind", reader=reader)
    return {kind: tables[kind] for kind in kinds}


def first_folder(candidates: Sequence[Path]) -> Path | None:
    """Return the first of several folders that is there."""
    return next((folder for folder in candidates if folder.is_dir()), None)


def require_images(folder: Path, *, fix: str) -> tuple[Path, ...]:
    """Return the images of a folder, by name.

    Raises:
        DataError: There are none.
    """
    images = tuple(list_images(folder))
    if not images:
        raise DataError("holds no images", where=str(folder), fix=fix)
    return images


@dataclass(frozen=True)
class Frames:
    """Images, and for each label kind the folder of their masks: PNG files of the same stem."""

    images: tuple[Path, ...]
    folders: Mapping[str, Path]

    def files(self, index: int) -> tuple[Path, ...]:
        """Return an image and then the mask of each kind."""
        image = self.images[index]
        return (image, *(folder / f"{image.stem}.png" for folder in self.folders.values()))

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        stems = {image.stem for image in self.images}
        found = (path for folder in self.folders.values() for path in list_images(folder))
        return tuple(path for path in found if path.stem not in stems)
