"""The shared types: what models return, what data sets yield, what losses and metrics read, what users get.

Every tensor shape is written (B, C, H, W). Label maps hold class ids 0..C-1 and `IGNORE_INDEX` where nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rtseg import visualize

IGNORE_INDEX = 255
"""Label value of a pixel that counts neither in a loss nor in a metric; the same in files, losses and metrics."""


# ---------------------------------------------------------------- what a model returns
class SemanticOutput(NamedTuple):
    """Per-pixel class scores.

    `logits`: (B, K, h, w), unbounded, at the model's own resolution. `aux`: tuple of (B, K, h', w'); empty in evaluation.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


# ---------------------------------------------------------------- what a data set yields
@dataclass(frozen=True)
class ClassInfo:
    """One class of a data set: its name, its colour (RGB, 0-255), and whether it is a countable thing."""

    name: str
    color: tuple[int, int, int]
    thing: bool = False


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map: its id in the map (> 0), its class id, and whether it is a crowd region."""

    id: int
    class_id: int
    crowd: bool = False


@dataclass(frozen=True)
class Sample:
    """One image with whatever labels its data set offers; a data set knows no task.

    image: uint8 (H, W, 3) RGB as read; augmentation makes it float32 (H, W, 3), still in 0-255.
    labels: by kind. `semantic` uint8 (H, W) of class ids; `drivable`, `lane` uint8 (H, W) of 0 and 1; `panoptic` int32 (H, W)
        of segment ids, 0 = void; all but `panoptic` use `IGNORE_INDEX` for void.
    segments: one entry for each id of the panoptic map.
    path: the file the image came from, or a name that says how to draw it again (`synthetic:seed=0/7`).
    attributes: facts about the scene such as weather or time of day.
    """

    image: NDArray[Any]
    labels: Mapping[str, NDArray[Any]]
    segments: tuple[Segment, ...] = ()
    path: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------- what the loop, losses and metrics read
class SemanticTarget(NamedTuple):
    """`labels`: (B, H, W) int64, class ids and `IGNORE_INDEX`."""

    labels: Tensor


class ImageMeta(NamedTuple):
    """Where an image of a batch came from and how it was fitted into it.

    path: as in `Sample`. source_size: (H, W) of the image before any resize. input_size: (h, w) after the size rule,
    before padding. padding: rows added below and columns added at the right, in input pixels.
    """

    path: str
    source_size: tuple[int, int]
    input_size: tuple[int, int]
    padding: tuple[int, int]


class Batch(NamedTuple):
    """Normalised images (B, 3, H, W) with their target (training: one for all; evaluation: one per image at native size)."""

    images: Tensor
    target: Any
    meta: tuple[ImageMeta, ...]


# ---------------------------------------------------------------- what a user gets
@dataclass(frozen=True)
class SemanticResult:
    """Class of every pixel, at the size of the source image.

    mask: uint8 (H, W) of class ids (uint16 above 255 classes). names, palette: of the classes, by id; colours are RGB.
    source: path of the image, "" if it came from memory. timing: milliseconds by stage (read, pre, model, post).
    confidence: float16 (H, W) in [0, 1], the softmax share of the chosen class, or None if it was not asked for.
    image: the source image, uint8 (H, W, 3) RGB, or None (then `plot` shows the class colours alone).
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
                f"{len(self.names)} names but {len(self.palette)} colours; give one colour per class"
            )
        self.mask.flags.writeable = False

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the classes over the image: RGB uint8 (H, W, 3), wider by the key if `legend`.

        Args:
            alpha: Share of the class colour in each pixel, 0 (image only) to 1 (colours only).
            legend: Append a key with the classes that occur, largest first.
        """
        return visualize.overlay(
            self.image, self.mask, self.palette, alpha=alpha, legend=self.names if legend else None
        )

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write `<stem>.png` (palette PNG, pixel value = class id) and `<stem>_overlay.png`; return both paths."""
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
            One dictionary per region: `class_id`, `name`, `area` (pixels), `polygon` (outer ring, list of (x, y) pixel
            corners, clockwise on screen) and `holes` (list of rings).
        """
        regions = visualize.mask_to_polygons(self.mask, min_area=min_area)
        known = [region for region in regions if region["class_id"] < len(self.names)]
        return [{"name": self.names[region["class_id"]], **region} for region in known]

    def to_dict(self) -> dict[str, Any]:
        """Summarise as JSON-ready values: source, size, pixels and share of every class that occurs, timing."""
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
