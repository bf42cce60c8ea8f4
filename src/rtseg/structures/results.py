"""What a user gets of the other tasks: arrays of NumPy at the size of the source image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtseg.structures.samples import Segment


@dataclass(frozen=True)
class RoadLaneResult:
    """Drivable area and lane lines.

    drivable, lane: bool (H, W), or None where a single-task model has no such head.
    names, palette: `("drivable", "lane")` and their RGB colors, 0-255.
    source, timing, image: as in `SemanticResult`.
    """

    drivable: NDArray[np.bool_] | None
    lane: NDArray[np.bool_] | None
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PanopticResult:
    """One segment id for every pixel.

    ids: int32 (H, W), 0 where nothing was found.
    segments: one entry for each id above 0, with its class.
    scores: of the segments, in [0, 1], in the same order.
    names, palette, source, timing, image: as in `SemanticResult`; by class id.
    things: class ids of countable things.
    """

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
    scores: tuple[float, ...]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    things: frozenset[int] = frozenset()
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class InstanceResult:
    """Objects, each with its own mask; masks may overlap.

    masks: bool (N, H, W), best score first. labels: int64 (N,) class ids.
    scores: float32 (N,) in [0, 1].
    names, palette, source, timing, image: as in `SemanticResult`; by class id.
    """

    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ClassificationResult:
    """One class for the whole image.

    label: class id with the highest score. scores: float32 (K,), a distribution.
    names, palette, source, timing, image: as in `SemanticResult`.
    """

    label: int
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
