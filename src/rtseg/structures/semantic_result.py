"""What a user gets of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize


@dataclass(frozen=True)
class SemanticResult:
    """Class of every pixel, at the size of the source image.

    mask: uint8 (H, W) of class ids (uint16 above 255 classes); read-only.
    names, palette: of the classes, by id; colors are RGB, 0-255.
    source: path of the image, "" if it came from memory.
    timing: milliseconds by stage (read, pre, model, post).
    confidence: float16 (H, W) in [0, 1], the softmax share of the chosen class, or None if it was
        not asked for.
    image: the source image, uint8 (H, W, 3) RGB, or None (then `plot` shows the colors alone).

    Raises:
        ValueError: If the fields contradict each other in type, size or number of classes.
    """

    mask: NDArray[Any]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    confidence: NDArray[np.float16] | None = None
    image: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"mask must be uint8 or uint16 (H, W), got {self.mask.dtype} {self.mask.shape}"
            )
        if len(self.names) != len(self.palette):
            raise ValueError(
                f"{len(self.names)} names but {len(self.palette)} colors; give one color per class"
            )
        for name in ("image", "confidence"):
            array = getattr(self, name)
            if array is not None and array.shape[:2] != self.mask.shape:
                raise ValueError(
                    f"{name} {array.shape} differs in size from the mask {self.mask.shape}"
                )
        frozen = self.mask.view()  # the caller's own array stays writable
        frozen.flags.writeable = False
        object.__setattr__(self, "mask", frozen)

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the classes over the image: RGB uint8 (H, W, 3), wider by the key if `legend`.

        Args:
            alpha: Share of the class color in each pixel, 0 (image only) to 1 (colors only).
            legend: Append a key with the classes that occur, largest first.
        """
        return visualize.overlay(
            self.image, self.mask, self.palette, alpha=alpha, legend=self.names if legend else None
        )

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write `<stem>.png` (pixel value = class id) and `<stem>_overlay.png`; return both paths.

        Raises:
            DataError: If a file cannot be written.
        """
        folder = Path(directory)
        stem = Path(self.source).stem or "image"
        paths = {"mask": folder / f"{stem}.png", "overlay": folder / f"{stem}_overlay.png"}
        visualize.write_mask(paths["mask"], self.mask, self.palette)
        visualize.write_image(paths["overlay"], self.plot(legend=True))
        return paths

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
        height, width = self.mask.shape
        counts = np.bincount(self.mask.ravel(), minlength=len(self.names))
        classes = [
            {
                "id": index,
                "name": name,
                "pixels": int(counts[index]),
                "share": float(counts[index] / self.mask.size),
            }
            for index, name in enumerate(self.names)
            if counts[index]
        ]
        return {
            "source": self.source,
            "height": height,
            "width": width,
            "classes": classes,
            "timing_ms": dict(self.timing),
        }
