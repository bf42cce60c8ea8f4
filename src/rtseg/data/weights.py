"""Count the pixels of each class over a data set, and turn the counts into loss weights."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.files import FileFaultError
from rtseg.errors import ConfigError
from rtseg.structures import IGNORE_INDEX

COUNTED_KINDS = ("semantic", "drivable", "lane", "class")
"""Label kinds whose values are class ids, so that pixels per class can be counted.

An image whose label is one class counts as one pixel.
"""


@dataclass(frozen=True)
class ClassStatistics:
    """How often each class of one label kind occurs; every tuple has one entry per class.

    names: of the classes, by id. pixels: of each class. void: pixels of `IGNORE_INDEX`. frames:
    images in which the class occurs. frame_pixels: pixels, void included, of those images. images:
    all images.
    """

    names: tuple[str, ...]
    pixels: tuple[int, ...]
    void: int
    frames: tuple[int, ...]
    frame_pixels: tuple[int, ...]
    images: int

    @property
    def shares(self) -> tuple[float, ...]:
        """Pixels of each class over all that are not void, 0 to 1; all 0 if every pixel is."""
        total = max(sum(self.pixels), 1)
        return tuple(pixels / total for pixels in self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Return images, void pixels and one entry per class as JSON-ready values."""
        rows = zip(self.names, self.pixels, self.shares, self.frames, strict=True)
        classes = [
            {"id": index, "name": name, "pixels": pixels, "share": share, "frames": frames}
            for index, (name, pixels, share, frames) in enumerate(rows)
        ]
        return {"images": self.images, "void": self.void, "classes": classes}


def class_names(dataset: Dataset, kind: str) -> tuple[str, ...]:
    """Return the names of the values 0, 1, ... of a counted label kind."""
    if kind in ("semantic", "class"):
        return tuple(info.name for info in dataset.classes)
    return ("background", kind)


def count_labels(labels: NDArray[Any], *, num_classes: int, where: str = "") -> list[int]:
    """Count the pixels of each class and, as last entry, of `IGNORE_INDEX`.

    Args:
        labels: Class ids and `IGNORE_INDEX`, (H, W), or () for a whole image.
        num_classes: Number of classes C; above 255 of them nothing is void.
        where: The file, for messages.

    Returns:
        C + 1 counts.

    Raises:
        FileFaultError: A label is neither a class id nor `IGNORE_INDEX`.
    """
    counts = np.bincount(labels.ravel(), minlength=max(IGNORE_INDEX + 1, num_classes))
    void = int(counts[IGNORE_INDEX]) if num_classes <= IGNORE_INDEX else 0
    result: list[int] = [*counts[:num_classes].tolist(), void]
    if sum(result) != labels.size:
        found = np.unique(labels[(labels >= num_classes) & (labels != IGNORE_INDEX)])
        raise FileFaultError(
            f"labels hold {' '.join(map(str, found[:8]))}, but there are {num_classes} classes",
            kind="value_outside_map",
            where=where,
            fix=f"use 0..{num_classes - 1} and {IGNORE_INDEX} (ignore)",
        )
    return result


def summarize_counts(counts: Sequence[Sequence[int]], names: Sequence[str]) -> ClassStatistics:
    """Add up the counts of `count_labels` over images.

    Args:
        counts: C + 1 counts for each image.
        names: The C class names.
    """
    table = np.array(counts, dtype=np.int64).reshape(len(counts), len(names) + 1)
    present = table[:, :-1] > 0  # (N, C)
    sizes = table.sum(axis=1, keepdims=True)  # (N, 1)
    return ClassStatistics(
        names=tuple(names),
        pixels=tuple(table[:, :-1].sum(axis=0).tolist()),
        void=int(table[:, -1].sum()),
        frames=tuple(present.sum(axis=0).tolist()),
        frame_pixels=tuple((present * sizes).sum(axis=0).tolist()),
        images=len(counts),
    )


def class_statistics(
    dataset: Dataset, *, kind: str = "semantic", workers: int | None = None
) -> ClassStatistics:
    """Count the classes of a data set; of a data set on disk only the masks are read.

    Args:
        dataset: Any data set that offers `kind`.
        kind: One of `COUNTED_KINDS`.
        workers: Threads; None for one per processor, at most 8.

    Raises:
        ConfigError: The data set does not offer the kind, or its values are not class ids.
        FileFaultError: A mask cannot be read or holds a value without a label.
    """
    if kind not in dataset.kinds or kind not in COUNTED_KINDS:
        offered = ", ".join(item for item in dataset.kinds if item in COUNTED_KINDS)
        raise ConfigError(f"no class pixels to count in {kind!r}", fix=f"choose from: {offered}")
    names = class_names(dataset, kind)

    def count(index: int) -> list[int]:
        if isinstance(dataset, DiskDataset):
            path = dataset.files(index)[1 + dataset.kinds.index(kind)]
            labels = dataset.tables[kind].read(path)
            return count_labels(labels, num_classes=len(names), where=str(path))
        sample = dataset[index]
        return count_labels(sample.labels[kind], num_classes=len(names), where=sample.path)

    with ThreadPoolExecutor(workers or default_workers()) as pool:
        return summarize_counts(list(pool.map(count, range(len(dataset)))), names)


def default_workers() -> int:
    """Return the number of threads for reading files: one per processor, at most 8."""
    return min(8, os.cpu_count() or 1)


def class_weights(
    statistics: ClassStatistics,
    *,
    scheme: Literal["none", "inverse_log", "median_frequency"] | Sequence[float] = "none",
    offset: float = 1.02,
) -> tuple[float, ...]:
    """Compute one loss weight per class.

    - `none`: 1 for every class.
    - `inverse_log`: 1 / ln(offset + share), share = pixels of the class / pixels that are not void.
    - `median_frequency`: median(f) / f, f = pixels of the class / pixels (void included) of the
      images that contain it.
    - a list: these numbers.

    decision: a class without pixels has no frequency; `median_frequency` leaves it out of the
    median and gives it weight 0, which changes no loss because none of its pixels occur.

    Args:
        statistics: Counts of the training set.
        scheme: Name of the rule, or the weights themselves.
        offset: What `inverse_log` adds to the share; above 1, so that the weight is finite.

    Returns:
        C weights in the order of the class ids.

    Raises:
        ConfigError: The scheme is unknown, the list does not fit the classes, or the offset is not
            above 1.

    Source: inverse_log with 1.02 is ENet (Paszke et al., 2016); median_frequency is Eigen and
    Fergus (2015).
    """
    if not isinstance(scheme, str):
        return _given_weights(scheme, len(statistics.pixels))
    if scheme == "none":
        return (1.0,) * len(statistics.pixels)
    if scheme == "inverse_log":
        if offset <= 1:
            raise ConfigError(
                f"inverse_log_offset is {offset}", fix="use a number above 1, as 1.02"
            )
        return tuple(1 / math.log(offset + share) for share in statistics.shares)
    if scheme == "median_frequency":
        return _median_frequency(statistics)
    known = "none, inverse_log, median_frequency"
    raise ConfigError(
        f"class_weights {scheme!r} is unknown", fix=f"use {known} or a list of numbers"
    )


def _given_weights(weights: Sequence[float], count: int) -> tuple[float, ...]:
    if len(weights) != count:
        raise ConfigError(
            f"class_weights has {len(weights)} numbers for {count} classes",
            fix="give one per class",
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ConfigError(f"class_weights is {list(weights)}", fix="use finite numbers from 0 up")
    return tuple(float(weight) for weight in weights)


def _median_frequency(statistics: ClassStatistics) -> tuple[float, ...]:
    pairs = zip(statistics.pixels, statistics.frame_pixels, strict=True)
    frequencies = [pixels / around if around else 0.0 for pixels, around in pairs]
    present = [frequency for frequency in frequencies if frequency]
    median = float(np.median(present)) if present else 0.0
    return tuple(median / frequency if frequency else 0.0 for frequency in frequencies)
