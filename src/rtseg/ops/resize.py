"""Bring class scores to another resolution, and choose a class for every pixel there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.ops import native


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize scores bilinearly, corners not aligned, in float32.

    Args:
        logits: (B, K, h, w), any floating type.
        size: (H, W) wanted.

    Returns:
        (B, K, H, W) float32.
    """
    logits = logits.float()
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def resize_argmax(
    logits: Tensor, size: tuple[int, int], *, window: tuple[slice, slice] | None = None
) -> Tensor:
    """Resize scores as `resize_logits` does and return the best class of every pixel.

    On the processor a compiled kernel does both at once where it was built; elsewhere
    `resize_argmax_reference` does. They agree wherever the best two scores of a pixel differ by
    more than rounding errors.

    Args:
        logits: (B, K, h, w), any floating type. The lowest class id wins a tie; a score that is not
            a number wins over all others.
        size: (H, W) of the whole result.
        window: Rows and columns of it that are wanted, without steps; None: all.

    Returns:
        (B, H, W) class ids, or those of the window; uint8 up to 256 classes and int64 above.
    """
    if not native.usable(logits):
        return resize_argmax_reference(logits, size, window=window)
    rows, columns = window or (slice(None), slice(None))
    (top, bottom, _), (left, right, _) = rows.indices(size[0]), columns.indices(size[1])
    part = native.Window(top, left, bottom - top, right - left)
    if min(part.rows, part.columns) <= 0 or (rows.step or 1, columns.step or 1) != (1, 1):
        return resize_argmax_reference(logits, size, window=window)
    return native.resize_argmax(logits, size, part)


def resize_argmax_reference(
    logits: Tensor, size: tuple[int, int], *, window: tuple[slice, slice] | None = None
) -> Tensor:
    """Do what `resize_argmax` says in two steps of torch, on any device."""
    # Both steps run along the classes of a pixel, which channels-last keeps side by side.
    nearby = logits.contiguous(memory_format=torch.channels_last)
    classes = resize_logits(nearby, size).argmax(dim=1)
    if window is not None:
        classes = classes[:, window[0], window[1]]
    return classes.to(torch.uint8) if logits.shape[1] <= native.NARROW else classes
