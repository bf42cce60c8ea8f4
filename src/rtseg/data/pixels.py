"""Steps that augmentation and preprocessing share: tensors, sizes, label maps, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtseg.structures import IGNORE_INDEX

Size = tuple[int, int]
Color = tuple[float, float, float]
Window = tuple[slice, slice]
"""Rows and columns of a part of an image; what leads beyond the image is left out."""

VOID = {"panoptic": 0}
"""Label value of padded pixels by kind; all other kinds use `IGNORE_INDEX`."""
BAND = 32
"""Rows of an image that are normalized at a time."""
BINARY_KINDS = ("drivable", "lane")
"""Label kinds that hold 0, 1 and `IGNORE_INDEX`."""


def to_tensor(image: NDArray[Any]) -> Tensor:
    """Return an image (H, W, 3) as a tensor (3, H, W) of the same type.

    It may share the memory of the image, so that it must not be written to.
    """
    usable = image.flags.writeable and min(image.strides, default=0) >= 0
    return torch.from_numpy(image if usable else np.array(image)).permute(2, 0, 1)


def as_rows(image: Tensor) -> Tensor | None:
    """Return an image (..., 3, H, W) as rows (..., H, 3 W) of the same memory.

    None if the channels of a pixel do not lie side by side.
    """
    pixels = image.movedim(-3, -1)
    if image.is_contiguous() or not pixels.is_contiguous():
        return None
    return pixels.flatten(-2)


def column(color: Color) -> Tensor:
    """Return a color as float32 (3, 1, 1); whole numbers must not make an integer tensor."""
    return torch.tensor(color, dtype=torch.float32).view(3, 1, 1)


def label_maps(labels: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return copies of the labels that are maps (H, W); a label of the whole image is none."""
    return {
        kind: torch.from_numpy(np.array(label)) for kind, label in labels.items() if label.ndim == 2
    }


def with_maps(
    labels: Mapping[str, NDArray[Any]], maps: Mapping[str, Tensor]
) -> dict[str, NDArray[Any]]:
    """Return the labels with their maps replaced."""
    return {**labels, **{kind: label.numpy() for kind, label in maps.items()}}


# ---------------------------------------------------------------- sizes
def shortest_side(size: Size, target: int, *, cap: int | None = None) -> Size:
    """Return the size (H, W) that keeps the ratio and has `target` as its shortest side.

    Args:
        size: Height and width.
        target: Shortest side of the result.
        cap: Largest allowed longest side; where it is exceeded, it decides instead.
    """
    scale = target / min(size)
    if cap is not None and max(size) * scale > cap:
        scale = cap / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def choose(choices: tuple[Any, ...], draw: float) -> Any:
    """Return the element that a number in [0, 1) stands for; all are equally likely."""
    return choices[min(int(draw * len(choices)), len(choices) - 1)]


# ---------------------------------------------------------------- label maps
def resize_label(label: Tensor, size: Size) -> Tensor:
    """Resize a label map (H, W) with nearest neighbor; see `cut_label`."""
    return torch.from_numpy(cut_label(label.numpy(), size))


def cut_label(label: NDArray[Any], size: Size, window: Window | None = None) -> NDArray[Any]:
    """Resize a label map (H, W) with nearest neighbor, and cut a window out of the result.

    A pixel shows the one under its center, of two neighbors the latter. decision: computed in whole
    numbers, since libraries decide such ties by rounding errors, other ones for each type.

    Args:
        label: Of any type; it is not changed, and the result shares no memory with it.
        size: (h, w) of the whole result.
        window: Rows and columns of it that are wanted; only these are looked up. None: all.
    """
    rows, columns = window or (slice(None), slice(None))
    if label.shape == size:
        return label[rows, columns].copy()
    height, width = label.shape
    across = label.take(_nearest(height, size[0])[rows], axis=0)
    return across.take(_nearest(width, size[1])[columns], axis=1)


def _nearest(length: int, target: int) -> NDArray[np.int64]:
    """Return which of `length` pixels in a row each of `target` pixels shows."""
    return (2 * np.arange(target, dtype=np.int64) + 1) * length // (2 * target)


def cover_label(label: Tensor, size: Size) -> Tensor:
    """Resize a binary map (H, W) so that thin strokes stay.

    A target pixel is 1 if any source pixel that it touches is 1, else void if any of them is void,
    else 0.
    """
    rank = torch.where(label == IGNORE_INDEX, 1, 2 * label.to(torch.int32)).to(torch.float32)
    best = torch.nn.functional.adaptive_max_pool2d(rank[None], size)[0]
    return torch.tensor([0, IGNORE_INDEX, 1], dtype=label.dtype)[best.to(torch.int64)]


def pad_label(label: Tensor, kind: str, size: Size, offset: Size = (0, 0)) -> Tensor:
    """Put a label map (h, w) into one of `size` that holds the void value of its kind elsewhere.

    offset: row and column of its first pixel there.
    """
    (top, left), (height, width) = offset, label.shape
    if size == (height, width):
        return label
    full = label.new_full(size, VOID.get(kind, IGNORE_INDEX))
    full[top : top + height, left : left + width] = label
    return full


def pad_image(image: Tensor, color: Tensor, size: Size, offset: Size = (0, 0)) -> Tensor:
    """Put an image (3, h, w) into one of `size` that has one color (3, 1, 1) elsewhere.

    The order in memory, planes or pixels, stays.
    """
    (top, left), (height, width) = offset, image.shape[-2:]
    if size == (height, width):
        return image
    if as_rows(image) is None:
        full = color.expand(3, *size).contiguous()
    else:  # the same order in memory
        row = color.flatten().repeat(size[1])
        full = row.repeat(size[0], 1).view(*size, 3).permute(2, 0, 1)
    full[:, top : top + height, left : left + width] = image
    return full


def window_of(size: Size, window: Size, draws: NDArray[np.float64]) -> Window:
    """Return rows and columns of a window inside of an image; all places are equally likely.

    Args:
        size: (H, W) of the image.
        window: (h, w); what exceeds the image is left out.
        draws: Two numbers in [0, 1), for row and column.
    """
    starts = [
        int(draw * (max(side - cut, 0) + 1))
        for draw, side, cut in zip(draws, size, window, strict=True)
    ]
    return slice(starts[0], starts[0] + window[0]), slice(starts[1], starts[1] + window[1])


# ---------------------------------------------------------------- normalization
def normalize_pixels(
    image: NDArray[Any],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    *,
    color: Color,
    size: Size,
    offset: Size = (0, 0),
    planar: bool = False,
) -> Tensor:
    """Return (image - mean) / std inside of a larger image that has one color elsewhere.

    decision: NumPy, on one thread. A band of rows passes all steps while it is in the cache, which
    takes a millisecond for 512x1024 pixels; and threads of torch that have just worked wait
    busily for a while, in the way of the threads of another engine that runs the network.

    Args:
        image: (h, w, 3) in 0-255, of any number type.
        mean: Of the channels, (3,).
        std: Likewise.
        color: Of the padding, in 0-255.
        size: (H, W) of the result.
        offset: Row and column of the first pixel of the image there.
        planar: Order the memory of the result in planes, not with the channels side by side.

    Returns:
        (3, H, W) float32.
    """
    (height, width), (top, left) = image.shape[:2], offset
    outside = (np.array(color, np.float32) - mean) / std
    if planar:
        full = np.empty((3, *size), np.float32)
        for c in range(3):
            inside = full[c, top : top + height, left : left + width]
            _normalize(image[..., c], full[c], inside, (mean[c], std[c], outside[c]))
        return torch.from_numpy(full)
    rows = np.empty((size[0], 3 * size[1]), np.float32)
    inside = rows[top : top + height, 3 * left : 3 * (left + width)]
    steps = (np.tile(mean, width), np.tile(std, width), np.tile(outside, size[1]))
    _normalize(image.reshape(height, 3 * width), rows, inside, steps)
    return torch.from_numpy(rows.reshape(*size, 3)).permute(2, 0, 1)


def _normalize(
    source: NDArray[Any],
    full: NDArray[np.float32],
    inside: NDArray[np.float32],
    steps: tuple[Any, Any, Any],
) -> None:
    """Fill `full`, and `inside`, a part of it, with what the source (h, w) becomes."""
    mean, std, outside = steps
    if full.shape != inside.shape:
        full[:] = outside
    for start in range(0, len(inside), BAND):
        band = inside[start : start + BAND]
        np.copyto(band, source[start : start + BAND], casting="same_kind")
        band -= mean
        band /= std
