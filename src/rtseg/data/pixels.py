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
