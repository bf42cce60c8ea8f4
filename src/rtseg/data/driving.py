"""The augmentation of TwinMixing: affine, HSV, mirror, two blurs, window.

Source: TwinMixing, section on data augmentation, with the numbers of its released code where the
paper names a step only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from rtseg.data.color import hsv_to_rgb, rgb_to_hsv
from rtseg.data.pixels import (
    BINARY_KINDS,
    VOID,
    Color,
    label_maps,
    to_tensor,
    window_of,
    with_maps,
)
from rtseg.errors import ConfigError
from rtseg.structures import IGNORE_INDEX, Sample

DRAWS = 17
"""Random numbers that one sample takes, whatever the switches are."""
_SMALLEST_WINDOW = 5  # of the bilateral filter, in pixels


@dataclass(frozen=True)
class Driving:
    """Affine change, HSV, mirror, bilateral blur, Gaussian blur and window, in this order.

    affine, hsv, flip, bilateral, gaussian, window: probability of each step.
    degrees: largest rotation. zoom, shift: largest relative change of size about the center, and
    largest translation as a share of each side; pixels from outside get the padding color of the
    preprocessing, 0 in binary label maps and void in others.
    hue, saturation, value: largest relative change of each; hue goes round, the others are clipped.
    bilateral_sigma, gaussian_sigma: bounds of the spatial widths, in pixels.
    window_share: size of the window, as a share of each side: 540 of 720 and 960 of 1280.
    """

    affine: float = 0.5
    degrees: float = 5.0
    zoom: float = 0.2
    shift: float = 0.1
    hsv: float = 0.5
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    flip: float = 0.5
    bilateral: float = 0.1
    bilateral_sigma: tuple[float, float] = (0.05, 1.0)
    gaussian: float = 0.1
    gaussian_sigma: tuple[float, float] = (0.15, 1.3)
    window: float = 0.1
    window_share: float = 0.75

    def __post_init__(self) -> None:
        chances = {
            name: getattr(self, name)
            for name in ("affine", "hsv", "flip", "bilateral", "gaussian", "window")
        }
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise _refusal(f"{name} {chance} is no probability", "use 0 to leave it out")
        if min(self.degrees, self.shift, self.hue, self.saturation, self.value) < 0:
            raise _refusal("largest changes must not be negative", "use 0 for none")
        if not (0 <= self.zoom < 1 and 0 < self.window_share <= 1):
            raise _refusal(
                f"zoom {self.zoom} and window_share {self.window_share} must lie in 0..1",
                "0.2 zooms by up to 20 %; 0.75 cuts three quarters of each side",
            )
        for low, high in (self.bilateral_sigma, self.gaussian_sigma):
            if not 0 < low <= high:
                raise _refusal(f"blur from {low} to {high} pixels", "give two rising widths")

    def __call__(self, sample: Sample, rng: np.random.Generator, *, padding_color: Color) -> Sample:
        """Return the augmented sample: image float32 (h, w, 3) in 0-255, labels of the same size.

        Args:
            sample: Image uint8 (H, W, 3) and labels (H, W).
            rng: Source of every random number; `DRAWS` are drawn for each sample.
            padding_color: RGB in 0-255 for pixels outside the image.
        """
        draws = rng.random(DRAWS)
        image = to_tensor(sample.image).to(torch.float32)
        labels = label_maps(sample.labels)
        if draws[0] < self.affine:
            image, labels = self._moved(image, labels, draws[1:5], padding_color)
        if draws[5] < self.hsv:
            image = self._recolored(image, draws[6:9])
        if draws[9] < self.flip:
            image = image.flip(-1)
            labels = {kind: label.flip(-1) for kind, label in labels.items()}
        if draws[10] < self.bilateral:
            image = bilateral_blur(image, _between(self.bilateral_sigma, draws[11]))
        if draws[12] < self.gaussian:
            image = gaussian_blur(image, _between(self.gaussian_sigma, draws[13]))
        if draws[14] < self.window:
            size = (image.shape[-2], image.shape[-1])
            part = (round(size[0] * self.window_share), round(size[1] * self.window_share))
            window = window_of(size, part, draws[15:17])
            image = image[(slice(None), *window)]
            labels = {kind: label[window].contiguous() for kind, label in labels.items()}
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        return replace(sample, image=pixels, labels=with_maps(sample.labels, labels))

    def _moved(
        self,
        image: Tensor,
        labels: dict[str, Tensor],
        draws: NDArray[np.float64],
        color: Color,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rotate and zoom about the center, then translate; bilinear, labels nearest."""
        turn, zoom, across, down = (2 * float(draw) - 1 for draw in draws)
        height, width = image.shape[-2:]
        change = {
            "angle": self.degrees * turn,
            "translate": [self.shift * across * width, self.shift * down * height],
            "scale": 1 + self.zoom * zoom,
            "shear": [0.0, 0.0],
        }
        moved: Tensor = F.affine(
            image, **change, interpolation=InterpolationMode.BILINEAR, fill=list(color)
        )
        maps = {}
        for kind, label in labels.items():
            fill = 0 if kind in BINARY_KINDS else VOID.get(kind, IGNORE_INDEX)
            maps[kind] = F.affine(label[None], **change, fill=[fill])[0]
        return moved, maps

    def _recolored(self, image: Tensor, draws: NDArray[np.float64]) -> Tensor:
        limits = (self.hue, self.saturation, self.value)
        factors = [1 + limit * (2 * draw - 1) for limit, draw in zip(limits, draws, strict=True)]
        hue, saturation, value = rgb_to_hsv(image / 255)
        changed = [hue * factors[0], (saturation * factors[1]).clamp(0, 1)]
        return hsv_to_rgb(torch.stack([*changed, (value * factors[2]).clamp(0, 1)])) * 255


def _between(bounds: tuple[float, float], draw: float) -> float:
    return float(bounds[0] + (bounds[1] - bounds[0]) * draw)


def _refusal(what: str, fix: str) -> ConfigError:
    return ConfigError(what, where="data.augment", fix=fix)


def bilateral_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur an image but for its edges: near pixels count by distance and by likeness of color.

    The window is max(5, 2 ceil(3 sigma) + 1) pixels wide; the width of the color weight is the
    standard deviation of all values of the image. decision: beyond its border the image is
    mirrored, where the filter that the released code calls sees black.

    Args:
        image: float32 (3, H, W) in 0-255.
        sigma: Width of the spatial weight in pixels.

    Source: Tomasi and Manduchi, Bilateral filtering for gray and color images (1998).
    """
    width = float(image.std(correction=0))
    if width == 0:
        return image
    reach = max(_SMALLEST_WINDOW, 2 * math.ceil(3 * sigma) + 1) // 2
    height, length = image.shape[-2:]
    around = _mirrored(image, reach)
    total, weights = torch.zeros_like(image), torch.zeros_like(image[:1])
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            shifted = around[:, row : row + height, column : column + length]
            far = ((row - reach) ** 2 + (column - reach) ** 2) / (2 * sigma**2)
            unlike = (shifted - image).square().sum(0, keepdim=True) / (2 * width**2)
            weight = torch.exp(-unlike - far)
            total += weight * shifted
            weights += weight
    return total / weights


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur an image (3, H, W) with a Gaussian of `sigma` pixels, cut off at four of them."""
    reach = int(4 * sigma + 0.5)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-places.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    around = _mirrored(image, reach)[:, None]  # (3, 1, H + 2r, W + 2r)
    blurred = torch.nn.functional.conv2d(around, kernel.view(1, 1, -1, 1))
    return torch.nn.functional.conv2d(blurred, kernel.view(1, 1, 1, -1))[:, 0]


def _mirrored(image: Tensor, reach: int) -> Tensor:
    padded: Tensor = F.pad(image, [reach] * 4, padding_mode="symmetric")
    return padded
