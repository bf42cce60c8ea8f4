"""Files that look odd but are no fault: what changes a clean set without breaking it, by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.broken import (
    HEIGHT,
    WIDTH,
    clean_mask,
    image_of,
    mask_of,
    noise,
    png_of,
    replaced,
    write,
)

# First row, first column, and steps of the seven passes. Source: the PNG specification, Adam7.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
PASSES += ((1, 0, 2, 1),)


def interlaced(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) or (H, W) as an interlaced PNG, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = []
    for top, left, down, right in PASSES:
        rows += [b"\0" + row.tobytes() for row in pixels[top::down, left::right]]
    color_type = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 1)
    return png_of(header, zlib.compress(b"".join(rows)))


def _renamed(root: Path, name: str) -> None:
    for path in (image_of(root), mask_of(root)):
        path.rename(path.with_name(name + path.suffix))


def _palette(root: Path) -> None:
    mask = Image.fromarray(clean_mask())
    mask.putpalette([value % 256 for value in range(768)])
    write(mask_of(root), mask, bits=4)


def _one_bit(root: Path) -> None:
    write(mask_of(root), Image.fromarray(clean_mask() == 1))


def _upper_case(root: Path) -> None:
    for path in (image_of(root), mask_of(root)):
        path.rename(path.with_suffix(".PNG"))


def _upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010F] = "a camera"
    replaced(image_of(root), ".jpg", noise(), exif=exif.tobytes())


def _linked(root: Path) -> None:
    for path in (image_of(root), mask_of(root)):
        elsewhere = root / f"elsewhere_{path.parent.parent.name}{path.suffix}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)


def _other_files(root: Path) -> None:
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (image_of(root).parent / name).write_bytes(b"x")
        (mask_of(root).parent / name).write_bytes(b"x")
    (image_of(root).parent / "raw").mkdir()


def _previews(root: Path) -> None:
    """Save as a camera does: a JPEG file with a second picture behind the first."""
    previews = [noise(HEIGHT // 2, WIDTH // 2)]
    path = replaced(
        image_of(root), ".jpg", noise(), format="MPO", save_all=True, append_images=previews
    )
    assert Image.open(path).format == "MPO"


def _copied(root: Path) -> None:
    write(image_of(root, "c"), Image.open(image_of(root)))


def _image(suffix: str, make: Callable[[], Image.Image | bytes], **options: object) -> object:
    return lambda root: replaced(image_of(root), suffix, make(), **options)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "name that is not ASCII": lambda root: _renamed(root, "Straße_Ω_道路"),
    "blanks in the name": lambda root: _renamed(root, " a frame  of 5 "),
    "dots in the name": lambda root: _renamed(root, "frame.0001.v2"),
    "suffix in capitals": _upper_case,
    "palette mask of 4 bits": _palette,
    "mask of 1 bit": _one_bit,
    "mask of 16 bits": lambda root: write(
        mask_of(root), Image.fromarray(clean_mask().astype(np.uint16))
    ),
    "interlaced mask": lambda root: write(mask_of(root), interlaced(clean_mask())),
    "interlaced image": _image(".png", lambda: interlaced(np.asarray(noise()))),
    "progressive JPEG": _image(".jpg", noise, progressive=True),
    "JPEG with previews": _previews,
    "gray image": _image(".png", lambda: noise().convert("L")),
    "gray JPEG": _image(".jpg", lambda: noise().convert("L")),
    "image with alpha": _image(".png", lambda: noise().convert("RGBA")),
    "palette image": _image(".png", lambda: noise().quantize(16)),
    "image of 1 bit": _image(".png", lambda: noise().convert("1")),
    "upright by its tag": _upright,
    "links to files": _linked,
    "other files beside": _other_files,
    "same pixels twice in a split": _copied,
}
