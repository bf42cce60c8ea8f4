"""What a user gets of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize
from rtseg.structures.result import Palette, Result, class_shares
from rtseg.visualize import PictureFile


@dataclass(frozen=True)
class SemanticResult(Result):
    """Class of every pixel, at the size of the source image.

    mask: uint8 (H, W) of class ids (uint16 above 255 classes); read-only.
    names, palette, source, timing, image: as in `Result`.
    confidence: float16 (H, W) in [0, 1], the softmax share of the chosen class, or None if it was
        not asked for.

    Raises:
        ValueError: If the fields contradict each other in type, size or number of classes.
    """

    mask: NDArray[Any]
    names: tuple[str, ...]
    palette: Palette
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    confidence: NDArray[np.float16] | None = None
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    ENDINGS: ClassVar[Mapping[str, str]] = {
        "mask": ".png",
        "overlay": "_overlay.png",
        "confidence": "_confidence.png",
    }

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"mask must be uint8 or uint16 (H, W), got {self.mask.dtype} {self.mask.shape}"
            )
        self._check(self.mask.shape)
        self._check_map("confidence", self.mask.shape)
        self._freeze("mask", "confidence", "image")

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the classes over the image: RGB uint8 (H, W, 3), wider by the key if `legend`.

        Args:
            alpha: Share of the class color in each pixel, 0 (image only) to 1 (colors only).
            legend: Append a key with the classes that occur, largest first.
        """
        return visualize.overlay(
            self.image, self.mask, self.palette, alpha=alpha, legend=self.names if legend else None
        )

    def maps(self) -> dict[str, PictureFile]:
        """Return the class ids, and the confidence from black (0) to white (1) if it is there."""
        found = {"mask": PictureFile(self.mask, self.palette)}
        if self.confidence is not None:
            levels = np.rint(self.confidence.astype(np.float32) * 255).astype(np.uint8)
            found["confidence"] = PictureFile(np.repeat(levels[..., None], 3, axis=2))
        return found

    def to_polygons(self, *, min_area: float = 0.0) -> list[dict[str, Any]]:
        """Outline every connected region.

        Args:
            min_area: Regions with fewer pixels are left out.

        Returns:
            One dictionary per region, largest first: `class_id`, `name`, `area` (pixels),
            `polygon` (outer ring, list of (x, y) pixel corners, clockwise on screen) and `holes`
            (list of rings).
        """
        regions = visualize.mask_to_polygons(self.mask, min_area=min_area)
        known = [region for region in regions if region["class_id"] < len(self.names)]
        return [{"name": self.names[region["class_id"]], **region} for region in known]

    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values: source, size, pixels by class that occurs, timing."""
        counts = dict(enumerate(np.bincount(self.mask.ravel()).tolist()))
        classes = class_shares(counts, self.names, self.mask.size)
        return self._summary(self.mask.shape, classes=classes)
