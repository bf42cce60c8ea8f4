"""Random scale, color, crop and mirror.

Every number is drawn from the generator that is given, in a fixed order, so that a (seed, epoch,
index) triple always gives the same crop, whichever process computes it. Labels are resized with
nearest neighbour only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from rtseg.data.color import DISTORT_DRAWS, distort
from rtseg.data.pixels import (
    Color,
    Size,
    choose,
    column,
    label_maps,
    pad_image,
    pad_label,
    resize_label,
    shortest_side,
    to_tensor,
    window_of,
    with_maps,
)
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, Sample

_FIRST = 8  # scale, brightness, contrast, saturation, hue, row and column of the crop, mirror
_MORE_CROPS = 10
DRAWS = _FIRST + DISTORT_DRAWS + 2 * _MORE_CROPS
"""Random numbers that one sample takes, whatever the switches are."""


@dataclass(frozen=True)
class Augment:
    """Random scale, photometric change, crop and mirror, in this order.

    scales: factors of which one is chosen uniformly. scale_range: bounds of a continuous uniform
    factor instead. base_size: the factor counts from the size at which the image, ratio kept, fits
    these two sides, the longer into the larger number, the shorter into the smaller.
    short_side: lengths of which one is chosen; the shortest side gets it, whatever it was before.
    max_long_side: the longest side that this may give.
    crop: (h, w) of the result; smaller images are padded below and at the right with `pad_value`
    and void labels. pad_value: RGB in 0-255 (default: the padding color of the preprocessing).
    max_class_share: the crop is drawn again, at most 10 times, while one semantic class covers more
    than this share of its labelled pixels.
    flip: probability of a horizontal mirror. brightness, contrast, saturation: largest relative
    change; hue: largest shift, as a share of the circle (0 to 0.5). distort: the photometric
    distortion of `rtseg.data.color.distort`; padding keeps its color.
    """

    crop: Size | None = None
    scales: tuple[float, ...] | None = None
    scale_range: tuple[float, float] | None = None
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    base_size: Size | None = None
    short_side: tuple[int, ...] | None = None
    max_long_side: int | None = None
    max_class_share: float | None = None
    distort: bool = False
    pad_value: Color | None = None

    def __post_init__(self) -> None:
        self._require_one_scale_rule()
        cap = () if self.max_long_side is None else (self.max_long_side,)
        lengths = (*(self.crop or ()), *(self.base_size or ()), *(self.short_side or ()), *cap)
        if min(lengths, default=1) < 1 or min(self._factors) <= 0:
            raise _refusal(
                "sizes and scale factors must be positive", "leave out what is not wanted"
            )
        if self.scale_range is not None and self.scale_range[0] > self.scale_range[1]:
            raise _refusal(
                f"{list(self.scale_range)} falls", "give the lower bound first", key=".scale_range"
            )
        if min(self.brightness, self.contrast, self.saturation) < 0:
            raise _refusal(
                "brightness, contrast and saturation must not be negative",
                "0.2 changes by up to 20 %",
            )
        if not 0 <= self.flip <= 1 or not 0 <= self.hue <= 0.5:
            raise _refusal(
                f"flip {self.flip} must lie in 0..1 and hue {self.hue} in 0..0.5",
                "0.5 mirrors every second image",
            )
        if self.max_class_share is not None and not (self.crop and 0 < self.max_class_share <= 1):
            raise _refusal(
                f"max_class_share {self.max_class_share} needs a crop and must lie in 0..1",
                "0.75 refuses crops of which more than 75 % are one class",
            )

    def _require_one_scale_rule(self) -> None:
        if self.scales is not None and self.scale_range is not None:
            raise _refusal(
                "scales and scale_range exclude each other",
                "give a list of factors or two bounds, not both",
            )
        if self.short_side == () or self.scales == ():
            raise _refusal(
                "short_side and scales must not be empty", "leave out what is not wanted"
            )
        others = (self.scales, self.scale_range, self.base_size)
        if self.short_side is not None and any(other is not None for other in others):
            raise _refusal(
                "short_side excludes scales, scale_range and base_size",
                "give lengths of the shortest side or factors, not both",
            )
        if self.max_long_side is not None and self.short_side is None:
            raise _refusal("max_long_side caps short_side, which is missing", "add short_side")

    @property
    def _factors(self) -> tuple[float, ...]:
        return self.scales or self.scale_range or (1.0,)

    def __call__(self, sample: Sample, rng: np.random.Generator, *, padding_color: Color) -> Sample:
        """Return the augmented sample: image float32 (h, w, 3) in 0-255, labels of the same size.

        Args:
            sample: Image uint8 (H, W, 3) and labels (H, W).
            rng: Source of every random number; `DRAWS` are drawn for each sample.
            padding_color: RGB in 0-255 for pixels outside the image, unless `pad_value` is given.

        Raises:
            DataError: `max_class_share` is set and the sample has no semantic labels.
        """
        draws = rng.random(DRAWS)
        image, labels = to_tensor(sample.image), label_maps(sample.labels)
        source = (image.shape[-2], image.shape[-1])
        size = self._scaled(source, draws[0])
        if size != source:
            image = F.resize(image, list(size), antialias=True)
            labels = {kind: resize_label(label, size) for kind, label in labels.items()}
        image = self._photometric(image, draws[1:5]).to(torch.float32)
        if self.crop is not None:
            places = np.concatenate([draws[5:7], draws[_FIRST + DISTORT_DRAWS :]])
            window = self._window(sample, labels, size, places.reshape(-1, 2))
            image = image[(slice(None), *window)]
            labels = {kind: label[window] for kind, label in labels.items()}
        if self.distort:
            image = distort(image, draws[_FIRST : _FIRST + DISTORT_DRAWS])
        if self.crop is not None:
            color = column(padding_color if self.pad_value is None else self.pad_value)
            image = pad_image(image, color, self.crop)
            labels = {kind: pad_label(label, kind, self.crop) for kind, label in labels.items()}
        if draws[7] < self.flip:
            image = image.flip(-1)
            labels = {kind: label.flip(-1) for kind, label in labels.items()}
        return replace(
            sample, image=image.permute(1, 2, 0).numpy(), labels=with_maps(sample.labels, labels)
        )

    def _scaled(self, source: Size, draw: float) -> Size:
        """Return the size that an image gets before the crop."""
        if self.short_side is not None:
            target = choose(self.short_side, draw)
            return shortest_side(source, target, cap=self.max_long_side)
        factor = 1.0
        if self.scales is not None:
            factor = choose(self.scales, draw)
        elif self.scale_range is not None:
            low, high = self.scale_range
            factor = float(low + (high - low) * draw)
        if self.base_size is not None:
            base = self.base_size
            factor *= min(max(base) / max(source), min(base) / min(source))
        return max(1, round(source[0] * factor)), max(1, round(source[1] * factor))

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

    def _window(
        self,
        sample: Sample,
        labels: Mapping[str, Tensor],
        size: Size,
        places: NDArray[np.float64],
    ) -> tuple[slice, slice]:
        """Return rows and columns of the crop; the last one is taken if none is mixed enough."""
        assert self.crop is not None
        if self.max_class_share is None:
            return window_of(size, self.crop, places[0])
        if "semantic" not in labels:
            raise DataError(
                "has no semantic labels, which max_class_share needs",
                where=sample.path,
                fix="remove data.augment.max_class_share",
            )
        for place in places:
            window = window_of(size, self.crop, place)
            inside = labels["semantic"][window]
            counts = torch.bincount(inside[inside != IGNORE_INDEX])
            total = int(counts.sum())
            if total and int(counts.max()) <= self.max_class_share * total:
                break
        return window


def _refusal(what: str, fix: str, *, key: str = "") -> ConfigError:
    return ConfigError(what, where=f"data.augment{key}", fix=fix)
