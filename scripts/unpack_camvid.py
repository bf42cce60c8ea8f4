"""Unpack CamVid from `$RTSEG_DATA/camvid11.zip`; files that are there already are kept.

Usage: python scripts/unpack_camvid.py FOLDER
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path, PurePosixPath

from rtseg.errors import DataError

ARCHIVE, TOP = "camvid11.zip", "camvid11"


def unpack(archive: Path, folder: Path) -> tuple[int, int]:
    """Write the files below the archive's top folder to `folder`.

    A file of the right size is left alone; others are written beside their place and renamed, so
    that an interrupted run leaves nothing half-written.

    Returns:
        Number of files written and number in the archive.

    Raises:
        DataError: The archive cannot be read.
    """
    written = total = 0
    try:
        with zipfile.ZipFile(archive) as source:
            for member in source.infolist():
                parts = PurePosixPath(member.filename).parts
                if member.is_dir() or parts[0] != TOP or ".." in parts:
                    continue
                total += 1
                target = folder.joinpath(*parts[1:])
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                partial.write_bytes(source.read(member))
                partial.replace(target)
                written += 1
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot be unpacked ({error})", where=str(archive), fix="copy the archive again"
        ) from None
    return written, total


def locate() -> Path:
    """Return the archive in `RTSEG_DATA`.

    Raises:
        DataError: The variable is not set, or the archive is not there.
    """
    folder = os.environ.get("RTSEG_DATA")
    if not folder:
        raise DataError(
            "RTSEG_DATA is not set", fix=f"set it to the folder that holds {ARCHIVE}, then repeat"
        )
    archive = Path(folder) / ARCHIVE
    if not archive.is_file():
        raise DataError("is not there", where=str(archive), fix="correct RTSEG_DATA, then repeat")
    return archive


def main() -> None:
    """Run the script."""
    folder = Path(sys.argv[1])
    try:
        written, total = unpack(locate(), folder)
    except DataError as error:
        print(f"make data: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{folder}: {total} files, {written} of them written now")


if __name__ == "__main__":
    main()
