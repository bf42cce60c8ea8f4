"""Turn what a user calls a source (file, folder, pattern, list) into paths of images."""

from __future__ import annotations

import glob
from pathlib import Path

from rtseg.data.files import IMAGE_SUFFIXES, list_images
from rtseg.errors import DataError

LIST_SUFFIX = ".txt"


def is_single_image(source: str | Path) -> bool:
    """Tell whether a source means one image rather than a folder, a pattern or a list."""
    path = Path(source)
    several = path.is_dir() or path.suffix.lower() == LIST_SUFFIX
    return not several and (path.exists() or not _is_pattern(source))


def image_paths(source: str | Path) -> list[Path]:
    """Return the images that a source means, in a fixed order.

    Args:
        source: An image; a folder (its images, not those of sub-folders, by name); a pattern such
            as `frames/**/*.png` (by name); or a `.txt` list with one path per line, relative to
            the list, where empty lines, repeated ones and those that start with `#` are left out.

    Raises:
        DataError: Nothing there, no image among it, or a file of another kind.
    """
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if _is_pattern(source) and not path.exists():
        return _matches(str(source))
    if not path.exists():
        raise DataError(
            "does not exist",
            where=str(source),
            fix="give an image, a folder, a quoted pattern or a .txt list",
        )
    if path.suffix.lower() == LIST_SUFFIX:
        return _listed(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        known = " ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("is not an image", where=str(path), fix=f"use one of {known}")
    return [path]


def _is_pattern(source: str | Path) -> bool:
    return glob.has_magic(str(source))


def _in_folder(folder: Path) -> list[Path]:
    found = list_images(folder)
    if not found:
        raise DataError(
            "holds no images",
            where=str(folder),
            fix=f"for images in sub-folders write '{folder}/**/*.png'",
        )
    return found


def _matches(pattern: str) -> list[Path]:
    paths = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (absolute)
    found = sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError("matches no image", where=pattern, fix="check the pattern and its folder")
    return found


def _listed(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot be read ({error})", where=str(path), fix="write one path per line, in UTF-8"
        ) from None
    names = [line.strip() for line in lines]
    chosen = [name for name in names if name and not name.startswith("#")]
    found = [path.parent / name for name in dict.fromkeys(chosen)]
    if not found:
        raise DataError("lists no images", where=str(path), fix="write one path per line")
    return found
