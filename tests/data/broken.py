"""A small native data set, and one way to break it for each fault that a data check must name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40
TRAIN, VAL = ("a", "b", "c"), ("d", "e")

DESCRIPTION = """\
splits: [train, val]
classes:
  0: {name: road, color: [128, 64, 128]}
  1: {name: car, color: [0, 0, 142], thing: true}
  2: {name: sky, color: [70, 130, 180]}
label_map: {0: 1, 1: 0, 2: 2, 7: ignore}
min_size: 16
max_pixels: 5000
"""


def write_clean(root: Path) -> Path:
    """Write a data set without a fault: 3 train and 2 val pairs; the label map swaps two values."""
    rng = np.random.default_rng(0)
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for stem in stems:
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{stem}.png")
            Image.fromarray(clean_mask()).save(root / "masks" / split / f"{stem}.png")
    (root / "data.yaml").write_text(DESCRIPTION, encoding="utf-8")
    return root


def clean_mask() -> np.ndarray:
    """Return raw values: 0 in 10 columns, 1 in 10, 2 in 15 and the void value 7 in 5."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, 10:20], mask[:, 20:35], mask[:, 35:] = 1, 2, 7
    return mask


def png(rows: list[bytes], *, width: int, depth: int, color_type: int) -> bytes:
    """Encode a PNG of any bit depth, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _image(root: Path, stem: str = "b") -> Path:
    return root / "images" / "train" / f"{stem}.png"


def _mask(root: Path, stem: str = "b") -> Path:
    return root / "masks" / "train" / f"{stem}.png"


def _cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _write(path: Path, image: Image.Image | bytes, **options: object) -> Path:
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


def _replace_image(root: Path, suffix: str, image: Image.Image, **options: object) -> Path:
    _image(root).unlink()
    return _write(_image(root).with_suffix(suffix), image, **options)


def _noise(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _remove_mask(root: Path) -> Path:
    _mask(root).unlink()
    return _mask(root)


def _remove_image(root: Path) -> Path:
    _image(root).unlink()
    return _mask(root)


def _second_image(root: Path) -> Path:
    _write(_image(root).with_suffix(".jpg"), _noise())
    return _image(root)


def _second_mask(root: Path) -> Path:
    return _write(_mask(root).with_suffix(".tif"), Image.fromarray(clean_mask()))


def _cut_jpeg(root: Path) -> Path:
    return _cut(_replace_image(root, ".jpg", _noise()))


def _cut_webp(root: Path) -> Path:
    return _cut(_replace_image(root, ".webp", _noise()))


def _turned(root: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _replace_image(root, ".jpg", _noise(), exif=exif.tobytes())


def _cmyk_image(root: Path) -> Path:
    return _replace_image(root, ".jpg", _noise().convert("CMYK"))


def _deep_rgb_image(root: Path) -> Path:
    rows = [bytes(6 * WIDTH)] * HEIGHT
    return _write(_image(root), png(rows, width=WIDTH, depth=16, color_type=2))


def _deep_grey_image(root: Path) -> Path:
    pixels = np.full((HEIGHT, WIDTH), 1000, dtype=np.uint16)
    return _write(_image(root), Image.fromarray(pixels))


def _float_mask(root: Path) -> Path:
    _mask(root).unlink()
    floats = Image.fromarray(clean_mask().astype(np.float32))
    return _write(_mask(root).with_suffix(".tif"), floats)


def _alpha_mask(root: Path) -> Path:
    return _write(_mask(root), Image.fromarray(clean_mask()).convert("LA"))


def _jpeg_mask(root: Path) -> Path:
    _mask(root).unlink()
    return _write(_mask(root).with_suffix(".jpg"), Image.fromarray(clean_mask()))


def _filled_mask(root: Path, value: int) -> Path:
    return _write(_mask(root), Image.fromarray(np.full((HEIGHT, WIDTH), value, dtype=np.uint8)))


def _one_wrong_pixel(root: Path) -> Path:
    mask = clean_mask()
    mask[3, 4] = 9
    return _write(_mask(root), Image.fromarray(mask))


def _resized_mask(root: Path) -> Path:
    return _write(_mask(root), Image.fromarray(clean_mask()[:-1]))


def _turned_mask(root: Path) -> Path:
    return _write(_mask(root), Image.fromarray(np.ascontiguousarray(clean_mask().T)))


def _leak(root: Path) -> Path:
    target = root / "images" / "val" / "x.bmp"
    _write(root / "masks" / "val" / "x.png", Image.fromarray(clean_mask()))
    return _write(target, Image.open(_image(root)))


def _small(root: Path) -> Path:
    _write(_mask(root), Image.fromarray(clean_mask()[:15]))
    return _write(_image(root), _noise(height=15))


def _large(root: Path) -> Path:
    _write(_mask(root), Image.fromarray(np.zeros((51, 100), dtype=np.uint8)))
    return _write(_image(root), _noise(height=51, width=100))


def _bytes_io_png() -> bytes:
    stream = io.BytesIO()
    _noise().save(stream, format="PNG")
    return stream.getvalue()


CORPUS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "mask is missing": ("missing_mask", _remove_mask),
    "image is missing": ("missing_image", _remove_image),
    "two images of one stem": ("duplicate_stem", _second_image),
    "two masks of one stem": ("duplicate_stem", _second_mask),
    "truncated PNG image": ("unreadable", lambda root: _cut(_image(root))),
    "truncated JPEG image": ("unreadable", _cut_jpeg),
    "truncated WebP image": ("unreadable", _cut_webp),
    "truncated mask": ("unreadable", lambda root: _cut(_mask(root))),
    "empty image": ("unreadable", lambda root: _write(_image(root), b"")),
    "text as mask": ("unreadable", lambda root: _write(_mask(root), b"no picture")),
    "damaged header": (
        "unreadable",
        lambda root: _write(_image(root), _bytes_io_png()[:20] + b"\xff" * 40),
    ),
    "turned image": ("exif_rotation", _turned),
    "mask one row short": ("size_mismatch", _resized_mask),
    "mask turned": ("size_mismatch", _turned_mask),
    "RGB mask": ("channel_count", lambda root: _write(_mask(root), _noise())),
    "mask with alpha": ("channel_count", _alpha_mask),
    "CMYK image": ("channel_count", _cmyk_image),
    "16-bit grey image": ("bit_depth", _deep_grey_image),
    "16-bit RGB image": ("bit_depth", _deep_rgb_image),
    "float mask": ("bit_depth", _float_mask),
    "JPEG mask": ("lossy_mask", _jpeg_mask),
    "one pixel outside the map": ("value_outside_map", _one_wrong_pixel),
    "mask of void only": ("all_ignore", lambda root: _filled_mask(root, 7)),
    "train image again in val": ("leakage", _leak),
    "image too small": ("too_small", _small),
    "image too large": ("too_large", _large),
}
"""By name of the case: its fault, and what breaks a clean set and returns the file to name."""
