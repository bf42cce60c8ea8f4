"""Draw the first validation images with what the network finds in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg import visualize
from rtseg.data.dataset import Dataset
from rtseg.structures import Batch, ImageMeta

CELL = 420
"""Width of each picture."""


class SampleSheet:
    """Keep the first results of a validation, and draw them.

    Args:
        dataset: The validation set.
        count: How many images.
        every: The results are those of every n-th image, from the first one on.
    """

    def __init__(self, dataset: Dataset, *, count: int, every: int = 1) -> None:
        self.dataset, self.count, self.every = dataset, count, every
        self.kept: list[tuple[ImageMeta, Any]] = []

    def collect(self, batch: Batch, results: list[Any]) -> None:
        """Take results, in the order of the set, as an evaluation hands them out."""
        found = list(zip(batch.meta, results, strict=True))
        self.kept += found[: self.count - len(self.kept)]

    def draw(self) -> NDArray[np.uint8] | None:
        """Return one picture of all images, RGB uint8 (h, w, 3); None if none was kept."""
        if not self.kept:
            return None
        pictures = [self._drawn(place, *found) for place, found in enumerate(self.kept)]
        return visualize.contact_sheet(pictures, columns=min(2, len(pictures)), cell_width=CELL)

    def _drawn(self, place: int, meta: ImageMeta, result: Any) -> NDArray[np.uint8]:
        image = Image.fromarray(self.dataset[place * self.every].image)
        height, width = meta.source_size
        if image.size != (width, height):  # scored at the size of the input
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        drawn: NDArray[np.uint8] = replace(result, image=np.asarray(image)).plot()
        return drawn
