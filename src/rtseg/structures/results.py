"""What a user gets of drivable area with lanes, and of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize
from rtseg.structures.result import Palette, Result, class_shares, with_key
from rtseg.visualize import KeyEntry, PictureFile

ROAD_LANE_KINDS = ("drivable", "lane")
ROAD_LANE_PALETTE: Palette = ((0, 170, 80), (230, 40, 60))
TOP = 5
"""Classes of a whole image that are shown, best first."""


@dataclass(frozen=True)
class RoadLaneResult(Result):
    """Drivable area and lane lines, at the size of the source image.

    drivable, lane: bool (H, W), or None where a single-task model has no such head; read-only.
    names, palette: `("drivable", "lane")` and their RGB colors, 0-255.
    source, timing, image: as in `Result`.

    Raises:
        ValueError: If the fields contradict each other in type, size or names, or no map is there.
    """

    drivable: NDArray[np.bool_] | None
    lane: NDArray[np.bool_] | None
    names: tuple[str, ...]
    palette: Palette
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    ENDINGS: ClassVar[Mapping[str, str]] = {
        "drivable": "_drivable.png",
        "lane": "_lane.png",
        "overlay": "_overlay.png",
    }

    def __post_init__(self) -> None:
        if self.names != ROAD_LANE_KINDS:
            raise ValueError(f"names are {self.names}, not {ROAD_LANE_KINDS}")
        found = self._found()
        if not found:
            raise ValueError("neither a drivable map nor a lane map is there")
        for kind, array in found.items():
            if array.ndim != 2 or array.dtype != np.bool_:
                raise ValueError(f"{kind} must be bool (H, W), got {array.dtype} {array.shape}")
        size = next(iter(found.values())).shape
        self._check(size)
        self._check_map("lane", size)
        self._freeze(*ROAD_LANE_KINDS, "image")

    def _found(self) -> dict[str, NDArray[np.bool_]]:
        maps = {kind: getattr(self, kind) for kind in ROAD_LANE_KINDS}
        return {kind: array for kind, array in maps.items() if array is not None}

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the drivable area and above it the lanes over the image, as `Result.plot` says.

        Args:
            alpha: Share of the color, 0 (image only) to 1 (colors only).
            legend: Append a key with the share of the picture that each of them covers.
        """
        found = self._found()
        colors = dict(zip(self.names, self.palette, strict=True))
        layers = np.full(next(iter(found.values())).shape, 255, np.uint8)
        for kind, array in found.items():
            layers[array] = ROAD_LANE_KINDS.index(kind)
        painted = visualize.overlay(self.image, layers, self.palette, alpha=alpha)
        entries = [
            KeyEntry(colors[kind], kind, f"{100 * array.mean():.1f} %")
            for kind, array in found.items()
        ]
        return with_key(painted, entries, legend=legend)

    def maps(self) -> dict[str, PictureFile]:
        """Return the maps that are there, as 0 and 1; viewers show 1 in its color."""
        colors = dict(zip(self.names, self.palette, strict=True))
        return {
            kind: PictureFile(array.astype(np.uint8), ((0, 0, 0), colors[kind]))
            for kind, array in self._found().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values: source, size, pixels of each kind that occurs, timing.

        Lanes lie on the road, so shares may add up to more than 1.
        """
        found = self._found()
        size = next(iter(found.values())).shape
        counts = {ROAD_LANE_KINDS.index(kind): int(array.sum()) for kind, array in found.items()}
        return self._summary(size, classes=class_shares(counts, self.names, size[0] * size[1]))


@dataclass(frozen=True)
class ClassificationResult(Result):
    """One class for the whole image.

    label: class id with the highest score. scores: float32 (K,), a distribution; read-only.
    names, palette, source, timing, image: as in `Result`; the palette may be empty.

    Raises:
        ValueError: If the fields contradict each other in type or number of classes.
    """

    label: int
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    palette: Palette = ()
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.names),):
            raise ValueError(f"scores {self.scores.shape} do not fit {len(self.names)} names")
        if not 0 <= self.label < len(self.names):
            raise ValueError(f"label {self.label} is none of the {len(self.names)} classes")
        if self.palette:
            self._check(None)
        self._freeze("scores", "image")

    def _best(self) -> list[int]:
        order: list[int] = np.argsort(-self.scores, kind="stable")[:TOP].tolist()
        return order

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Write the five best classes on the image, or beside it if `legend`: RGB uint8 (H, W, 3).

        Without an image the key stands alone.

        Args:
            alpha: How far the field behind the text is darkened, 0 to 1.
            legend: Leave the image as it is and append a key.
        """
        best = [(index, f"{100 * self.scores[index]:.1f} %") for index in self._best()]
        if self.image is not None and not legend:
            lines = [f"{share}  {self.names[index]}" for index, share in best]
            return visualize.write_lines(self.image, lines, alpha=alpha)
        colors = self.palette or (visualize.NEUTRAL,) * len(self.names)
        entries = [KeyEntry(colors[index], self.names[index], share) for index, share in best]
        if self.image is None:
            return visualize.key_panel(entries, height=160)
        return with_key(self.image, entries, legend=legend)

    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values: source, size (null without image), label, five best."""
        size = (None, None) if self.image is None else self.image.shape[:2]
        best = [
            {"id": index, "name": self.names[index], "score": float(self.scores[index])}
            for index in self._best()
        ]
        label = {"id": self.label, "name": self.names[self.label]}
        return self._summary(size, label=label, classes=best)
