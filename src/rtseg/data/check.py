"""Examine every file of a data set before training and name all faults, not only the first.

| fault | meaning |
|---|---|
| missing_image, missing_mask | half of a pair is not there |
| duplicate_stem | two images share a mask, or an image has two masks |
| unreadable | truncated, damaged or no image at all |
| exif_rotation | the image is stored turned; readers do not turn it, its mask would not fit |
| size_mismatch | image and mask differ in height or width |
| channel_count | a mask with colours and no colour table, an image that is neither RGB nor grey |
| bit_depth | an image of more than 8 bits, a mask of more than 16 |
| lossy_mask | a JPEG mask |
| value_outside_map | a mask holds a value without a label |
| all_ignore | a mask without a single labelled pixel or segment |
| too_small, too_large | outside `min_size` or `max_pixels` |
| leakage | the same pixels in two splits |
| empty_class | a class without a pixel in a split; a warning |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.data.check_cache import Record, RecordCache, file_state
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.files import FileFaultError, exif_orientation, read_image, require_fit
from rtseg.data.strokes import stroke_width
from rtseg.data.weights import (
    COUNTED_KINDS,
    ClassStatistics,
    class_names,
    count_labels,
    default_workers,
    summarize_counts,
)

STROKE_KINDS = ("lane",)
"""Label kinds that are drawn as strokes."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its kind (table above), the file, and what to do about it."""

    kind: str
    file: str
    message: str


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds, over its images that can be read.

    images: number of samples, bad ones included. sizes: images by (H, W). channel_mean: RGB mean
    over all pixels, 0-255, None without a readable image. statistics: by label kind, over readable
    masks. widths: by label kind that is drawn as strokes, their usual width in pixels (a network
    that learns wide lines scores badly on narrow ones).
    """

    images: int
    sizes: Mapping[tuple[int, int], int]
    channel_mean: tuple[float, float, float] | None
    statistics: Mapping[str, ClassStatistics]
    widths: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON-ready values."""
        sizes = [{"height": h, "width": w, "images": n} for (h, w), n in sorted(self.sizes.items())]
        return {
            "images": self.images,
            "sizes": sizes,
            "channel_mean": None if self.channel_mean is None else list(self.channel_mean),
            "labels": {kind: value.to_dict() for kind, value in self.statistics.items()},
            "stroke_widths": dict(self.widths),
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
            "ok": self.ok,
            "faults": [asdict(fault) for fault in self.faults],
            "warnings": [asdict(warning) for warning in self.warnings],
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
        }


def check_dataset(
    datasets: Dataset | Mapping[str, Dataset],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read every sample and report every fault.

    Args:
        datasets: A data set, or one per split (then leakage between them is looked for too).
        cache: Folder that remembers faultless files by path, size and time of change, separately
            for each meaning of the labels; None to read everything.
        workers: Threads; None for one per processor, at most 8.
        progress: Called as `progress(done, total)` after each sample.
    """
    splits = datasets if isinstance(datasets, Mapping) else {"all": datasets}
    total = sum(len(dataset) for dataset in splits.values())
    done = 0
    records: dict[str, list[Record]] = {}
    for name, dataset in splits.items():
        records[name] = []
        for record in _scan(dataset, cache=cache, workers=workers or default_workers()):
            records[name].append(record)
            done += 1
            if progress is not None:
                progress(done, total)
    summaries = {name: _summarize(dataset, records[name]) for name, dataset in splits.items()}
    faults: list[Fault] = []
    for name, dataset in splits.items():
        faults += [Fault(*fault) for record in records[name] for fault in record.faults]
        faults += _pair_faults(dataset)
    faults += _leakage(records)
    warnings = [fault for name in splits for fault in _empty_classes(name, summaries[name])]
    return CheckReport(faults=tuple(faults), warnings=tuple(warnings), splits=summaries)


# ---------------------------------------------------------------- one sample
def _scan(dataset: Dataset, *, cache: Path | None, workers: int) -> Iterator[Record]:
    """Examine every sample in order, on several threads."""
    if not isinstance(dataset, DiskDataset):
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(partial(_examine_sample, dataset), range(len(dataset)))
        return
    known = RecordCache(cache, dataset)

    def examine(index: int) -> Record:
        files = dataset.files(index)
        state = file_state(files)  # before reading: a file that changes meanwhile is read again
        record = known.get(str(files[0]), state)
        if record is None:
            record = _examine_files(dataset, files)
            known.put(str(files[0]), state, record)
        return record

    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(examine, range(len(dataset)))
    finally:
        known.save()


def _examine_files(dataset: DiskDataset, files: tuple[Path, ...]) -> Record:
    image_path, *mask_paths = files
    record = Record(path=str(image_path))
    image = None
    try:
        image = read_image(image_path, limits=dataset.limits)
        _note_image(record, image)
        _require_upright(image_path)
    except FileFaultError as error:
        record.add(error)
    for kind, path in zip(dataset.kinds, mask_paths, strict=True):
        try:
            labels = dataset.tables[kind].read(path)
            if image is not None:
                require_fit(image, labels, image_path=image_path, mask_path=path)
            _note_labels(record, dataset, kind, labels, where=str(path))
        except FileFaultError as error:
            record.add(error)
    return record


def _examine_sample(dataset: Dataset, index: int) -> Record:
    sample = dataset[index]
    record = Record(path=sample.path)
    _note_image(record, sample.image)
    place = Path(sample.path)
    for kind in dataset.kinds:
        labels = np.asarray(sample.labels[kind])
        try:
            require_fit(sample.image, labels, image_path=place, mask_path=place)
            _note_labels(record, dataset, kind, labels, where=sample.path)
        except FileFaultError as error:
            record.add(error)
    return record


def _note_image(record: Record, image: NDArray[Any]) -> None:
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image)
    record.size = [height, width]
    record.digest = sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()
    # Rows first in 32 bits: about 15 times as fast as one sum over both axes.
    columns = np.add.reduce(pixels, axis=0, dtype=np.uint32)
    record.channel_sum = columns.sum(axis=0, dtype=np.uint64).tolist()


def _require_upright(path: Path) -> None:
    orientation = exif_orientation(path)
    if orientation != 1:
        raise FileFaultError(
            f"image has the EXIF orientation {orientation}, so viewers show it turned",
            kind="exif_rotation",
            where=str(path),
            fix="turn the pixels as its mask needs it and remove the tag",
        )


def _note_labels(
    record: Record, dataset: Dataset, kind: str, labels: NDArray[Any], *, where: str
) -> None:
    if kind in COUNTED_KINDS:
        num_classes = len(class_names(dataset, kind))
        counts = count_labels(labels, num_classes=num_classes, where=where)
        record.counts[kind] = counts
        width = stroke_width(labels) if kind in STROKE_KINDS else None
        if width is not None:
            record.widths[kind] = width
        empty = not any(counts[:-1])
    else:
        empty = not labels.any()  # segment ids: 0 is void
    if empty:
        raise FileFaultError(
            f"every pixel of the {kind} mask is ignored",
            kind="all_ignore",
            where=where,
            fix="label it, correct label_map, or remove the pair",
        )


# ---------------------------------------------------------------- the whole set
def _summarize(dataset: Dataset, records: list[Record]) -> SplitSummary:
    sizes = Counter((record.size[0], record.size[1]) for record in records if record.size)
    pixels = sum(height * width * count for (height, width), count in sizes.items())
    sums = [sum(record.channel_sum[channel] for record in records) for channel in range(3)]
    statistics = {}
    for kind in dataset.kinds:
        if kind in COUNTED_KINDS:
            counts = [record.counts[kind] for record in records if kind in record.counts]
            statistics[kind] = summarize_counts(counts, class_names(dataset, kind))
    mean = (sums[0] / pixels, sums[1] / pixels, sums[2] / pixels) if pixels else None
    widths = {}
    for kind in STROKE_KINDS:
        found = [record.widths[kind] for record in records if kind in record.widths]
        if found:
            widths[kind] = float(np.median(found))
    return SplitSummary(len(records), sizes, mean, statistics, widths)


def _pair_faults(dataset: Dataset) -> list[Fault]:
    if not isinstance(dataset, DiskDataset):
        return []
    faults = []
    owners: dict[Path, Path] = {}
    for index in range(len(dataset)):
        image, *masks = dataset.files(index)
        shared = [mask for mask in masks if owners.setdefault(mask, image) is not image]
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
            if not record.digest:
                continue
            other_split, other = first.setdefault(record.digest, (split, record.path))
            if other_split != split:
                text = (
                    f"has the same pixels as {other} of split {other_split}; keep it in one split"
                )
                faults.append(Fault("leakage", record.path, text))
    return faults


def _empty_classes(split: str, summary: SplitSummary) -> list[Fault]:
    return [
        Fault(
            "empty_class", split, f"class {name!r} of the {kind} labels has no pixel in this split"
        )
        for kind, statistics in summary.statistics.items()
        for name, pixels in zip(statistics.names, statistics.pixels, strict=True)
        if not pixels
    ]
