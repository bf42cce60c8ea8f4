"""The images from which ranges are taken: which ones, in which order, and what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtseg.errors import ConfigError, DataError
from rtseg.structures import Sample


class Images(Protocol):
    """A data set, or a list of images (H, W, 3), RGB in 0-255."""

    def __len__(self) -> int:
        """Return their number."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return a sample or an image."""
        ...


class Fitted(Protocol):
    """An image as a network reads it."""

    @property
    def image(self) -> Tensor:
        """Normalized, (3, H, W)."""
        ...


class Fitting(Protocol):
    """What makes the input of a network of an image: `rtseg.data.transforms.Preprocess`."""

    def fit(self, image: NDArray[Any], *, path: str = "") -> Fitted:
        """Resize, normalize and pad an image (H, W, 3)."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Images drawn once and for all, as batches that are the same on every pass.

    Iterating yields normalized images (B, 3, H, W), float32; a batch ends where the size changes.

    Args:
        images: Data set or list of images.
        preprocess: Preprocessing of the network.
        count: Images to draw; all if there are fewer.
        seed: Of the draw.
        batch_size: Images per batch.

    Raises:
        ConfigError: `count` or `batch_size` is below 1, or `seed` negative.
        DataError: There are no images.
    """

    images: Images
    preprocess: Fitting
    count: int = 256
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, value, least in (
            ("count", self.count, 1),
            ("batch_size", self.batch_size, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise ConfigError(
                    f"{value} is too small", where=f"calibration {name}", fix=f"use {least} or more"
                )
        if not len(self.images):
            raise DataError("holds no images", where="calibration", fix="give another data set")

    @property
    def indices(self) -> tuple[int, ...]:
        """Places of the images that were drawn, in the order in which they come."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        return tuple(int(index) for index in order[: self.count])

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches (B, 3, H, W)."""
        waiting: list[Tensor] = []
        for _, image in self._fitted():
            if waiting and (len(waiting) == self.batch_size or waiting[0].shape != image.shape):
                yield torch.stack(waiting)
                waiting = []
            waiting.append(image)
        yield torch.stack(waiting)

    def provenance(self) -> dict[str, Any]:
        """Return count, seed, paths and SHA-256 of all preprocessed values; reads every image."""
        digest, paths = hashlib.sha256(), []
        for path, image in self._fitted():
            paths.append(path)
            digest.update(str(tuple(image.shape)).encode())
            digest.update(image.contiguous().numpy().tobytes())
        return {
            "count": len(paths), "seed": self.seed, "paths": paths, "sha256": digest.hexdigest(),
        }  # fmt: skip

    def _fitted(self) -> Iterator[tuple[str, Tensor]]:
        for index in self.indices:
            item = self.images[index]
            sample = item if isinstance(item, Sample) else Sample(np.asarray(item), {}, path="")
            path = sample.path or f"image {index}"
            yield path, self.preprocess.fit(sample.image, path=path).image
