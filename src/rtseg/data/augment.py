"""Random scale, color, crop and mirror.

Every number is drawn from the generator that is given, in a fixed order, so that a (seed, epoch,
index) triple always gives the same crop, whichever process computes it. Labels are resized with
nearest neighbour only.

What is drawn is one `Change`. It can be applied to the image here or, with the images of a batch
in one place, on another device (`rtseg.data.batch_augment`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from rtseg.data.color import DISTORT_DRAWS, distort
from rtseg.data.pixels import (
    Color,
    Size,
    Window,
    choose,
    column,
    cut_label,
    pad_image,
    pad_label,
    shortest_side,
    to_tensor,
    window_of,
    with_maps,
)
from rtseg.errors import ConfigError, DataError
from rtseg.structures import IGNORE_INDEX, Sample

_FIRST = 8  # scale, brightness, contrast, saturation, hue, row and column of the crop, mirror
_MORE_CROPS = 10
DRAWS = _FIRST + DISTORT_DRAWS + 2 * _MORE_CROPS + 1  # the last one: whether colors change
"""Random numbers that one sample takes, whatever the switches are."""


@dataclass(frozen=True)
class Change:
    """What happens to one sample, to its image and to its labels alike.

    size: (H, W) that it is scaled to. window: rows and columns of the crop in there; they may lead
    beyond it, and None is all of it. mirror: whether left and right change places. recolor: whether
    brightness, contrast, saturation and hue change. draws: numbers in [0, 1), `DRAWS` of them, of
    which the changes of color take theirs.
    """

    size: Size
    window: Window | None
    mirror: bool
    recolor: bool
    draws: NDArray[np.float64]


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
    change; hue: largest shift, as a share of the circle (0 to 0.5); recolor: probability that an
    image is changed in these at all. distort: the photometric distortion of
    `rtseg.data.color.distort`; padding keeps its color.
    """

    crop: Size | None = None
    scales: tuple[float, ...] | None = None
    scale_range: tuple[float, float] | None = None
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    recolor: float = 1.0
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
        if not (0 <= self.flip <= 1 and 0 <= self.recolor <= 1 and 0 <= self.hue <= 0.5):
            raise _refusal(
                f"flip {self.flip} and recolor {self.recolor} must lie in 0..1 and hue {self.hue} "
                "in 0..0.5",
                "0.5 mirrors, or recolors, every second image",
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
        change, labels = self.draw(sample, rng)
        image = self.picture(to_tensor(sample.image), change, padding_color=padding_color)
        return replace(sample, image=image.permute(1, 2, 0).numpy(), labels=labels)

    def draw(
        self, sample: Sample, rng: np.random.Generator
    ) -> tuple[Change, dict[str, NDArray[Any]]]:
        """Return what happens to a sample, and its labels after that.

        Args:
            sample: As read.
            rng: Source of every random number; `DRAWS` are drawn for each sample.

        Raises:
            DataError: `max_class_share` is set and the sample has no semantic labels.
        """
        draws = rng.random(DRAWS)
        size = self._scaled((sample.image.shape[0], sample.image.shape[1]), draws[0])
        window = None
        if self.crop is not None:
            places = np.concatenate([draws[5:7], draws[_FIRST + DISTORT_DRAWS : -1]])
            window = self._window(sample, self.crop, size, places.reshape(-1, 2))
        mirror, recolor = bool(draws[7] < self.flip), bool(draws[-1] < self.recolor)
        change = Change(size, window, mirror, recolor, draws)
        maps = {
            kind: self._changed_label(label, kind, change)
            for kind, label in sample.labels.items()
            if label.ndim == 2
        }
        return change, with_maps(sample.labels, maps)

    def _changed_label(self, label: NDArray[Any], kind: str, change: Change) -> Tensor:
        changed = torch.from_numpy(cut_label(label, change.size, change.window))
        if self.crop is not None:
            changed = pad_label(changed, kind, self.crop)
        return changed.flip(-1) if change.mirror else changed

    def picture(self, image: Tensor, change: Change, *, padding_color: Color) -> Tensor:
        """Return an image after a change, float32 (3, h, w) in 0-255, on its own device.

        Args:
            image: (3, H, W) as read, in 0-255.
            change: What `draw` has returned for its sample.
            padding_color: As in `__call__`.
        """
        if change.size != image.shape[-2:]:
            image = F.resize(image, list(change.size), antialias=True)
        if change.recolor:  # before the crop: contrast is about the mean of the whole image
            image = self._photometric(image, change.draws[1:5])
        if change.window is not None:
            image = image[(slice(None), *change.window)]
        image = image.to(torch.float32, memory_format=torch.contiguous_format)
        if self.distort:
            image = distort(image, change.draws[_FIRST : _FIRST + DISTORT_DRAWS])
        if self.crop is not None:
            color = column(padding_color if self.pad_value is None else self.pad_value)
            image = pad_image(image, color.to(image.device), self.crop)
        return image.flip(-1) if change.mirror else image

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
        self, sample: Sample, crop: Size, size: Size, places: NDArray[np.float64]
    ) -> Window:
        """Return rows and columns of the crop; the last one is taken if none is mixed enough."""
        if self.max_class_share is None:
            return window_of(size, crop, places[0])
        if "semantic" not in sample.labels:
            raise DataError(
                "has no semantic labels, which max_class_share needs",
                where=sample.path,
                fix="remove data.augment.max_class_share",
            )
        for place in places:
            window = window_of(size, crop, place)
            inside = cut_label(sample.labels["semantic"], size, window)
            counts = np.bincount(inside[inside != IGNORE_INDEX])
            total = int(counts.sum())
            if total and counts.max() <= self.max_class_share * total:
                break
        return window


def _refusal(what: str, fix: str, *, key: str = "") -> ConfigError:
    return ConfigError(what, where=f"data.augment{key}", fix=fix)
