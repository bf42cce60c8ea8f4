"""Bring class scores to another resolution, and choose a class for every pixel there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def resize_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize scores as `resize_logits` does and return the best class of every pixel.

    Args:
        logits: (B, K, h, w), any floating type. The lowest class id wins a tie.
        size: (H, W) wanted.

    Returns:
        (B, H, W) class ids, uint8 up to 256 classes and int64 above.
    """
    # Both steps run along the classes of a pixel, which channels-last keeps side by side.
    nearby = logits.contiguous(memory_format=torch.channels_last)
    classes = resize_logits(nearby, size).argmax(dim=1)
    return classes.to(torch.uint8) if logits.shape[1] <= 256 else classes
