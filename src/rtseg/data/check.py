"""Examine every file of a data set before training and name all faults, not only the first.

`FAULTS` lists what is looked for. decision: a class without pixels is a fault where it stands in
the `data.yaml` of a native folder and lacks in its split `train`: nothing can learn it. It is a
warning in other splits, which lose a score only, and in published data sets, of which people keep
parts and whose list of classes is not theirs.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.data.check_cache import Record, RecordCache, file_state
from rtseg.data.check_sample import examine_files, examine_sample
from rtseg.data.dataset import Attributed, Dataset, DiskDataset
from rtseg.data.native import NativeFolder
from rtseg.data.weights import (
    COUNTED_KINDS,
    ClassStatistics,
    class_names,
    default_workers,
    summarize_counts,
)
from rtseg.errors import ConfigError, nearest

FORMAT = 1
"""Version of `CheckReport.to_dict`; it grows when a key is renamed, removed or changes meaning."""

FAULTS: Mapping[str, str] = {
    "missing_image": "a mask, or a line of a list, has no image",
    "missing_mask": "an image has no mask, or no JSON file",
    "duplicate_stem": "two images share a mask, or an image has two masks",
    "not_a_file": "a folder or a pipe is named like an image",
    "unreadable": "truncated, damaged, empty, a link in a circle, or no picture at all",
    "animated": "a file holds several pictures",
    "exif_rotation": "the image is stored turned; readers do not turn it, so its mask does not fit",
    "size_mismatch": "image and mask differ in height or width",
    "channel_count": "a mask has colors and no color table, an image is neither RGB nor gray",
    "bit_depth": "an image has more than 8 bits, a mask more than 16",
    "lossy_mask": "a mask is a JPEG file",
    "value_outside_map": "a mask holds a value without a label",
    "all_ignore": "a mask has no labelled pixel or segment",
    "too_small": "an image is below min_size",
    "too_large": "an image is above max_pixels, or claims pixels that its bytes cannot hold",
    "leakage": "the same file or the same pixels stand in two splits",
    "empty_class": "a class of data.yaml has no pixel in split train",
    "missing_entry": "a JSON file does not describe a picture of segments",
    "unlisted_segment": "a picture shows a segment that its JSON file does not list",
    "missing_segment": "a JSON file lists a segment that has no pixel",
    "overlapping_segments": "a JSON file lists a segment twice, so two claim the same pixels",
    "wrong_area": "a JSON file gives another number of pixels for a segment than it has",
    "bad_polygon": "an outline has too few points, or numbers that are none, or lies outside",
}
"""What a check looks for: the kind of each fault and what it means."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its kind (key of `FAULTS`), the file, and what to do about it."""

    kind: str
    file: str
    message: str


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds, over its images that can be read.

    images: number of samples, bad ones included. counted: those of them whose image and labels
    stand in the numbers below. sizes: images by (H, W). channel_mean and channel_std: of RGB over
    all pixels, 0-255, None without a readable image. statistics: by label kind, over readable
    masks. widths: by label kind that is drawn as strokes, their usual width in pixels (a network
    that learns wide lines scores badly on narrow ones). attributes: by name of an attribute, such
    as `weather`, images by its value.
    """

    images: int
    counted: int
    sizes: Mapping[tuple[int, int], int]
    channel_mean: tuple[float, ...] | None
    channel_std: tuple[float, ...] | None
    statistics: Mapping[str, ClassStatistics]
    widths: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON-ready values."""
        sizes = [{"height": h, "width": w, "images": n} for (h, w), n in sorted(self.sizes.items())]
        return {
            "images": self.images,
            "counted": self.counted,
            "sizes": sizes,
            "channel_mean": None if self.channel_mean is None else list(self.channel_mean),
            "channel_std": None if self.channel_std is None else list(self.channel_std),
            "labels": {kind: value.to_dict() for kind, value in self.statistics.items()},
            "stroke_widths": dict(self.widths),
            "attributes": {name: dict(values) for name, values in self.attributes.items()},
        }


@dataclass(frozen=True)
class CheckReport:
    """Every fault and warning of a data set, and a summary of each split by name."""

    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    splits: Mapping[str, SplitSummary]

    @property
    def ok(self) -> bool:
        """Whether there is no fault; warnings do not count."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "format": FORMAT,
            "ok": self.ok,
            "faults": [asdict(fault) for fault in self.faults],
            "warnings": [asdict(warning) for warning in self.warnings],
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
        }


def check_dataset(
    datasets: Dataset | Mapping[str, Dataset],
    *,
    allow: Collection[str] = (),
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read every sample and report every fault.

    Args:
        datasets: A data set, or one per split (then leakage between them is looked for too, but not
            between those whose names are the same up to a dot, as `train.0` and `train.1`).
        allow: Keys of `FAULTS` that only warn.
        cache: Folder that remembers faultless files by path, size and time of change, separately
            for each meaning of the labels; None to read everything.
        workers: Threads; None for one per processor, at most 8.
        progress: Called as `progress(done, total)` after each sample.

    Raises:
        ConfigError: `allow` holds a name that is no kind of fault.
    """
    for kind in allow:
        if kind not in FAULTS:
            close = ", ".join(nearest(kind, FAULTS))
            raise ConfigError(f"fault {kind!r} is unknown", fix=f"did you mean one of: {close}?")
    splits = datasets if isinstance(datasets, Mapping) else {"all": datasets}
    records = _scan_all(splits, cache, workers or default_workers(), progress)
    summaries = {name: _summarize(dataset, records[name]) for name, dataset in splits.items()}
    found: list[Fault] = []
    noted: list[Fault] = []
    for name, dataset in splits.items():
        found += [Fault(*fault) for record in records[name] for fault in record.faults]
        found += _pair_faults(dataset)
        empty = _empty_classes(name, dataset, summaries[name])
        (found if name == "train" and isinstance(dataset, NativeFolder) else noted).extend(empty)
    found += _leakage(records)
    noted = [fault for fault in found if fault.kind in allow] + noted
    faults = tuple(fault for fault in found if fault.kind not in allow)
    return CheckReport(faults=faults, warnings=tuple(noted), splits=summaries)


# ---------------------------------------------------------------- reading
def _scan_all(
    splits: Mapping[str, Dataset],
    cache: Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, list[Record]]:
    total = sum(len(dataset) for dataset in splits.values())
    done = 0
    records: dict[str, list[Record]] = {name: [] for name in splits}
    with warnings.catch_warnings():
        # What is wrong stands in the report; Pillow's remarks about it name no file.
        warnings.filterwarnings("ignore", module="PIL")
        for name, dataset in splits.items():
            for record in _scan(dataset, cache=cache, workers=workers):
                records[name].append(record)
                done += 1
                if progress is not None:
                    progress(done, total)
    return records


def _scan(dataset: Dataset, *, cache: Path | None, workers: int) -> Iterator[Record]:
    """Examine every sample in order, on several threads."""
    if not isinstance(dataset, DiskDataset):
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(partial(examine_sample, dataset), range(len(dataset)))
        return
    known = RecordCache(cache, dataset)

    def examine(index: int) -> Record:
        files = dataset.files(index)
        state = file_state(files)  # before reading: a file that changes meanwhile is read again
        record = known.get(str(files[0]), state)
        if record is None:
            record = examine_files(dataset, files)
            known.put(str(files[0]), state, record)
        if isinstance(dataset, Attributed):
            record.attributes = dict(dataset.attributes(index))
        return record

    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(examine, range(len(dataset)))
    finally:
        known.save()


# ---------------------------------------------------------------- the whole set
def _summarize(dataset: Dataset, records: list[Record]) -> SplitSummary:
    sizes = Counter((record.size[0], record.size[1]) for record in records if record.size)
    pixels = sum(height * width * count for (height, width), count in sizes.items())
    sums = [sum(record.channel_sum[channel] for record in records) for channel in range(3)]
    squares = [sum(record.channel_squares[channel] for record in records) for channel in range(3)]
    mean = std = None
    if pixels:
        mean = tuple(value / pixels for value in sums)
        spreads = [pixels * s - value * value for s, value in zip(squares, sums, strict=True)]
        std = tuple(math.sqrt(spread) / pixels for spread in spreads)
    statistics, widths = {}, {}
    for kind in dataset.kinds:
        if kind in COUNTED_KINDS:
            counts = [record.counts[kind] for record in records if kind in record.counts]
            statistics[kind] = summarize_counts(counts, class_names(dataset, kind))
        strokes = [record.widths[kind] for record in records if kind in record.widths]
        if strokes:
            widths[kind] = float(np.median(strokes))
    attributes: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in record.attributes.items():
            attributes.setdefault(name, Counter())[value] += 1
    counted = sum(
        bool(record.size) and statistics.keys() <= record.counts.keys() for record in records
    )
    return SplitSummary(len(records), counted, sizes, mean, std, statistics, widths, attributes)


def _pair_faults(dataset: Dataset) -> list[Fault]:
    if not isinstance(dataset, DiskDataset):
        return []
    faults = []
    owners: dict[Path, Path] = {}
    for index in range(len(dataset)):
        image, *masks = dataset.files(index)
        shared = [mask for mask in masks if owners.setdefault(mask, image) != image]
        if shared:
            text = f"shares the mask {shared[0]} with {owners[shared[0]]}; keep one image per mask"
            faults.append(Fault("duplicate_stem", str(image), text))
    stems = {mask.stem for mask in owners}
    for mask in dataset.strays():
        if mask.stem in stems:
            text = "is a second mask of its image; keep one of them"
            faults.append(Fault("duplicate_stem", str(mask), text))
        else:
            text = "mask has no image of the same stem; add the image or remove the mask"
            faults.append(Fault("missing_image", str(mask), text))
    return faults


def _leakage(records: Mapping[str, list[Record]]) -> list[Fault]:
    faults = []
    first: dict[str, tuple[str, str]] = {}
    for split, found in records.items():
        for record in found:
            # What cannot be decoded is known by its place.
            key = record.digest or os.path.realpath(record.path)
            other_split, other = first.setdefault(key, (split, record.path))
            if other_split.partition(".")[0] != split.partition(".")[0]:
                alike = "is the same file as" if other == record.path else "has the same pixels as"
                text = f"{alike} {other} of split {other_split}; keep it in one split"
                faults.append(Fault("leakage", record.path, text))
    return faults


def _empty_classes(split: str, dataset: Dataset, summary: SplitSummary) -> list[Fault]:
    faults = []
    for kind, statistics in summary.statistics.items():
        if not statistics.images:
            continue  # no mask can be read, which is told already
        pairs = zip(statistics.names, statistics.pixels, strict=True)
        for name in (name for name, pixels in pairs if not pixels):
            text = (
                f"class {name!r} of the {kind} labels has no pixel in split {split}; label some, "
                "or remove it from the classes"
            )
            faults.append(Fault("empty_class", _place_of(dataset, kind) or split, text))
    return faults


def _place_of(dataset: Dataset, kind: str) -> str:
    """Return the folder that holds all masks of a kind, "" for a set that is not on disk."""
    if not isinstance(dataset, DiskDataset):
        return ""
    position = 1 + dataset.kinds.index(kind)
    return os.path.commonpath([dataset.files(i)[position].parent for i in range(len(dataset))])
