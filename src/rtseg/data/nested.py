"""Frames in folders of cities or sequences, with masks that differ in the end of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rtseg.data.files import list_images
from rtseg.errors import DataError


class NestedFrames:
    """Images one folder deep, and for each of them one mask of each kind.

    The mask of `images/ulm/a_rgb.png` with `image_end="_rgb"` and the end `_ids.png` is
    `masks/ulm/a_ids.png`.

    Args:
        places: Folders of images and of masks; frames come in this order, then by name.
        image_end: How the stem of an image ends; other files are left out.
        mask_ends: What stands there in the name of each mask, with its suffix.
        fix: What to do when there is no image.

    Raises:
        DataError: A folder of images holds none.
    """

    def __init__(
        self,
        places: Iterable[tuple[Path, Path]],
        *,
        image_end: str,
        mask_ends: Sequence[str],
        fix: str,
    ) -> None:
        self._mask_ends = tuple(mask_ends)
        self._files: list[tuple[Path, ...]] = []
        self._mask_folders: list[Path] = []
        for images, masks in places:
            found = len(self._files)
            for name in _subfolders(images, masks):
                self._mask_folders.append(masks / name)
                for image in list_images(images / name):
                    if image.stem.endswith(image_end):
                        self._files.append(self._with_masks(image, image_end, masks / name))
            if len(self._files) == found:
                what = f"holds no <folder>/<frame>{image_end}.png"
                raise DataError(what, where=str(images), fix=fix)

    def _with_masks(self, image: Path, image_end: str, folder: Path) -> tuple[Path, ...]:
        frame = image.stem.removesuffix(image_end)
        return (image, *(folder / f"{frame}{end}" for end in self._mask_ends))

    def __len__(self) -> int:
        return len(self._files)

    def files(self, index: int) -> tuple[Path, ...]:
        """Return an image and its masks."""
        return self._files[index]

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        wanted = {mask for _, *masks in self._files for mask in masks}
        folders = [folder for folder in self._mask_folders if folder.is_dir()]
        found = (path for folder in folders for path in sorted(folder.iterdir()))
        return tuple(
            path
            for path in found
            if path.name.endswith(self._mask_ends)
            and not path.name.startswith(".")
            and path not in wanted
        )


def _subfolders(*tops: Path) -> list[str]:
    """Return the names of the folders in any of some folders, sorted."""
    entries = (entry for top in tops if top.is_dir() for entry in top.iterdir())
    return sorted({entry.name for entry in entries if entry.is_dir()})
