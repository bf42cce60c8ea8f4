"""What a user gets of panoptic and of instance segmentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize
from rtseg.structures.result import Palette, Result, with_key
from rtseg.structures.samples import Segment
from rtseg.visualize import KeyEntry, PictureFile, Region

SHOWN_SCORE = 0.5
"""decision: objects below it stay in the result, but `plot` draws them only when asked to."""


@dataclass(frozen=True)
class PanopticResult(Result):
    """One segment id for every pixel, at the size of the source image.

    ids: int32 (H, W), 0 where nothing was found; read-only.
    segments: one entry for each id above 0, with its class.
    scores: of the segments, in [0, 1], in the same order.
    names, palette, source, timing, image: as in `Result`.
    things: class ids of countable things.

    Raises:
        ValueError: If the fields contradict each other in type, size or number.
    """

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
    scores: tuple[float, ...]
    names: tuple[str, ...]
    palette: Palette
    things: frozenset[int] = frozenset()
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    ENDINGS: ClassVar[Mapping[str, str]] = {"ids": ".png", "overlay": "_overlay.png"}

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype != np.int32:
            raise ValueError(f"ids must be int32 (H, W), got {self.ids.dtype} {self.ids.shape}")
        if len(self.scores) != len(self.segments):
            raise ValueError(f"{len(self.scores)} scores for {len(self.segments)} segments")
        numbers = [segment.id for segment in self.segments]
        if len(set(numbers)) < len(numbers) or min(numbers, default=1) < 1:
            raise ValueError(f"segment ids must differ and be above 0, got {numbers}")
        _check_classes([segment.class_id for segment in self.segments], self.names)
        self._check(self.ids.shape)
        self._freeze("ids", "image")

    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the segments over the image: RGB uint8 (H, W, 3), wider by the key if `legend`.

        Surfaces have the color of their class; objects a color near it, each its own, and an
        outline.

        Args:
            alpha: Share of the color inside a segment, 0 (outlines only) to 1 (colors only).
            legend: Append a key with the classes that occur, largest first.
        """
        seen: Counter[int] = Counter()
        regions = []
        for segment in self.segments:
            color = visualize.vary_color(self.palette[segment.class_id], seen[segment.class_id])
            seen[segment.class_id] += 1
            outlined = segment.class_id in self.things
            regions.append(Region(self.ids == segment.id, color, outlined=outlined))
        painted = visualize.paint_regions(self.image, self.ids.shape, regions, alpha=alpha)
        entries = [
            KeyEntry(self.palette[item["id"]], self._title(item), f"{100 * item['share']:.1f} %")
            for item in sorted(self._classes(self._areas()), key=lambda item: -item["pixels"])
        ]
        return with_key(painted, entries, legend=legend)

    def _title(self, item: Mapping[str, Any]) -> str:
        is_thing = item["id"] in self.things
        return f"{item['name']} ({item['segments']})" if is_thing else str(item["name"])

    def maps(self) -> dict[str, PictureFile]:
        """Return the ids as colors, as COCO panoptic files have them: id = R + 256 G + 65536 B."""
        bytes_of = [(self.ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
        return {"ids": PictureFile(np.stack(bytes_of, axis=-1))}

    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values: source, size, segments, sums by class, timing.

        A segment has `id`, `class_id`, `name`, `thing`, `area` (pixels), `bbox` (left, top, width,
        height in pixels; null if the map does not show it) and `score`. A class has `segments`,
        `pixels` and `share`.
        """
        areas = self._areas()
        segments = [
            {
                "id": segment.id,
                "class_id": segment.class_id,
                "name": self.names[segment.class_id],
                "thing": segment.class_id in self.things,
                "area": areas[segment.id],
                "bbox": _box(self.ids == segment.id),
                "score": float(score),
            }
            for segment, score in zip(self.segments, self.scores, strict=True)
        ]
        return self._summary(self.ids.shape, segments=segments, classes=self._classes(areas))

    def _areas(self) -> dict[int, int]:
        return {segment.id: int((self.ids == segment.id).sum()) for segment in self.segments}

    def _classes(self, areas: Mapping[int, int]) -> list[dict[str, Any]]:
        """Return number of segments, pixels and share of each class that occurs, by class id."""
        rows = []
        for class_id in sorted({segment.class_id for segment in self.segments}):
            mine = [areas[item.id] for item in self.segments if item.class_id == class_id]
            rows.append(
                {
                    "id": class_id,
                    "name": self.names[class_id],
                    "segments": len(mine),
                    "pixels": sum(mine),
                    "share": sum(mine) / max(self.ids.size, 1),
                }
            )
        return rows


@dataclass(frozen=True)
class InstanceResult(Result):
    """Objects, each with its own mask, at the size of the source image; masks may overlap.

    masks: bool (N, H, W), best score first. labels: int64 (N,) class ids.
    scores: float32 (N,) in [0, 1]. All read-only.
    names, palette, source, timing, image: as in `Result`.

    Raises:
        ValueError: If the fields contradict each other in type, size, number or order.
    """

    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: tuple[str, ...]
    palette: Palette
    source: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    image: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise ValueError(
                f"masks must be bool (N, H, W), got {self.masks.dtype} {self.masks.shape}"
            )
        number = (len(self.masks),)
        if self.labels.shape != number or self.scores.shape != number:
            raise ValueError(
                f"{number[0]} masks, but labels {self.labels.shape} and scores {self.scores.shape}"
            )
        if (np.diff(self.scores) > 0).any():
            raise ValueError("scores do not fall; put the best object first")
        _check_classes(self.labels.tolist(), self.names)
        self._check(self.masks.shape[1:])
        self._freeze("masks", "labels", "scores", "image")

    def plot(
        self, *, alpha: float = 0.5, legend: bool = False, min_score: float = SHOWN_SCORE
    ) -> NDArray[np.uint8]:
        """Draw the objects over the image: RGB uint8 (H, W, 3), wider by the key if `legend`.

        Args:
            alpha: Share of the color inside an object, 0 (outlines and tags only) to 1.
            legend: Append a key with the classes that are drawn and how many of each.
            min_score: Objects with a lower score are not drawn.
        """
        seen: Counter[int] = Counter()
        regions = []
        for mask, class_id, score in zip(
            self.masks, self.labels.tolist(), self.scores, strict=True
        ):
            if score < min_score:
                break
            color = visualize.vary_color(self.palette[class_id], seen[class_id])
            seen[class_id] += 1
            regions.append(Region(mask, color, label=f"{self.names[class_id]} {score:.2f}"))
        size = self.masks.shape[1:]
        painted = visualize.paint_regions(self.image, size, regions[::-1], alpha=alpha)
        entries = [
            KeyEntry(self.palette[index], self.names[index], str(count))
            for index, count in seen.most_common()
        ]
        return with_key(painted, entries, legend=legend)

    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values: source, size, objects, number by class, timing.

        An object has `class_id`, `name`, `score`, `area` (pixels), `bbox` (left, top, width, height
        in pixels; null if its mask is empty) and `rle`, its mask as COCO writes it uncompressed:
        `size` (H, W) and `counts`, the lengths of runs of 0 and 1 in turn, column by column.
        """
        objects = [
            {
                "class_id": class_id,
                "name": self.names[class_id],
                "score": float(score),
                "area": int(mask.sum()),
                "bbox": _box(mask),
                "rle": run_lengths(mask),
            }
            for mask, class_id, score in zip(
                self.masks, self.labels.tolist(), self.scores, strict=True
            )
        ]
        counts = Counter(self.labels.tolist())
        classes = [
            {"id": index, "name": self.names[index], "objects": counts[index]}
            for index in sorted(counts)
        ]
        return self._summary(self.masks.shape[1:], objects=objects, classes=classes)


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask (H, W) as runs of 0 and 1 in turn, column by column, the first one of 0."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0] if flat.size and flat[0] else []
    borders = np.concatenate([starts, [0], changes, [flat.size]]).astype(np.int64)
    counts = np.diff(borders).tolist() if flat.size else []
    return {"size": list(mask.shape), "counts": counts}


def _box(mask: NDArray[np.bool_]) -> list[int] | None:
    """Return left, top, width and height of the true pixels, or None."""
    box = visualize.bounding_box(mask)
    if box is None:
        return None
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _check_classes(labels: list[int], names: tuple[str, ...]) -> None:
    for label in labels:
        if not 0 <= label < len(names):
            raise ValueError(f"class {label} is none of the {len(names)} classes")
