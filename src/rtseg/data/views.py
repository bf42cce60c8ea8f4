"""Looks at an image: smaller, larger or mirrored, each as the network would have been given it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rtseg.data.pixels import Size
from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError
from rtseg.structures import ImageMeta


class View(NamedTuple):
    """One look at an image.

    image: float32 (3, h, w), normalized and padded. meta: how the image was fitted into it.
    mirrored: whether left and right were swapped before.
    """

    image: Tensor
    meta: ImageMeta
    mirrored: bool = False


@dataclass(frozen=True)
class Views:
    """At which sizes, and from which sides, a network looks at an image.

    Every view is made of the source image, so that it equals the input that the resized or mirrored
    image would have given.

    scale: factor on the size that the preprocessing gives an image, such as 0.75 for frames of
        Cityscapes at 768x1536.
    scales: further factors on it; there is one view for each.
    flip: also look at the mirrored image, at every size.

    Raises:
        ConfigError: A factor is not above 0, or there is none.
    """

    scale: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales:
            raise ConfigError("no scale is given", where="scales", fix="use 1")
        for factor in (self.scale, *self.scales):
            if not (math.isfinite(factor) and factor > 0):
                raise ConfigError(f"scale is {factor:g}", where="scale", fix="use a factor above 0")

    @property
    def factors(self) -> tuple[float, ...]:
        """The factor on the size of the preprocessing, of each size that is looked at."""
        return tuple(self.scale * factor for factor in self.scales)

    def __len__(self) -> int:
        return len(self.scales) * (1 + self.flip)

    def fit(self, preprocess: Preprocess, image: NDArray[Any], *, path: str = "") -> list[View]:
        """Return all views of an image, size by size.

        Args:
            preprocess: Size rule, normalization and padding of the network.
            image: (H, W, 3) RGB in 0-255, uint8 or float32.
            path: Kept in the meta of the views.

        Raises:
            ConfigError: The size rule leaves no room for another size.
        """
        source = (image.shape[0], image.shape[1])
        rules = [scaled(preprocess, factor, source) for factor in self.factors]
        sides = [(image, False)]
        if self.flip:
            sides.append((np.ascontiguousarray(image[:, ::-1]), True))
        return [
            View(*rule.fit(side, path=path), mirrored) for rule in rules for side, mirrored in sides
        ]


ONE_VIEW = Views()
"""The image as the preprocessing gives it, once."""


def scaled(preprocess: Preprocess, factor: float, source: Size) -> Preprocess:
    """Return the preprocessing that gives images `factor` times their height and width.

    Args:
        preprocess: Whose size rule is taken times the factor.
        factor: Above 0; 1 changes nothing.
        source: (H, W) of the image, which is its size where there is no rule.

    Raises:
        ConfigError: Images lie in a letterbox, or labels are compared at the size of the input:
            another size would be another benchmark.
    """
    if factor == 1:
        return preprocess
    if preprocess.letterbox is not None or preprocess.score_at == "input":
        rule = "a letterbox" if preprocess.letterbox is not None else "score_at: input"
        raise ConfigError(
            f"the size of the input is fixed by {rule} in the preprocessing of the checkpoint",
            where="scale",
            fix="leave scales at 1",
        )
    if preprocess.short_side is not None:
        cap = preprocess.max_long_side
        return replace(
            preprocess,
            short_side=_times(preprocess.short_side, factor),
            max_long_side=None if cap is None else _times(cap, factor),
        )
    height, width = preprocess.size or source
    return replace(preprocess, size=(_times(height, factor), _times(width, factor)))


def _times(length: int, factor: float) -> int:
    return max(1, math.floor(length * factor + 0.5))
