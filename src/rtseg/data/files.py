"""Read images and masks from disk; a file that cannot be used is named with fault and remedy.

Images come back as stored: an EXIF orientation is not applied (masks have none, so turning the
image alone would tear the pair apart); `data check` reports such files. Masks keep their raw values
until `LabelTable.apply`, the only place where label values change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg.data.decode import FileFaultError as FileFaultError  # readers import it from here
from rtseg.data.decode import decode, open_picture, stored_mode
from rtseg.structures import IGNORE_INDEX, Sample

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""Suffixes, in lower case, of the files that count as an image or a mask."""

_IMAGE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"})
_LOSSY_FORMATS = frozenset({"JPEG", "MPO"})
# Pillow stretches grey of 2 and 4 bits to 0..255; class ids need the stored number back.
_STRETCH = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Limits:
    """Sizes that a data set allows.

    min_size: smallest height and width in pixels. max_pixels: largest height times width; larger
    files are refused before they are decoded. None: no limit.
    """

    min_size: int | None = None
    max_pixels: int | None = None


# ---------------------------------------------------------------- images
def read_image(path: Path, *, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) RGB in 0-255: grey becomes three channels, alpha is dropped.

    Args:
        path: The image file.
        limits: Sizes to refuse.

    Raises:
        FileFaultError: The file is missing, broken, not 8 bit, of another colour mode, or too small
            or too large.
    """
    # decision: Pillow alone. torchvision.io decodes as fast (it saves one copy) but is deprecated.
    return np.array(decode_rgb(open_image(path, limits=limits), path), dtype=np.uint8)


def open_image(path: Path, *, limits: Limits | None = None) -> Image.Image:
    """Open an image as `read_image` does, but leave it undecoded; raises the same."""
    picture = open_picture(path, missing="missing_image")
    _require_image_format(picture, path)
    _require_size(picture, path, limits or Limits())
    return picture


def decode_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """Decode what `open_image` returned and convert it to RGB if it is not.

    Raises:
        FileFaultError: The file is truncated or damaged.
    """
    decoded = decode(picture, path)
    return decoded if decoded.mode == "RGB" else decoded.convert("RGB")


def _require_image_format(header: Image.Image, path: Path) -> None:
    if header.mode.startswith(("I", "F")) or ";16" in stored_mode(header):
        raise FileFaultError(
            f"image has more than 8 bits per channel (mode {header.mode})",
            kind="bit_depth",
            where=str(path),
            fix="scale it to 8 bits and save it again",
        )
    if header.mode not in _IMAGE_MODES:
        raise FileFaultError(
            f"image has the colour mode {header.mode}, not RGB or grey",
            kind="channel_count",
            where=str(path),
            fix="convert it to RGB",
        )


def _require_size(header: Image.Image, path: Path, limits: Limits) -> None:
    width, height = header.size
    if limits.min_size is not None and min(height, width) < limits.min_size:
        raise FileFaultError(
            f"image is {height}x{width} (H x W), smaller than min_size {limits.min_size}",
            kind="too_small",
            where=str(path),
            fix="remove the pair or lower min_size",
        )
    if limits.max_pixels is not None and height * width > limits.max_pixels:
        raise FileFaultError(
            f"image is {height}x{width} (H x W), more than max_pixels {limits.max_pixels}",
            kind="too_large",
            where=str(path),
            fix="cut it into tiles or raise max_pixels",
        )


# ---------------------------------------------------------------- masks
class LabelReader(Protocol):
    """How to read the file that holds one kind of label."""

    def read(self, path: Path, /) -> NDArray[Any]:
        """Return labels as `Sample` describes them, or raise a `FileFaultError`."""
        ...


@dataclass(frozen=True)
class LabelTable:
    """What each raw value of a mask file means; it is applied once, when the mask is read.

    values: raw value to label (a class id or `IGNORE_INDEX`); with `color`, the raw value is
    `pack_color` of a pixel. color: masks are RGB. gray_rgb: masks may be RGB or RGBA files of gray
    pixels, which are the raw values. unmapped: what a raw value without an entry is, an error or
    `IGNORE_INDEX`. remedy: what the user should do about such a value.
    """

    values: Mapping[int, int]
    color: bool = False
    gray_rgb: bool = False
    unmapped: Literal["error", "ignore"] = "error"
    remedy: str = "add it to label_map, or write `unmapped: ignore`"

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read a mask file as labels, uint8 (H, W).

        Raises:
            FileFaultError: The file cannot be read as such a mask or holds a value without a label.
        """
        raw = read_mask(path, color=self.color, gray_rgb=self.gray_rgb)
        return self.apply(raw, where=str(path))

    def apply(
        self, raw: NDArray[np.uint8] | NDArray[np.uint16], *, where: str = ""
    ) -> NDArray[np.uint8]:
        """Translate raw values to labels.

        Args:
            raw: Index mask (H, W), or RGB mask (H, W, 3) uint8 with `color`.
            where: The file, for messages.

        Returns:
            Labels, uint8 (H, W).

        Raises:
            FileFaultError: A raw value has no label and `unmapped` is `error`.
        """
        codes: NDArray[Any] = raw
        if self.color:
            # Neighbors are mostly alike: a color is looked up once where a run of it starts.
            pixels = _pack_pixels(raw).ravel()
            starts = np.flatnonzero(np.diff(pixels, prepend=-1))
            codes = pixels[starts]
            found = np.minimum(np.searchsorted(self._codes, codes), self._codes.size - 1)
            known = self._codes[found] == codes
            of_runs = np.where(known, self._labels[found], np.uint8(IGNORE_INDEX))
            runs = np.diff(starts, append=pixels.size)
            labels = np.repeat(of_runs, runs).reshape(raw.shape[:2])
        else:
            known, labels = self._known.take(raw), self._lookup.take(raw)
        if self.unmapped == "error" and not known.all():
            self._refuse(np.unique(codes[~known]), where)
        return labels

    def _refuse(self, values: NDArray[Any], where: str) -> None:
        names = [color_text(int(value)) if self.color else str(value) for value in values[:8]]
        more = f" and {values.size - 8} more" if values.size > 8 else ""
        raise FileFaultError(
            f"mask holds {'colours' if self.color else 'values'} without a label: "
            f"{' '.join(names)}{more}",
            kind="value_outside_map",
            where=where,
            fix=self.remedy,
        )

    @cached_property
    def _codes(self) -> NDArray[np.int32]:
        return np.array(sorted(self.values), dtype=np.int32)

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        return np.array([self.values[code] for code in sorted(self.values)], dtype=np.uint8)

    @cached_property
    def _lookup(self) -> NDArray[np.uint8]:
        lookup = np.full(1 << 16, IGNORE_INDEX, dtype=np.uint8)
        lookup[self._codes] = self._labels
        return lookup

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        known = np.zeros(1 << 16, dtype=np.bool_)
        known[self._codes] = True
        return known


def read_mask(
    path: Path, *, color: bool = False, gray_rgb: bool = False
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read the raw values of a mask: uint8 or uint16 (H, W), or uint8 (H, W, 3) RGB with `color`.

    Grey of 1 to 16 bits gives the stored numbers, a palette file its indices, never its colours.

    Args:
        path: The mask file.
        color: The mask is RGB; its colours are the labels.
        gray_rgb: The mask may be RGB or RGBA with three equal channels, of which one is returned.

    Raises:
        FileFaultError: The file is missing, broken, lossy, or of another depth or channel count.
    """
    header = open_picture(path, missing="missing_mask")
    if header.format in _LOSSY_FORMATS:
        raise FileFaultError(
            f"mask is a {header.format} file, which changes label values",
            kind="lossy_mask",
            where=str(path),
            fix="save the original labels as PNG",
        )
    stored = stored_mode(header)
    if gray_rgb and header.mode in {"RGB", "RGBA"} and ";16" not in stored:
        return _gray(np.asarray(decode(header, path)), path)
    _require_mask_format(header, path, stored=stored, color=color)
    pixels = np.asarray(decode(header, path))
    if header.mode.startswith("I"):
        return pixels.astype(np.uint16)
    return pixels.astype(np.uint8) // np.uint8(_STRETCH.get(stored, 1))


def _gray(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Return the first channel of (H, W, 3 or 4), which the next two must repeat."""
    if (pixels[..., 1:3] != pixels[..., :1]).any():
        raise FileFaultError(
            "mask has colors, but its values should be gray",
            kind="channel_count",
            where=str(path),
            fix="use the masks of the published layout, not pictures of them",
        )
    return np.ascontiguousarray(pixels[..., 0])


def _require_mask_format(header: Image.Image, path: Path, *, stored: str, color: bool) -> None:
    if color and header.mode == "RGB" and ";16" not in stored:
        return
    sixteen = header.mode.startswith("I;16") or (header.mode == "I" and stored.startswith("I;16"))
    plain = header.mode in {"1", "P"} or (header.mode == "L" and stored in {"L", *_STRETCH})
    if not color and (plain or sixteen):
        return
    channels = len(header.getbands())
    deep = header.mode.startswith(("I", "F")) or ";" in stored
    fix = (
        "save it as 8-bit RGB, or remove color_map for index masks"
        if color
        else "save class ids in one channel of 8 or 16 bits, or give a color_map for RGB masks"
    )
    raise FileFaultError(
        f"mask has {channels} channel{'s' * (channels > 1)} (mode {header.mode}, stored {stored})",
        kind="bit_depth" if deep and channels == 1 else "channel_count",
        where=str(path),
        fix=fix,
    )


def pack_color(red: int, green: int, blue: int) -> int:
    """Return a colour (0-255 each) as one number, the raw value of an RGB mask."""
    return (red << 16) | (green << 8) | blue


def color_text(code: int) -> str:
    """Return a packed colour as `red,green,blue`."""
    return f"{code >> 16},{code >> 8 & 255},{code & 255}"


def _pack_pixels(pixels: NDArray[Any]) -> NDArray[np.int32]:
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


# ---------------------------------------------------------------- pairs
def read_sample(
    files: Iterable[Path], tables: Mapping[str, LabelReader], *, limits: Limits | None = None
) -> Sample:
    """Read an image and its labels.

    Args:
        files: The image, then one file for each entry of `tables`, in its order.
        tables: How to read the labels of each kind.
        limits: Image sizes to refuse.

    Raises:
        FileFaultError: A file cannot be used, or a mask has another size than the image.
    """
    image_path, *mask_paths = files
    image = read_image(image_path, limits=limits)
    labels = {}
    for (kind, table), path in zip(tables.items(), mask_paths, strict=True):
        labels[kind] = table.read(path)
        require_fit(image, labels[kind], image_path=image_path, mask_path=path)
    return Sample(image=image, labels=labels, path=str(image_path))


def require_fit(
    image: NDArray[Any], mask: NDArray[Any], *, image_path: Path, mask_path: Path
) -> None:
    """Raise a `FileFaultError` that names the mask unless it is as large as the image.

    A label without height and width, one class for the whole image, fits any.
    """
    if mask.ndim == 0 or image.shape[:2] == mask.shape[:2]:
        return
    sizes = [f"{array.shape[0]}x{array.shape[1]}" for array in (mask, image)]
    raise FileFaultError(
        f"mask is {sizes[0]} (H x W) but its image {image_path} is {sizes[1]}",
        kind="size_mismatch",
        where=str(mask_path),
        fix="export the mask at the image's size (masks only with nearest neighbour)",
    )


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, by name; an empty list if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
