"""The way of a sample into a network: `AUGMENTS` changes it at random, `Preprocess` fits it.

Every augmentation draws a fixed count of numbers from the generator it is given, so that a sample
depends on (seed, epoch, index) alone, whichever process computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rtseg.data.augment import Augment
from rtseg.data.classification import RandomPart
from rtseg.data.driving import Driving
from rtseg.data.pixels import Color
from rtseg.data.preprocess import Fitted, Preprocess
from rtseg.structures import Sample

__all__ = ["AUGMENTS", "Augment", "Augmentation", "Fitted", "Preprocess"]


class Augmentation(Protocol):
    """A random change of samples."""

    def __call__(self, sample: Sample, rng: np.random.Generator, *, padding_color: Color) -> Sample:
        """Return the changed sample: image float32 (h, w, 3) in 0-255, labels of the same size."""
        ...


AUGMENTS: dict[str, Callable[..., Augmentation]] = {
    "crop": Augment,
    "driving": Driving,
    "classification": RandomPart,
}
"""Augmentations by the name that section `data.augment` of a recipe gives; without one, `crop`."""
