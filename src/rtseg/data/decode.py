"""Open and decode one picture file; what cannot be used is named with its fault and a remedy."""

from __future__ import annotations

import errno
import io
import stat
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from rtseg.errors import DataError

# Those of `IMAGE_SUFFIXES`, and GIF, which is often renamed; others would run foreign decoders.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
_STILL_FORMATS = frozenset({"MPO"})  # a JPEG of a camera, with previews behind the picture
_EXIF_ORIENTATION = 0x0112
# decision: a file is taken for a decompression bomb where it claims more pixels than those from
# which Pillow warns, and more than 100 for each of its bytes. Photos have less than 10 per byte.
_SAFE_PIXELS = 89_478_485
_PIXELS_PER_BYTE = 100


class FileFaultError(DataError):
    """A file that is unusable or contradicts its description; `kind` names the fault in reports."""

    def __init__(
        self, what: str, *, kind: str = "unreadable", where: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.kind = kind


def open_picture(path: Path, *, missing: str) -> Image.Image:
    """Read a file and open it as a picture, not decoded yet.

    Args:
        path: The file.
        missing: Kind of the fault if it is not there.

    Raises:
        FileFaultError: The file is missing, no file, no picture, several pictures, or claims to
            be far larger than its bytes can tell.
    """
    data = _read_bytes(path, missing=missing)
    if not data:
        raise _broken(path, ValueError("the file is empty"))
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        count = int(getattr(picture, "n_frames", 1))
    except Image.DecompressionBombError as error:
        raise _bomb(str(error), path) from None
    except Exception as error:  # broken files raise a dozen classes, depending on the codec
        named = error if not isinstance(error, UnidentifiedImageError) else None
        raise _broken(path, named or ValueError("unknown format")) from None
    if count > 1 and picture.format not in _STILL_FORMATS:
        raise FileFaultError(
            f"holds {count} pictures instead of one",
            kind="animated",
            where=str(path),
            fix="save the one that is meant as a file of its own",
        )
    width, height = picture.size
    if width * height > max(_SAFE_PIXELS, _PIXELS_PER_BYTE * len(data)):
        raise _bomb(f"{height}x{width} (H x W) in {len(data):,} bytes", path)
    return picture


def decode(picture: Image.Image, path: Path) -> Image.Image:
    """Decode an open picture in place and return it.

    Raises:
        FileFaultError: The file is truncated or damaged.
    """
    try:
        picture.load()
    except Exception as error:  # as in `open_picture`
        raise _broken(path, error) from None
    return picture


def stored_mode(picture: Image.Image) -> str:
    """Return how pixels are stored, such as `RGB;16B`, which Pillow would cut to 8 bits."""
    tiles: Any = getattr(picture, "tile", None) or [("", (), 0, picture.mode)]
    arguments = tiles[0][3]
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else picture.mode


def exif_orientation(picture: Image.Image) -> int:
    """Return the orientation tag of a picture, 1 (upright) to 8; 1 if it has none."""
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, TypeError, ValueError):
        return 1  # no reader can turn the picture by a tag that cannot be parsed


def _read_bytes(path: Path, *, missing: str) -> bytes:
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # a pipe would be waited for
            raise FileFaultError(
                f"is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}, named like a file",
                kind="not_a_file",
                where=str(path),
                fix="rename it, or put the file in its place",
            )
        return path.read_bytes()
    except FileNotFoundError:
        fix = "add the file, or remove its partner or its line in the list"
        raise FileFaultError("file is missing", kind=missing, where=str(path), fix=fix) from None
    except OSError as error:
        loop = error.errno == errno.ELOOP
        raise FileFaultError(
            f"cannot be read ({error.strerror})",
            where=str(path),
            fix="replace the link by the file" if loop else "check its permissions",
        ) from None


def _broken(path: Path, error: Exception) -> FileFaultError:
    return FileFaultError(
        f"is truncated or no image ({error})",
        where=str(path),
        fix="copy it again from its source, or remove it together with its partner",
    )


def _bomb(what: str, path: Path) -> FileFaultError:
    return FileFaultError(
        f"claims too many pixels to be decoded ({what})",
        kind="too_large",
        where=str(path),
        fix="cut it into tiles, or remove it together with its partner",
    )
