"""Changes of color: HSV, and the photometric distortion of the SSD detector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DISTORT_DRAWS = 9
"""Random numbers that one call of `distort` needs."""
_HUE_STEPS, _HUE_LIMIT = (
    180,
    18,
)  # the circle of hues as 8-bit images store it, and the largest shift


def rgb_to_hsv(image: Tensor) -> Tensor:
    """Turn RGB (3, H, W) in 0..1 into hue, saturation and value, each in 0..1."""
    value, low = image.amax(0), image.amin(0)
    spread = value - low
    safe = torch.where(spread > 0, spread, 1.0)
    red, green, blue = image
    hue = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = spread / torch.where(value > 0, value, 1.0)
    return torch.stack([hue / 6, saturation, value])


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Turn hue (any number, a circle of length 1), saturation and value into RGB in 0..1."""
    hue, saturation, value = hsv
    channels = []
    for shift in (5, 3, 1):
        place = (shift + 6 * hue) % 6
        strength = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value - value * saturation * strength)
    return torch.stack(channels)


def distort(image: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Change brightness, contrast, saturation and hue, each with probability one half.

    Brightness is shifted by up to 32 of 255, contrast (about black) and saturation are multiplied
    by 0.5 to 1.5, the hue is turned by up to 18 of 180 steps. Contrast comes before saturation and
    hue, or after them, with equal probability.

    Args:
        image: float32 (3, H, W) RGB in 0-255.
        draws: `DISTORT_DRAWS` numbers in [0, 1).

    Source: Liu et al., SSD: Single Shot MultiBox Detector (2016), and its public code. decision:
    values stay fractions between the steps, where that code rounds to whole numbers.
    """
    on = [bool(draw < 0.5) for draw in draws[0::2]]  # brightness, contrast, saturation, hue, late
    shift = 64 * draws[1] - 32 if on[0] else 0.0
    contrast = 0.5 + draws[3] if on[1] else 1.0
    late = on[4]
    image = (image + shift).clamp(0, 255)
    if not late:
        image = (image * contrast).clamp(0, 255)
    if on[2] or on[3]:
        hsv = rgb_to_hsv(image / 255)
        if on[2]:
            hsv[1] = (hsv[1] * (0.5 + draws[5])).clamp(0, 1)
        if on[3]:
            hsv[0] += (int(draws[7] * (2 * _HUE_LIMIT + 1)) - _HUE_LIMIT) / _HUE_STEPS
        image = hsv_to_rgb(hsv) * 255
    return (image * contrast).clamp(0, 255) if late else image
