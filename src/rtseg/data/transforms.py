"""From a sample as read to the tensor that a network sees: random augmentation, then preprocessing.

Augmentation draws every number from the generator it is given, in a fixed order, so that a (seed,
epoch, index) triple always gives the same crop, whichever process computes it. Labels are resized
with nearest neighbour only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from rtseg.errors import ConfigError
from rtseg.structures import IGNORE_INDEX, ImageMeta, Sample

VOID = {"panoptic": 0}
"""Label value of padded pixels by kind; all other kinds use `IGNORE_INDEX`."""


class Fitted(NamedTuple):
    """A network's input, float32 (3, h, w), normalized and padded, and where it came from."""

    image: Tensor
    meta: ImageMeta


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the input of a network; part of recipe and checkpoint, in units of 0-255.

    mean, std: per channel (RGB). pad_value: what padding holds before normalization (default: the
    mean, so 0 after it).
    stride: height and width are padded at the bottom and right to a multiple of it. size: (h, w)
    that every image is resized to, bilinear, or None for its own size.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_value: tuple[float, float, float] | None = None
    stride: int = 32
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.stride, *self.std, *(self.size or ())) <= 0:
            raise ConfigError(
                f"stride {self.stride}, std {self.std} and size {self.size} must be positive",
                where="data.preprocess",
                fix="use stride 1 for no padding and std 1 for no scaling",
            )

    @property
    def padding_color(self) -> tuple[float, float, float]:
        """What padded pixels hold before normalization, in 0-255."""
        return self.mean if self.pad_value is None else self.pad_value

    def normalize(self, image: Tensor) -> Tensor:
        """Return (image - mean) / std as float32; image (..., 3, H, W) in 0-255."""
        mean, std = _column(self.mean).to(image.device), _column(self.std).to(image.device)
        return (image.to(torch.float32) - mean) / std

    def fit(self, image: NDArray[Any], *, path: str = "") -> Fitted:
        """Resize by the size rule, normalize, and pad to the stride.

        Args:
            image: (H, W, 3) RGB in 0-255, uint8 or float32.
            path: Kept in the result's meta.
        """
        height, width = image.shape[:2]
        tensor = _to_tensor(image)
        if self.size is not None:
            tensor = F.resize(tensor, list(self.size), antialias=True)
        h, w = tensor.shape[-2:]
        bottom, right = -h % self.stride, -w % self.stride
        tensor = self.normalize(tensor)
        if bottom or right:
            color = self.normalize(_column(self.padding_color))
            padded = color.expand(3, h + bottom, w + right).clone()
            padded[:, :h, :w] = tensor
            tensor = padded
        return Fitted(tensor, ImageMeta(path, (height, width), (h, w), (bottom, right)))

    def fit_labels(
        self, labels: Mapping[str, NDArray[Any]], meta: ImageMeta
    ) -> dict[str, NDArray[Any]]:
        """Bring the labels (H, W) of a training image to the size that `fit` gave the image.

        Args:
            labels: Maps by kind, all of the size of the image.
            meta: What `fit` returned for the image.

        Returns:
            Maps of the size of the network's input: nearest neighbour, void where it is padded.
        """
        fitted = {}
        for kind, label in labels.items():
            full = torch.from_numpy(np.array(label))
            if meta.input_size != meta.source_size:
                full = _resize_label(full, list(meta.input_size))
            fitted[kind] = _pad_label(full, kind, meta.padding).numpy()
        return fitted


@dataclass(frozen=True)
class Augment:
    """Random scale, photometric change, crop and mirror, in this order.

    scales: factors of which one is chosen uniformly. scale_range: bounds of a continuous uniform
    factor instead.
    crop: (h, w) of the result; smaller images are padded below and at the right with
    `padding_color` and void labels.
    flip: probability of a horizontal mirror. brightness, contrast, saturation: largest relative
    change; hue: largest shift, as a share of the circle (0 to 0.5).
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, ...] | None = None
    scale_range: tuple[float, float] | None = None
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if self.scales is not None and self.scale_range is not None:
            raise ConfigError(
                "scales and scale_range exclude each other",
                where="data.augment",
                fix="give a list of factors or two bounds, not both",
            )
        if min(self.crop or (1,)) < 1 or min(self.scales or self.scale_range or (1,)) <= 0:
            raise ConfigError(
                "crop and scale factors must be positive",
                where="data.augment",
                fix="leave out what is not wanted",
            )
        if self.scale_range is not None and self.scale_range[0] > self.scale_range[1]:
            raise ConfigError(
                f"{list(self.scale_range)} falls",
                where="data.augment.scale_range",
                fix="give the lower bound first",
            )
        if min(self.brightness, self.contrast, self.saturation) < 0:
            raise ConfigError(
                "brightness, contrast and saturation must not be negative",
                where="data.augment",
                fix="0.2 changes by up to 20 %",
            )
        if not 0 <= self.flip <= 1 or not 0 <= self.hue <= 0.5:
            raise ConfigError(
                f"flip {self.flip} must lie in 0..1 and hue {self.hue} in 0..0.5",
                where="data.augment",
                fix="0.5 mirrors every second image",
            )

    def __call__(
        self,
        sample: Sample,
        rng: np.random.Generator,
        *,
        padding_color: tuple[float, float, float],
    ) -> Sample:
        """Return the augmented sample: image float32 (h, w, 3) in 0-255, labels of the same size.

        Args:
            sample: Image uint8 (H, W, 3) and labels (H, W).
            rng: Source of every random number; 8 are drawn for each sample whatever the switches
                are.
            padding_color: RGB in 0-255 for pixels outside the image.
        """
        draws = rng.random(8)
        image = _to_tensor(sample.image)
        labels = {kind: torch.from_numpy(np.array(label)) for kind, label in sample.labels.items()}
        factor = self._factor(draws[0])
        if factor != 1.0:
            size = [max(1, round(side * factor)) for side in image.shape[-2:]]
            image = F.resize(image, size, antialias=True)
            labels = {kind: _resize_label(label, size) for kind, label in labels.items()}
        image = self._photometric(image, draws[1:5]).to(torch.float32)
        if self.crop is not None:
            image, labels = _crop(image, labels, self.crop, draws[5:7], padding_color)
        if draws[7] < self.flip:
            image = image.flip(-1)
            labels = {kind: label.flip(-1) for kind, label in labels.items()}
        arrays = {kind: label.numpy() for kind, label in labels.items()}
        return replace(sample, image=image.permute(1, 2, 0).numpy(), labels=arrays)

    def _factor(self, draw: float) -> float:
        if self.scales is not None:
            return self.scales[min(int(draw * len(self.scales)), len(self.scales) - 1)]
        if self.scale_range is not None:
            low, high = self.scale_range
            return float(low + (high - low) * draw)
        return 1.0

    def _photometric(self, image: Tensor, draws: NDArray[np.float64]) -> Tensor:
        brightness, contrast, saturation, hue = (2 * float(draw) - 1 for draw in draws)
        if self.brightness:
            image = F.adjust_brightness(image, 1 + self.brightness * brightness)
        if self.contrast:
            image = F.adjust_contrast(image, 1 + self.contrast * contrast)
        if self.saturation:
            image = F.adjust_saturation(image, 1 + self.saturation * saturation)
        if self.hue:
            image = F.adjust_hue(image, self.hue * hue)
        return image


def _to_tensor(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _column(color: tuple[float, float, float]) -> Tensor:
    """Return a color as float32 (3, 1, 1); whole numbers must not make an integer tensor."""
    return torch.tensor(color, dtype=torch.float32).view(3, 1, 1)


def _resize_label(label: Tensor, size: list[int]) -> Tensor:
    resized: Tensor = F.resize(label[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
    return resized


def _pad_label(label: Tensor, kind: str, padding: tuple[int, int]) -> Tensor:
    """Add rows below and columns at the right that hold the void value of a label kind."""
    height, width = label.shape
    full = label.new_full((height + padding[0], width + padding[1]), VOID.get(kind, IGNORE_INDEX))
    full[:height, :width] = label
    return full


def _crop(
    image: Tensor,
    labels: Mapping[str, Tensor],
    crop: tuple[int, int],
    draws: NDArray[np.float64],
    padding_color: tuple[float, float, float],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cut a window of size `crop`; padding begins below and at the right of the image."""
    height, width = image.shape[-2:]
    top = int(draws[0] * (max(height - crop[0], 0) + 1))
    left = int(draws[1] * (max(width - crop[1], 0) + 1))
    inside = (slice(top, top + crop[0]), slice(left, left + crop[1]))
    window = image[(slice(None), *inside)]
    h, w = window.shape[-2:]
    padded = _column(padding_color).expand(3, *crop).clone()
    padded[:, :h, :w] = window
    padding = (crop[0] - h, crop[1] - w)
    cut = {kind: _pad_label(label[inside], kind, padding) for kind, label in labels.items()}
    return padded, cut
