"""Write any data set in the native layout (top of `native.py`); reading that gives equal samples.

Image files are copied or linked as they are; those that the native layout cannot hold (drawn on
demand, turned by EXIF, of an unknown suffix) become PNG files with the pixels that their reader
gives. Label maps become PNG files of class ids and 255. A sample is named by the stem of its image;
where several have the same one (cities, cameras), by its folder and stem.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtseg.data.atomic import require_replaceable, whole_folder
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.decode import exif_orientation, open_picture
from rtseg.data.files import IMAGE_SUFFIXES, Limits
from rtseg.data.native import KINDS
from rtseg.data.panoptic_png import write_panoptic_json, write_panoptic_png
from rtseg.data.weights import default_workers
from rtseg.errors import ConfigError, DataError
from rtseg.structures import ROAD_LANE_KINDS, ROAD_LANE_PALETTE, ClassInfo, Sample, Segment
from rtseg.visualize import write_image, write_mask, write_text

CONTENT = ("data.yaml", "images", "masks", "attributes")
"""Entries of a folder in the native layout."""

PanopticItem = tuple[str, str, NDArray[Any], Sequence[Segment]]
"""Image, picture of ids, ids and segments: what `write_panoptic_json` takes."""


@dataclass(frozen=True)
class Conversion:
    """What was written: images by split, and how many of them were copied, linked, encoded anew."""

    images: Mapping[str, int]
    copied: int
    linked: int
    encoded: int

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON-ready values."""
        return asdict(self)


def convert(
    datasets: Mapping[str, Dataset],
    folder: Path,
    *,
    images: Literal["copy", "link"] = "copy",
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write data sets as the splits of a native folder, which appears as a whole or not at all.

    Args:
        datasets: By the name of their split; they have the same classes and label kinds.
        folder: Where `data.yaml` goes.
        images: Copy image files, or make symbolic links to them, which need no space but break
            when the originals move.
        overwrite: Replace an older native folder; one that holds anything else is never replaced.
        workers: Threads; None for one per processor, at most 8.
        progress: Called as `progress(done, total)` after each sample.

    Raises:
        ConfigError: A label kind has no place in the native layout, or the splits differ in classes
            or kinds.
        DataError: The folder exists, or a file cannot be read or written.
    """
    first = _require_alike(datasets)
    require_replaceable(folder, CONTENT, overwrite=overwrite)
    _require_outside(datasets, folder)
    total = sum(len(dataset) for dataset in datasets.values())
    done: Counter[str] = Counter()

    def count(way: str) -> None:
        done[way] += 1
        if progress is not None:
            progress(done.total(), total)

    with whole_folder(folder) as new:
        for split, dataset in datasets.items():
            writer = _Writer(new, split, dataset, images)
            writer.write(workers or default_workers(), after=count)
            if writer.attributes:
                text = json.dumps(writer.attributes, ensure_ascii=False, indent=1)
                write_text(new / "attributes" / f"{split}.json", text + "\n")
        write_text(new / "data.yaml", _description(list(datasets), first))
    counts = {split: len(dataset) for split, dataset in datasets.items()}
    return Conversion(counts, done["copied"], done["linked"], done["encoded"])


# ---------------------------------------------------------------- before anything is written
def _require_alike(datasets: Mapping[str, Dataset]) -> Dataset:
    """Return one of the data sets, which stands for all."""
    (name, first), *others = datasets.items()
    for kind in first.kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"labels of kind {kind!r} have no place in the native layout",
                where=name,
                fix=f"choose a data set with {', '.join(KINDS)} labels",
            )
    for split, dataset in others:
        for what in ("classes", "kinds"):
            if tuple(getattr(dataset, what)) != tuple(getattr(first, what)):
                raise ConfigError(
                    f"{what} of {split} differ from those of {name}",
                    where=split,
                    fix="convert the splits into one folder each",
                )
    return first


def _require_outside(datasets: Mapping[str, Dataset], folder: Path) -> None:
    """Raise if files that are to be read lie in the folder that is to be replaced."""
    if not folder.exists():
        return
    target = folder.resolve()
    for dataset in datasets.values():
        if not isinstance(dataset, DiskDataset):
            continue
        for index in range(len(dataset)):
            for file in dataset.files(index):
                if file.resolve().is_relative_to(target):
                    raise DataError(
                        "holds the data that are to be converted",
                        where=str(folder),
                        fix="choose another folder",
                    )


# ---------------------------------------------------------------- samples
class _Written(NamedTuple):
    """What became of a sample: its name, its image file, how that came about, and its rest."""

    name: str
    image: str
    way: str
    sample: Sample


class _Writer:
    """Writes the samples of one split."""

    def __init__(self, folder: Path, split: str, dataset: Dataset, images: str) -> None:
        self.dataset, self.images = dataset, images
        self.names = _names(dataset)
        self.image_folder = folder / "images" / split
        several = len(dataset.kinds) > 1
        masks = folder / "masks"
        self.mask_folders = {
            kind: masks / kind / split if several else masks / split for kind in dataset.kinds
        }
        colors = tuple(item.color for item in dataset.classes)
        road_lane = dict(zip(ROAD_LANE_KINDS, ROAD_LANE_PALETTE, strict=True))
        self.palettes = {
            kind: ((0, 0, 0), road_lane[kind]) if kind in road_lane else colors
            for kind in dataset.kinds
        }
        self.attributes: dict[str, Mapping[str, str]] = {}

    def write(self, workers: int, *, after: Callable[[str], None]) -> None:
        """Write all samples and their segments; `after` is told what became of each image."""
        self.image_folder.mkdir(parents=True)
        written = self._write_all(workers, after)
        folder = self.mask_folders.get("panoptic")
        if folder is None:
            deque(written, maxlen=0)
        else:
            classes = dict(enumerate(self.dataset.classes))
            file = folder.with_name(f"{folder.name}.json")
            write_panoptic_json(file, classes, map(_panoptic_item, written))

    def _write_all(self, workers: int, after: Callable[[str], None]) -> Iterator[_Written]:
        for written in _in_order(self._write, len(self.dataset), workers):
            if written.sample.attributes:
                self.attributes[written.name] = written.sample.attributes
            after(written.way)
            yield written

    def _write(self, index: int) -> _Written:
        sample, name = self.dataset[index], self.names[index]
        image, way = self._write_image(index, sample, name)
        for kind, folder in self.mask_folders.items():
            labels, target = sample.labels[kind], folder / f"{name}.png"
            if kind == "panoptic":
                write_panoptic_png(target, labels)
            else:
                write_mask(target, labels, self.palettes[kind])
        return _Written(name, image, way, sample)

    def _write_image(self, index: int, sample: Sample, name: str) -> tuple[str, str]:
        """Return the name of the file, and how it came about."""
        source = self.dataset.files(index)[0] if isinstance(self.dataset, DiskDataset) else None
        if source is None or not _is_plain(source):
            target = self.image_folder / f"{name}.png"
            write_image(target, sample.image)
            return target.name, "encoded"
        target = self.image_folder / f"{name}{source.suffix}"
        if self.images == "link":
            target.symlink_to(source.resolve())
            return target.name, "linked"
        shutil.copyfile(source, target)
        return target.name, "copied"


def _panoptic_item(written: _Written) -> PanopticItem:
    """Return what a JSON file of segments says about a sample; covered segments are left out."""
    ids = written.sample.labels["panoptic"]
    shown = set(np.unique(ids).tolist())
    visible = [segment for segment in written.sample.segments if segment.id in shown]
    return written.image, f"{written.name}.png", ids, visible


def _in_order(write: Callable[[int], _Written], count: int, workers: int) -> Iterator[_Written]:
    """Yield `write(0)`, `write(1)`, ... computed on threads, few at a time: samples are large."""
    waiting: deque[Future[_Written]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for index in range(count):
            waiting.append(pool.submit(write, index))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _is_plain(image: Path) -> bool:
    """Whether the native layout may hold an image file as it is."""
    if image.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    return exif_orientation(open_picture(image, missing="missing_image")) == 1


def _names(dataset: Dataset) -> tuple[str, ...]:
    """Return a name for each sample: no two are equal, even where case does not count."""
    if not isinstance(dataset, DiskDataset):
        return tuple(f"{index:06d}" for index in range(len(dataset)))
    images = [dataset.files(index)[0] for index in range(len(dataset))]
    stems = [image.stem.lstrip(".") for image in images]
    seen = Counter(map(str.casefold, stems))
    taken: set[str] = set()
    names = []
    for image, stem in zip(images, stems, strict=True):
        longer = f"{image.parent.name}_{stem}"
        numbered = (f"{longer}_{number}" for number in itertools.count(2))
        alone = seen[stem.casefold()] == 1
        candidates = itertools.chain([stem] if alone else [], [longer], numbered)
        name = next(item for item in candidates if item.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


# ---------------------------------------------------------------- descriptions
def _description(splits: Sequence[str], dataset: Dataset) -> str:
    """Return the `data.yaml`; texts are quoted as in JSON, which YAML understands."""
    limits = dataset.limits if isinstance(dataset, DiskDataset) else Limits()
    lines = [f"splits: {_quoted(list(splits))}", f"labels: [{', '.join(dataset.kinds)}]"]
    if dataset.classes:
        lines.append("classes:")
        lines += [f"  {index}: {_entry(item)}" for index, item in enumerate(dataset.classes)]
    lines += [f"{key}: {value}" for key, value in asdict(limits).items() if value is not None]
    return "\n".join(lines) + "\n"


def _entry(item: ClassInfo) -> str:
    thing = ", thing: true" if item.thing else ""
    return f"{{name: {_quoted(item.name)}, color: {list(item.color)}{thing}}}"


def _quoted(value: str | list[str]) -> str:
    # OmegaConf, which reads the file, takes `${...}` for a reference to another key.
    return json.dumps(value, ensure_ascii=False).replace("${", "\\\\${")
