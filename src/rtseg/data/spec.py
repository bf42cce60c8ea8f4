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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    known = next(_readers(path), None)
    fix = (
        f"write {known[0]}={path}" if known else "add one, or write NAME=ROOT for a built-in layout"
    )
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
class Found:
    """A data set on disk: the text that opens it, its images by split, or why it does not open."""

    spec: str
    images: Mapping[str, int] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    error: str = ""


def find_data(root: Path) -> list[Found]:
    """Find native folders and the layouts of built-in readers, at most 3 levels below `root`.

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
    """Yield a folder and those below it; what lies inside of a data set is left out."""
    yield folder
    if depth == 0 or (folder / DESCRIPTION).is_file():
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _folders(entry, depth - 1)


def _examine(folder: Path) -> Iterator[tuple[str, Path, Found]]:
    """Yield reader, first image (for a native folder its description) and description."""
    if (folder / DESCRIPTION).is_file():
        yield "native", folder / DESCRIPTION, _describe(str(folder))
    for name, image in _readers(folder):
        yield name, image, _describe(f"{name}={folder}")


def _readers(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the built-in readers that find images in a folder, with the first image."""
    for name in DATASETS:
        if name == "native" or not _has_root(name):
            continue
        try:
            splits = open_splits(f"{name}={folder}")
        except RtsegError:
            continue
        first = next(iter(splits.values()))
        if isinstance(first, DiskDataset) and (image := first.files(0)[0]).is_file():
            yield name, image


def _describe(spec: str) -> Found:
    try:
        splits = open_splits(spec)
    except RtsegError as error:
        return Found(spec, error=str(error))
    first = next(iter(splits.values()))
    images = {split: len(dataset) for split, dataset in splits.items()}
    names = tuple(item.name for item in first.classes)
    return Found(spec, images, tuple(first.kinds), names)
