"""What readers of published layouts share: splits, roots, and masks paired with images by stem."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtseg.data.files import list_images
from rtseg.errors import ConfigError, DataError, nearest


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
    raise ConfigError(
        f"split {split!r} is unknown",
        where=reader,
        fix=f"did you mean {nearest(split, known, count=1)[0]!r}?",
    )


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
