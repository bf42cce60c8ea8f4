"""Folders that appear as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rtseg.errors import DataError


def require_replaceable(folder: Path, content: Collection[str], *, overwrite: bool) -> None:
    """Raise unless a folder may be written: it is not there or empty, or holds only old results.

    Args:
        folder: What is to be written.
        content: Names of the entries that such a folder may hold; a folder with any other entry is
            not replaced, so that a mistyped path loses nothing.
        overwrite: Whether old results may be replaced.

    Raises:
        DataError: It may not.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError("is a file", where=str(folder), fix="choose another folder")
    found = sorted(entry.name for entry in folder.iterdir())
    if not found:
        return
    if not overwrite:
        raise DataError(
            "exists already",
            where=str(folder),
            fix="replace it with --overwrite, or choose another folder",
        )
    foreign = [name for name in found if name not in content]
    if foreign:
        raise DataError(
            f"is not replaced, because it holds {foreign[0]}",
            where=str(folder),
            fix="remove it yourself, or choose another folder",
        )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, which takes its place when the block ends well.

    An old folder stays until then. If the block raises, the new one is removed; what a killed
    process left is removed by the next one that writes the same folder.

    Raises:
        DataError: The disk is full, or a folder or file cannot be written.
    """
    target = folder.resolve()
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        _replace(partial, target)
    except DataError as error:
        if not Path(error.where).is_relative_to(partial):
            raise
        raise DataError(error.what, where=str(folder), fix=error.fix) from error
    except OSError as error:
        raise DataError(
            f"cannot be written ({(error.strerror or str(error)).lower()})",
            where=str(folder),
            fix="check free space and permissions, or choose another folder",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(partial: Path, target: Path) -> None:
    previous = target.with_name(f".{target.name}.previous")
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.rename(previous)
    partial.rename(target)
    shutil.rmtree(previous, ignore_errors=True)
