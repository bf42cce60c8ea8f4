"""The augmentation of image classifiers: a random part of the image, and a mirror."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as F

from rtseg.data.pixels import Color, Size, to_tensor, window_of
from rtseg.errors import ConfigError
from rtseg.structures import Sample

_TRIES = 10
DRAWS = 2 * _TRIES + 3
"""Random numbers that one sample takes, whatever the switches are."""


@dataclass(frozen=True)
class RandomPart:
    """Cut a window of random area and shape, resize it to a square, mirror it by chance.

    size: side of the result. area: bounds of the window's share of the image. ratio: bounds of its
    width over its height, drawn on a logarithmic scale. Ten windows are tried; if none of them fits
    into the image, the largest one in its middle that obeys `ratio` is taken.
    flip: probability of a horizontal mirror.

    Source: Szegedy et al., Going deeper with convolutions (2015), section on training.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        rising = all(0 < low <= high for low, high in (self.area, self.ratio))
        if self.size < 1 or not rising or self.area[1] > 1 or not 0 <= self.flip <= 1:
            raise ConfigError(
                f"size {self.size}, area {list(self.area)}, ratio {list(self.ratio)} or flip "
                f"{self.flip} is out of range",
                where="data.augment",
                fix="give rising bounds, areas up to 1 and a probability",
            )

    def __call__(
        self,
        sample: Sample,
        rng: np.random.Generator,
        *,
        padding_color: Color,  # noqa: ARG002 - no pixel lies outside of the image
    ) -> Sample:
        """Return the augmented sample: image float32 (size, size, 3) in 0-255.

        Args:
            sample: Image uint8 (H, W, 3) with labels of the whole image only.
            rng: Source of every random number; `DRAWS` are drawn for each sample.
            padding_color: Not used.

        Raises:
            ConfigError: The sample has label maps.
        """
        maps = [kind for kind, label in sample.labels.items() if label.ndim == 2]
        if maps:
            raise ConfigError(
                f"`classification` cannot change the {maps[0]} labels of {sample.path}",
                where="data.augment.name",
                fix="use `crop` for label maps",
            )
        draws = rng.random(DRAWS)
        source = (sample.image.shape[0], sample.image.shape[1])
        rows, columns = self._window(source, draws)
        image = to_tensor(sample.image[rows, columns])
        image = F.resize(image, [self.size, self.size], antialias=True).to(torch.float32)
        if draws[-1] < self.flip:
            image = image.flip(-1)
        return replace(sample, image=image.permute(1, 2, 0).numpy())

    def _window(self, source: Size, draws: NDArray[np.float64]) -> tuple[slice, slice]:
        height, width = source
        low, high = (math.log(bound) for bound in self.ratio)
        for first, second in draws[: 2 * _TRIES].reshape(-1, 2):
            area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * first)
            ratio = math.exp(low + (high - low) * second)
            part = (round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))
            if 0 < part[0] <= height and 0 < part[1] <= width:
                return window_of(source, part, draws[2 * _TRIES : 2 * _TRIES + 2])
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        part = (min(height, round(width / ratio)), min(width, round(height * ratio)))
        return window_of(source, part, np.array([0.5, 0.5]))
