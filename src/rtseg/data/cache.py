"""Decoded copies of data sets, in a form that is read without decoding.

```
folder/samples.bin    image and labels of every sample, one after the other, uncompressed
folder/index.json     where each array lies; paths, segments, attributes; what it was made of
```
A sample of the copy equals that of the original bit for bit. Whether the original is still the same
is looked at when a copy is opened: its files by size and time of change, its classes and the
meaning of its label values, and its first sample by value.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rtseg import config
from rtseg.data.atomic import require_replaceable, whole_folder
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.weights import default_workers
from rtseg.errors import DataError, RtsegError
from rtseg.structures import ClassInfo, Sample, Segment

SAMPLES, INDEX = "samples.bin", "index.json"
_FORMAT = 1
_ALIGNMENT = 64  # of each array in the file, in bytes
_CHUNK = 64  # samples decoded ahead
_PROBES = 16  # samples from which the size of all is told
_AGAIN = "build it again with `rtseg data cache --overwrite`"


@dataclass(frozen=True)
class CacheSummary:
    """What was written: the folder, its samples, and the size of all files in bytes."""

    folder: Path
    samples: int
    bytes: int


# ---------------------------------------------------------------- writing
def write_cache(
    dataset: Dataset,
    folder: Path,
    *,
    source: Mapping[str, Any],
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CacheSummary:
    """Write a decoded copy of a data set, for `Cached` to read.

    The folder appears when it is complete; a build that is interrupted leaves nothing behind.

    Args:
        dataset: Any data set.
        folder: Where to write; usually `<root of the copy>/<split>`.
        source: What opens the data set again: `name` of the reader and its keyword arguments.
        overwrite: Replace an older copy.
        progress: Called as `progress(done, total)` after each sample.

    Raises:
        DataError: The folder holds something, the disk is too small, or a sample cannot be read.
    """
    require_replaceable(folder, {SAMPLES, INDEX}, overwrite=overwrite)
    _require_space(dataset, folder)
    document = {"format": _FORMAT, "source": _absolute(source), **_description(dataset)}
    with whole_folder(folder) as partial:
        with (partial / SAMPLES).open("wb") as stream:
            entries = []
            for entry in _write_samples(dataset, stream):
                entries.append(entry)
                if progress is not None:
                    progress(len(entries), len(dataset))
            size = stream.tell()
            _flush(stream)
        with (partial / INDEX).open("wb") as stream:
            text = json.dumps({**document, "bytes": size, "samples": entries})
            size += stream.write(text.encode())
            _flush(stream)
    return CacheSummary(folder, len(entries), size)


def _require_space(dataset: Dataset, folder: Path) -> None:
    """Raise if the disk has less room than the samples will need, told from some of them."""
    probes = np.unique(np.linspace(0, len(dataset) - 1, _PROBES).astype(int)).tolist()
    sizes = [sum(map(_room, _arrays(dataset[index]).values())) for index in probes]
    needed = sum(sizes) * len(dataset) // len(sizes)
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"needs about {_gibibytes(needed)}, and {_gibibytes(free)} are free",
            where=str(folder),
            fix="make room, or choose a folder on another disk",
        )


def _write_samples(dataset: Dataset, stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """Write every sample; yield its entry of the index."""

    def read(index: int) -> tuple[list[list[Any]], Sample]:
        # The state comes first: a file that changes while it is read makes the copy stale.
        return _state(dataset, index), dataset[index]

    with ThreadPoolExecutor(default_workers()) as pool:
        for start in range(0, len(dataset), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(dataset)))
            for state, sample in pool.map(read, chunk):
                begin = stream.tell()
                yield {
                    "path": sample.path,
                    "segments": [[s.id, s.class_id, s.crowd] for s in sample.segments],
                    "attributes": dict(sample.attributes),
                    "state": state,
                    "begin": begin,
                    "arrays": _write_arrays(_arrays(sample), stream),
                    "length": stream.tell() - begin,
                }


def _write_arrays(arrays: Mapping[str, NDArray[Any]], stream: BinaryIO) -> dict[str, list[Any]]:
    """Write arrays, aligned; return type, shape and place in the sample of each by its name."""
    places: dict[str, list[Any]] = {}
    offset = 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        stream.write(data + bytes(_room(array) - len(data)))
        places[name] = [array.dtype.str, list(array.shape), offset]
        offset += _room(array)
    return places


def _arrays(sample: Sample) -> dict[str, NDArray[Any]]:
    return {"image": sample.image, **{f"label {kind}": v for kind, v in sample.labels.items()}}


def _room(array: NDArray[Any]) -> int:
    """Return the bytes that an array takes in the file."""
    return -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


# ---------------------------------------------------------------- what a copy was made of
def _absolute(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source with a root that does not depend on the working folder."""
    options = {key: str(item) if isinstance(item, Path) else item for key, item in source.items()}
    if "root" in options:
        options["root"] = str(Path(options["root"]).absolute())
    return options


def _description(dataset: Dataset) -> dict[str, Any]:
    """Return classes, label kinds and a hash of what label values mean."""
    meaning = ""
    if isinstance(dataset, DiskDataset):
        tables = {kind: dataset.tables[kind] for kind in dataset.kinds}
        meaning = re.sub(r" at 0x[0-9a-f]+", "", repr((tables, dataset.limits)))
    return {
        "classes": [[c.name, list(c.color), c.thing] for c in dataset.classes],
        "kinds": list(dataset.kinds),
        "meaning": sha256(meaning.encode()).hexdigest(),
    }


def _state(dataset: Dataset, index: int) -> list[list[Any]]:
    """Return path, size and time of change of the files of a sample; nothing if it is drawn."""
    if not isinstance(dataset, DiskDataset):
        return []
    states = []
    for path in dataset.files(index):
        try:
            status = path.stat()
            states.append([str(path.absolute()), status.st_size, status.st_mtime_ns])
        except OSError:
            states.append([str(path.absolute()), -1, -1])
    return states


# ---------------------------------------------------------------- reading
class Cached:
    """Samples of a decoded copy, with classes, label kinds, paths and attributes of the original.

    Args:
        root: Folder that holds one copy for each split.
        split: Name of a folder there.
        verify: Whether to compare the copy with its original, which must be there then.

    Raises:
        DataError: There is no such copy, it is damaged, or the original has changed.
    """

    def __init__(self, root: str | Path, *, split: str, verify: bool = True) -> None:
        self._folder = Path(root) / split
        self._index = _read_index(self._folder)
        self._samples: list[dict[str, Any]] = self._index["samples"]
        self.classes: tuple[ClassInfo, ...] = tuple(
            ClassInfo(name, tuple(color), thing) for name, color, thing in self._index["classes"]
        )
        self.kinds: tuple[str, ...] = tuple(self._index["kinds"])
        if verify:
            self._verify()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        """Read a sample.

        Raises:
            DataError: The file of samples is not there or too short.
        """
        entry = self._samples[index]
        file = self._folder / SAMPLES
        try:
            block = np.fromfile(file, np.uint8, count=entry["length"], offset=entry["begin"])
        except OSError as error:
            raise _damaged(file, f"cannot be read ({error.strerror})") from None
        if block.size != entry["length"]:
            raise _damaged(file, "is shorter than its index says")
        arrays = {name: _array(block, *place) for name, place in entry["arrays"].items()}
        image = arrays.pop("image")
        labels = {name.removeprefix("label "): array for name, array in arrays.items()}
        segments = tuple(Segment(*item) for item in entry["segments"])
        return Sample(image, labels, segments, entry["path"], entry["attributes"])

    def attributes(self, index: int, /) -> Mapping[str, str]:
        """Return the attributes of a sample without reading it."""
        found: Mapping[str, str] = self._samples[index]["attributes"]
        return found

    def _verify(self) -> None:
        from rtseg.data import DATASETS

        source = self._index["source"]
        name = source["name"]
        options = {key: value for key, value in source.items() if key != "name"}
        try:
            original = config.call(DATASETS[name], options, section=name)
            change = self._change(original)
        except (RtsegError, KeyError) as error:
            change = f"the original cannot be read any more ({error})"
        if change:
            raise DataError(
                f"is out of date: {change}",
                where=str(self._folder),
                fix=f"{_AGAIN}, or give `verify: false` to use it as it is",
            )

    def _change(self, original: Dataset) -> str:
        """Say how the original differs from what it was; an empty text if in nothing."""
        if len(original) != len(self):
            return f"the original has {len(original)} samples, the copy {len(self)}"
        for index, entry in enumerate(self._samples):
            for now, then in zip(_state(original, index), entry["state"], strict=False):
                if now != then:
                    return f"{now[0]} has changed"
        described = _description(original)
        for key, what in (
            ("classes", "classes"), ("kinds", "label kinds"), ("meaning", "label values"),
        ):  # fmt: skip
            if described[key] != self._index[key]:
                return f"the {what} of the original have changed"
        return "" if _equal(original[0], self[0]) else "the original reads its first sample anew"


def _read_index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = index["format"] == _FORMAT
        complete = (folder / SAMPLES).stat().st_size == index["bytes"]
    except FileNotFoundError:
        raise DataError(
            "holds no decoded copy of a data set",
            where=str(folder),
            fix="make one with `rtseg data cache`, and set root to the folder above its splits",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, f"is damaged ({error})") from None
    if not known:
        raise _damaged(file, "was written by another version")
    if not complete:
        raise _damaged(folder / SAMPLES, "has another size than its index says")
    return index


def _damaged(file: Path, what: str) -> DataError:
    return DataError(what, where=str(file), fix=_AGAIN)


def _array(block: NDArray[np.uint8], dtype: str, shape: Sequence[int], offset: int) -> NDArray[Any]:
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return block[offset : offset + count].view(kind).reshape(shape)


def _equal(one: Sample, two: Sample) -> bool:
    arrays, others = _arrays(one), _arrays(two)
    same = arrays.keys() == others.keys() and all(
        arrays[name].dtype == others[name].dtype and np.array_equal(arrays[name], others[name])
        for name in arrays
    )
    facts = [(item.segments, dict(item.attributes)) for item in (one, two)]
    return same and facts[0] == facts[1]
