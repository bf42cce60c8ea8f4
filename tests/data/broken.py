"""A small native data set, and one way to break it for each fault that a data check must name."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40
TRAIN, VAL = ("a", "b", "c"), ("d", "e")
STEM = "b"

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


def write_clean(root: Path, *, train: tuple[str, ...] = TRAIN) -> Path:
    """Write a data set without a fault: train and 2 val pairs; the label map swaps two values."""
    rng = np.random.default_rng(0)
    for split, stems in (("train", train), ("val", VAL)):
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


def png(
    rows: list[bytes], *, width: int, depth: int, color_type: int, height: int | None = None
) -> bytes:
    """Encode a PNG of any bit depth, which Pillow cannot write; `height` may be a lie."""
    header = struct.pack(">IIBBBBB", width, height or len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_of(header, pixels)


def png_of(header: bytes, compressed: bytes) -> bytes:
    """Encode a PNG from its 13 bytes of header and its compressed rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    body = chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def image_of(root: Path, stem: str = STEM) -> Path:
    return root / "images" / "train" / f"{stem}.png"


def mask_of(root: Path, stem: str = STEM) -> Path:
    return root / "masks" / "train" / f"{stem}.png"


def write(path: Path, image: Image.Image | bytes, **options: object) -> Path:
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


def noise(height: int = HEIGHT, width: int = WIDTH, *, seed: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def replaced(path: Path, suffix: str, image: Image.Image | bytes, **options: object) -> Path:
    """Put a file with another suffix in the place of one."""
    path.unlink()
    return write(path.with_suffix(suffix), image, **options)


def _removed(path: Path) -> Path:
    path.unlink()
    return path


def _cut(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _damaged(path: Path) -> Path:
    data = path.read_bytes()
    return write(path, data[:20] + b"\xff" * 40)


# ---------------------------------------------------------------- pairs
def _remove_image(root: Path, stem: str = STEM) -> Path:
    image_of(root, stem).unlink()
    return mask_of(root, stem)


def _second_image(root: Path, stem: str = STEM) -> Path:
    write(image_of(root, stem).with_suffix(".jpg"), noise())
    return image_of(root, stem)


def _leak(root: Path, stem: str = STEM) -> Path:
    write(root / "masks" / "val" / "x.png", Image.fromarray(clean_mask()))
    return write(root / "images" / "val" / "x.bmp", Image.open(image_of(root, stem)))


def _linked_leak(root: Path, stem: str = STEM) -> Path:
    write(root / "masks" / "val" / "y.png", Image.fromarray(clean_mask()))
    link = root / "images" / "val" / "y.png"
    link.symlink_to(image_of(root, stem))
    return link


def _no_sky(root: Path, stem: str = STEM) -> Path:
    raw = clean_mask()
    raw[raw == 2] = 7
    masks = mask_of(root, stem).parent
    for path in masks.iterdir():
        write(path, Image.fromarray(raw))
    return masks


# ---------------------------------------------------------------- files
def _folder(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def _pipe(path: Path) -> Path:
    path.unlink()
    os.mkfifo(path)
    return path


def _link_to_itself(path: Path) -> Path:
    path.unlink()
    path.symlink_to(path.name)
    return path


def _links_in_a_circle(path: Path) -> Path:
    path.unlink()
    other = path.with_suffix(".link")
    other.symlink_to(path.name)
    path.symlink_to(other.name)
    return path


def _link_to_nothing(path: Path) -> Path:
    path.unlink()
    path.symlink_to("gone.png")
    return path


# ---------------------------------------------------------------- images
def _turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return replaced(path, ".jpg", noise(), exif=exif.tobytes())


def _deep_rgb(path: Path) -> Path:
    rows = [bytes(6 * WIDTH)] * HEIGHT
    return write(path, png(rows, width=WIDTH, depth=16, color_type=2))


def _deep_gray(path: Path) -> Path:
    return write(path, Image.fromarray(np.full((HEIGHT, WIDTH), 1000, dtype=np.uint16)))


def _frames(path: Path, suffix: str, kind: str) -> Path:
    """Save an animation of two frames as `kind`, which the suffix may hide."""
    path.unlink()
    target, second = path.with_suffix(suffix), noise(seed=2)
    noise().save(target, format=kind, save_all=True, append_images=[second])
    return target


def _bomb(path: Path, side: int) -> Path:
    return write(path, png([bytes(8)], width=side, height=side, depth=8, color_type=2))


def _of_size(root: Path, stem: str, height: int, width: int) -> Path:
    write(mask_of(root, stem), Image.fromarray(np.zeros((height, width), dtype=np.uint8)))
    return write(image_of(root, stem), noise(height=height, width=width))


# ---------------------------------------------------------------- masks
def _filled(path: Path, value: int, dtype: type = np.uint8) -> Path:
    return write(path, Image.fromarray(np.full((HEIGHT, WIDTH), value, dtype=dtype)))


def _one_wrong_pixel(path: Path) -> Path:
    mask = clean_mask()
    mask[3, 4] = 9
    return write(path, Image.fromarray(mask))


def _turned_mask(path: Path) -> Path:
    return write(path, Image.fromarray(np.ascontiguousarray(clean_mask().T)))


def _float_mask(path: Path) -> Path:
    return replaced(path, ".tif", Image.fromarray(clean_mask().astype(np.float32)))


def _pages(path: Path) -> Path:
    path.unlink()
    target, page = path.with_suffix(".tif"), Image.fromarray(clean_mask())
    page.save(target, save_all=True, append_images=[page])
    return target


Break = Callable[..., Path]


def _at(place: Callable[[Path, str], Path], change: Callable[[Path], Path]) -> Break:
    return lambda root, stem=STEM: change(place(root, stem))


def _image(change: Callable[[Path], Path]) -> Break:
    return _at(image_of, change)


def _mask(change: Callable[[Path], Path]) -> Break:
    return _at(mask_of, change)


CORPUS: dict[str, tuple[str, Break]] = {
    "mask is missing": ("missing_mask", _mask(_removed)),
    "image is missing": ("missing_image", _remove_image),
    "image links to nothing": ("missing_image", _image(_link_to_nothing)),
    "two images of one stem": ("duplicate_stem", _second_image),
    "two masks of one stem": (
        "duplicate_stem",
        _mask(lambda path: write(path.with_suffix(".tif"), Image.fromarray(clean_mask()))),
    ),
    "folder named like an image": ("not_a_file", _image(_folder)),
    "folder named like a mask": ("not_a_file", _mask(_folder)),
    "pipe named like an image": ("not_a_file", _image(_pipe)),
    "image links to itself": ("unreadable", _image(_link_to_itself)),
    "masks link in a circle": ("unreadable", _mask(_links_in_a_circle)),
    "truncated PNG image": ("unreadable", _image(_cut)),
    "truncated JPEG image": ("unreadable", _image(lambda p: _cut(replaced(p, ".jpg", noise())))),
    "truncated WebP image": ("unreadable", _image(lambda p: _cut(replaced(p, ".webp", noise())))),
    "truncated mask": ("unreadable", _mask(_cut)),
    "empty image": ("unreadable", _image(lambda path: write(path, b""))),
    "empty mask": ("unreadable", _mask(lambda path: write(path, b""))),
    "text as mask": ("unreadable", _mask(lambda path: write(path, b"no picture"))),
    "damaged header": ("unreadable", _image(_damaged)),
    "animated PNG": ("animated", _image(lambda path: _frames(path, ".png", "PNG"))),
    "animated WebP": ("animated", _image(lambda path: _frames(path, ".webp", "WEBP"))),
    "animated GIF by another name": ("animated", _image(lambda p: _frames(p, ".png", "GIF"))),
    "mask of two pages": ("animated", _mask(_pages)),
    "turned image": ("exif_rotation", _image(_turned)),
    "mask one row short": (
        "size_mismatch",
        _mask(lambda path: write(path, Image.fromarray(clean_mask()[:-1]))),
    ),
    "mask turned": ("size_mismatch", _mask(_turned_mask)),
    "RGB mask": ("channel_count", _mask(lambda path: write(path, noise()))),
    "RGBA mask": ("channel_count", _mask(lambda path: write(path, noise().convert("RGBA")))),
    "mask with alpha": (
        "channel_count",
        _mask(lambda path: write(path, Image.fromarray(clean_mask()).convert("LA"))),
    ),
    "CMYK image": ("channel_count", _image(lambda p: replaced(p, ".jpg", noise().convert("CMYK")))),
    "16-bit gray image": ("bit_depth", _image(_deep_gray)),
    "16-bit RGB image": ("bit_depth", _image(_deep_rgb)),
    "float mask": ("bit_depth", _mask(_float_mask)),
    "JPEG mask": (
        "lossy_mask",
        _mask(lambda path: replaced(path, ".jpg", Image.fromarray(clean_mask()))),
    ),
    "one pixel outside the map": ("value_outside_map", _mask(_one_wrong_pixel)),
    "16-bit values outside the map": (
        "value_outside_map",
        _mask(lambda path: _filled(path, 256, np.uint16)),  # its low byte would be a class
    ),
    "mask of void only": ("all_ignore", _mask(lambda path: _filled(path, 7))),
    "image too small": ("too_small", lambda root, stem=STEM: _of_size(root, stem, 15, 40)),
    "image too large": ("too_large", lambda root, stem=STEM: _of_size(root, stem, 51, 100)),
    "decompression bomb": ("too_large", _image(lambda path: _bomb(path, 40_000))),
    "train image again in val": ("leakage", _leak),
    "val links to train": ("leakage", _linked_leak),
    "class without a pixel in train": ("empty_class", _no_sky),
}
"""By name of the case: its fault, and what breaks a clean set and returns the place to name."""
OF_THE_WHOLE_SET = {"class without a pixel in train"}
"""Cases that cannot occur beside others, which bring what is missing."""
