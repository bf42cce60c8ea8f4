"""Weights that come with the package, found by name.

Each is a checkpoint folder `zoo/<name>` with one more file, `SHA256SUMS`, in the format of the
program sha256sum. All files are compared with it whenever the name is used.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from rtseg.errors import CheckpointError, DataError

SUMS = "SHA256SUMS"


class WeightsNotice(UserWarning):
    """What whoever uses weights has to know, such as the terms of the data behind them."""


def zoo_folder() -> Path:
    """Return the folder of the weights that come with the package."""
    return Path(str(resources.files("rtseg") / "zoo"))


def list_shipped() -> list[str]:
    """Return the sorted names of the weights that come with the package."""
    return sorted(path.parent.name for path in zoo_folder().glob(f"*/{SUMS}"))


def find_shipped(name: str) -> Path | None:
    """Return the folder of shipped weights, or None if there are none of that name.

    Raises:
        CheckpointError: A file is missing or is not the one that was shipped.
    """
    if name not in list_shipped():
        return None
    folder = zoo_folder() / name
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, file = line.partition("  ")
        path = folder / file
        if not path.is_file() or sha256(path) != digest:
            reason = "is not the file that was shipped" if path.is_file() else "is missing"
            raise CheckpointError(reason, where=str(path), fix="install rtseg again")
    return folder


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` for all files of a checkpoint folder.

    Raises:
        DataError: The folder holds no file.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    if not paths:
        raise DataError("holds no file", where=str(folder), fix="give a checkpoint folder")
    text = "".join(f"{sha256(path)}  {path.name}\n" for path in paths)
    partial = folder / f".{SUMS}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / SUMS)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
