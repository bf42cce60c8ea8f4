"""Write pictures and label maps so that a file is either complete or not there."""

from __future__ import annotations

import base64
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg.errors import DataError
from rtseg.visualize.drawing import Color, Pixels

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class PictureFile(NamedTuple):
    """What a picture file holds.

    `pixels`: RGB uint8 (H, W, 3); or class ids (H, W), uint8 or uint16, with their `palette`.
    """

    pixels: NDArray[Any]
    palette: tuple[Color, ...] | None = None

    def write(self, path: str | Path) -> Path:
        """Write it as `write_mask` or `write_image` does."""
        if self.palette is None:
            return write_image(path, self.pixels)
        return write_mask(path, self.pixels, self.palette)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file under a temporary name in its folder, then rename it; make missing folders.

    Raises:
        DataError: If the folder or the file cannot be written (no permission, no space).
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
            os.replace(temporary, target)  # noqa: PTH105 - the documented atomic rename
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot be written: {error.strerror or error}",
            where=str(target),
            fix="check free space and permissions, or choose another folder",
        ) from error
    return target


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text as `write_bytes` does."""
    return write_bytes(path, text.encode())


def write_image(path: str | Path, rgb: Pixels) -> Path:
    """Write an RGB picture; the suffix chooses PNG, JPEG or WebP.

    Args:
        path: File to write; its folder is made if missing.
        rgb: Pixels (H, W, 3) uint8.

    Raises:
        ValueError: If `rgb` has another shape or type.
        DataError: If the suffix is unknown or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise DataError(
            f"picture format '{suffix}' is unknown",
            where=str(path),
            fix=f"use one of {', '.join(_FORMATS)}",
        )
    return write_bytes(path, _encode(Image.fromarray(_checked(rgb)), _FORMATS[suffix]))


def write_mask(path: str | Path, mask: NDArray[Any], palette: Sequence[Color]) -> Path:
    """Write a label map as PNG whose pixel values are the class ids.

    Up to 255 classes the PNG is an indexed one that viewers show in the class colors; above, it
    is a 16-bit gray one.

    Args:
        path: File to write, `.png`; its folder is made if missing.
        mask: Class ids (H, W), uint8 or uint16.
        palette: RGB color by class id, 0-255.

    Raises:
        ValueError: If `mask` has another shape or type.
        DataError: If the suffix is not `.png` or the file cannot be written.
    """
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"mask must be uint8 or uint16 (H, W), got {mask.dtype} {mask.shape}")
    if Path(path).suffix.lower() != ".png":
        raise DataError("a label map must not lose values", where=str(path), fix="name it *.png")
    if len(palette) > 255 or mask.max(initial=0) > 255:
        image = Image.fromarray(mask.astype(np.uint16))
    else:
        image = Image.fromarray(mask.astype(np.uint8))
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[: len(palette)] = palette
        image.putpalette(colors.tobytes())
    return write_bytes(path, _encode(image, "PNG"))


def png_data_uri(rgb: Pixels) -> str:
    """Return an RGB picture (H, W, 3) uint8 as text that HTML takes as an image address."""
    content = _encode(Image.fromarray(_checked(rgb)), "PNG")
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _checked(rgb: Pixels) -> Pixels:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"picture must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    return np.ascontiguousarray(rgb)


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 4} if kind == "PNG" else {"quality": 92}
    image.save(buffer, kind, **options)
    return buffer.getvalue()
