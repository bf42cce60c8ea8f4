"""Open a data set as the command line names it, and find the data sets below a folder.

| text | data set |
|---|---|
| `mydata`, `mydata/data.yaml` | native folder |
| `camvid=data/camvid` | built-in reader with its root |
| `camvid` | the same with the root `$RTSEG_DATASETS/camvid`, or `data/camvid` if that is unset |
| `synthetic` | scenes drawn on demand, no root |
"""

from __future__ import annotations

import inspect
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtseg import config
from rtseg.data import DATASETS
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.native import load_description
from rtseg.errors import ConfigError, DataError, RtsegError, nearest

SPLITS = ("train", "val", "test")
"""Splits of the built-in readers; a native folder lists its own."""
DESCRIPTION = "data.yaml"
_NAMED = re.compile(r"(\w+)=(.+)")
_SEARCH_DEPTH = 3
_GENERIC = "image_folder"  # reads many a part of another layout too, so it yields to other readers


def open_data(spec: str, split: str, *, options: Mapping[str, Any] | None = None) -> Dataset:
    """Open one split of a data set.

    Args:
        spec: As in the table at the top of this module.
        split: Its name.
        options: Further keyword arguments of the reader, such as `length` of `synthetic`.

    Raises:
        ConfigError: The name, the split or an option is unknown.
        DataError: The data are missing or broken.
    """
    name, root = parse_spec(spec)
    place = {} if root is None else {"root": str(root)}
    section = {**place, "split": split, **(options or {})}
    return config.call(DATASETS[name], section, section=name)


def open_splits(spec: str, *, options: Mapping[str, Any] | None = None) -> dict[str, Dataset]:
    """Open all splits of a data set that are there, by name.

    Raises:
        ConfigError: The name or an option is unknown, or `data.yaml` is wrong.
        DataError: No split is there, or one is broken.
    """
    name, root = parse_spec(spec)
    if name == "native" and root is not None:
        file = root if root.suffix in {".yaml", ".yml"} else root / DESCRIPTION
        splits = load_description(file).splits
        return {split: open_data(spec, split, options=options) for split in splits}
    found: dict[str, Dataset] = {}
    missing: list[DataError] = []
    for split in SPLITS:
        try:
            found[split] = open_data(spec, split, options=options)
        except DataError as error:
            if not error.where or Path(error.where).exists():
                raise  # there, but broken
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def parse_spec(spec: str) -> tuple[str, Path | None]:
    """Return the key of `DATASETS` and the root (None if the reader has none) that a text means.

    Raises:
        ConfigError: It names no reader.
        DataError: It is a path without a `data.yaml`.
    """
    path = Path(spec)
    if path.exists() and spec not in DATASETS:
        return _native(path)
    named = _NAMED.fullmatch(spec)
    if named:
        name, root = _known(named[1]), Path(named[2])
        if not _has_root(name):
            raise ConfigError(f"{name} has no root", where=spec, fix=f"write {name}")
        return name, root
    if spec in DATASETS and spec != "native":
        base = Path(os.environ.get("RTSEG_DATASETS", "data"))
        return spec, base / spec if _has_root(spec) else None
    raise DataError(
        "does not exist",
        where=spec,
        fix="give a folder with a data.yaml, or NAME=ROOT with one of the names "
        f"{', '.join(sorted(DATASETS))}",
    )


def _native(path: Path) -> tuple[str, Path]:
    if path.is_file() or (path / DESCRIPTION).is_file():
        return "native", path
    known = next((item.spec for _, _, item in _built_in(path)), "")
    fix = f"write {known}" if known else "add one, or write NAME=ROOT for a built-in layout"
    raise DataError(f"holds no {DESCRIPTION}", where=str(path), fix=fix)


def _known(name: str) -> str:
    if name not in DATASETS:
        close = ", ".join(nearest(name, DATASETS))
        raise ConfigError(f"data set {name!r} is unknown", fix=f"did you mean one of: {close}?")
    return name


def _has_root(name: str) -> bool:
    return "root" in inspect.signature(DATASETS[name]).parameters


# ---------------------------------------------------------------- searching
@dataclass(frozen=True)
class Gap:
    """Something that a data set lacks.

    kind: `file` of a sample; `folder` that is not there, with how many `files` of samples; `split`
    that does not open. path: of the file, of the topmost absent folder, or of what keeps the split
    from opening, below the root. what: the fault.
    """

    split: str
    kind: Literal["file", "folder", "split"]
    path: str
    files: int = 1
    what: str = "is missing"


@dataclass(frozen=True)
class Found:
    """A data set on disk.

    spec: the text that opens it. images, complete: by split, the samples and those of which every
    file is there. kinds, classes: of its labels. missing: what is not there. error: why it cannot
    be opened at all.
    """

    spec: str
    images: Mapping[str, int] = field(default_factory=dict)
    complete: Mapping[str, int] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    missing: tuple[Gap, ...] = ()
    error: str = ""


def find_data(root: Path) -> list[Found]:
    """Find native folders and the layouts of built-in readers, at most 3 levels below `root`.

    A set is there if one of its images is. A reader of a published layout may have a class
    attribute `marks`: paths below its root of which one is there wherever the layout is, so that a
    set without images, or of which no split opens, is found as well.

    Raises:
        DataError: `root` is no folder.
    """
    if not root.is_dir():
        raise DataError("is no folder", where=str(root), fix="give a folder to search")
    found: dict[tuple[str, Path], tuple[Path, Found]] = {}
    for folder in _folders(root, _SEARCH_DEPTH):
        for name, image, item in _examine(folder):
            # Some readers also open the folder above their root: the innermost one is kept.
            found[name, image] = (folder, item)
    claimed = [folder for (name, _), (folder, _) in found.items() if name != _GENERIC]
    return [
        item
        for (name, _), (folder, item) in found.items()
        if name != _GENERIC or not any(folder.is_relative_to(other) for other in claimed)
    ]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it; what lies inside of a native folder is left out."""
    yield folder
    if depth == 0 or (folder / DESCRIPTION).is_file():
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return  # not ours to read
    for name in names:
        if not name.startswith("."):
            yield from _folders(folder / name, depth - 1)


def _examine(folder: Path) -> Iterator[tuple[str, Path, Found]]:
    """Yield reader, first image (without any the folder) and description of each set at a root."""
    others = list(_built_in(folder))
    if (folder / DESCRIPTION).is_file():
        _, item = _look("native", folder)
        if item.images or not others:  # another layout may have a `data.yaml`, too
            yield "native", folder, item
    yield from others


def _built_in(folder: Path) -> Iterator[tuple[str, Path, Found]]:
    for name in DATASETS:
        if name != "native" and _has_root(name):
            image, item = _look(name, folder)
            if image is not None or any((folder / mark).exists() for mark in _marks(name)):
                yield name, image or folder, item


def _marks(name: str) -> tuple[str, ...]:
    marks: tuple[str, ...] = getattr(DATASETS[name], "marks", ())
    return marks


def _look(name: str, folder: Path) -> tuple[Path | None, Found]:
    """Open every split of a data set; return an image of it, and what is there and what is not."""
    plain = name == "native" and str(folder) not in DATASETS  # a folder may be called `voc`
    spec = str(folder) if plain else f"{name}={folder}"
    try:
        splits = load_description(folder / DESCRIPTION).splits if name == "native" else SPLITS
    except RtsegError as error:
        return None, Found(spec, error=str(error))
    opened: dict[str, DiskDataset] = {}
    missing: list[Gap] = []
    for split in splits:
        try:
            dataset = DATASETS[name](root=folder, split=split)
        except ConfigError:
            continue  # the reader has no such split
        except DataError as error:
            missing += _unopened(name, split, error, folder)
            continue
        if isinstance(dataset, DiskDataset):
            opened[split] = dataset
    if not opened:
        return None, Found(spec, missing=tuple(missing))
    complete = {}
    for split, item in opened.items():
        complete[split], gaps = _compare(split, item, folder)
        missing += gaps
    first = next(iter(opened.values()))
    images = {split: len(item) for split, item in opened.items()}
    names = tuple(info.name for info in first.classes)
    found = Found(spec, images, complete, tuple(first.kinds), names, tuple(missing))
    paths = (item.files(index)[0] for item in opened.values() for index in range(len(item)))
    return next((path for path in paths if path.is_file()), None), found


def _unopened(name: str, split: str, error: DataError, root: Path) -> list[Gap]:
    """Say why a split does not open; a layout that is nobody's release needs not have it at all."""
    place = Path(error.where)
    if error.where == f"{name} {split}" or not place.is_relative_to(root):
        return []  # labels that are not published
    if place.exists():
        return [Gap(split, "split", str(place.relative_to(root)), 0, error.what)]
    if name == "native" or _marks(name):
        return [Gap(split, "split", _topmost_absent(place, root, {}), 0)]
    return []


def _compare(split: str, dataset: DiskDataset, root: Path) -> tuple[int, list[Gap]]:
    """Count the samples of which every file is there, and name what the others lack."""
    complete = 0
    files: list[str] = []
    folders: Counter[str] = Counter()
    known: dict[Path, bool] = {}
    for index in range(len(dataset)):
        lost = [path for path in dict.fromkeys(dataset.files(index)) if not path.is_file()]
        complete += not lost
        for path in lost:
            place = _topmost_absent(path, root, known)
            if root / place == path:
                files.append(place)
            else:
                folders[place] += 1
    gaps = [Gap(split, "folder", place, count) for place, count in sorted(folders.items())]
    return complete, gaps + [Gap(split, "file", place) for place in files]


def _topmost_absent(path: Path, root: Path, known: dict[Path, bool]) -> str:
    """Return the outermost part of an absent path that is absent itself, relative to the root."""
    if not path.is_relative_to(root):
        return str(path)
    for folder in reversed(path.relative_to(root).parents[:-1]):
        place = root / folder
        if place not in known:
            known[place] = place.is_dir()
        if not known[place]:
            return str(folder)
    return str(path.relative_to(root))
