"""Remember what a data check found in files that have not changed since."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from rtseg.data.dataset import DiskDataset
from rtseg.data.files import FileFaultError
from rtseg.data.weights import class_names
from rtseg.visualize import write_text

_FORMAT = 3  # part of the file name: raise it when `Record` or the meaning of a fault changes


@dataclass
class Record:
    """What was found in one sample; JSON-ready.

    size: (H, W) of the image, None if it cannot be read. digest: of its pixels. channel_sum,
    channel_squares: of its pixels and of their squares, by channel. counts: by label kind, pixels
    of each class and of void. widths: by label kind, of strokes in pixels. attributes: of the
    sample. faults: kind, file and message of each.
    """

    path: str
    size: list[int] | None = None
    digest: str = ""
    channel_sum: list[int] = field(default_factory=lambda: [0, 0, 0])
    channel_squares: list[int] = field(default_factory=lambda: [0, 0, 0])
    counts: dict[str, list[int]] = field(default_factory=dict)
    widths: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    faults: list[list[str]] = field(default_factory=list)

    def add(self, error: FileFaultError) -> None:
        """Note a fault, once if several label kinds come from the same file."""
        fault = [error.kind, error.where, f"{error.what}; {error.fix}"]
        if fault not in self.faults:
            self.faults.append(fault)


class RecordCache:
    """Records of one data set in one JSON file, by path, size and time of change of the files.

    The file's name holds a hash of the folders and of what label values mean, so that a changed
    `data.yaml` starts afresh. Records with faults are not kept: what is wrong is looked at again.

    Args:
        folder: Where the file lies; None for no cache.
        dataset: The data set; its folders and tables choose the file.
    """

    def __init__(self, folder: Path | None, dataset: DiskDataset) -> None:
        self._file = None if folder is None else folder / f"{_identity(dataset)}.json"
        self._records = {} if self._file is None else _load(self._file)
        self._changed = False

    def get(self, path: str, state: str) -> Record | None:
        """Return the record of the sample with this image, or None if its files have changed."""
        known_state, record = self._records.get(path, ("", None))
        return record if known_state == state else None

    def put(self, path: str, state: str, record: Record) -> None:
        """Remember the record of a sample unless it has faults."""
        if not record.faults:
            self._records[path] = (state, record)
            self._changed = True

    def save(self) -> None:
        """Write all records; whoever reads the file finds the old or the new one, never a part.

        Raises:
            DataError: The file cannot be written.
        """
        if self._file is not None and self._changed:
            items = self._records.items()
            stored = {path: [state, asdict(record)] for path, (state, record) in items}
            write_text(self._file, json.dumps(stored))


def cache_folder(part: str = "check") -> Path | None:
    """Return where something is kept for this user; None if nothing can be written there.

    It is `$RTSEG_CACHE/<part>`, else `$XDG_CACHE_HOME/rtseg/<part>`, else below `~/.cache`.
    """
    own, root = os.environ.get("RTSEG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        home = (Path(root) if root else Path.home() / ".cache") / "rtseg"
        folder = (Path(own) if own else home) / part
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that is not there or not writable
        return None
    return folder if os.access(folder, os.W_OK) else None


def file_state(files: Sequence[Path]) -> str:
    """Return path, size and times of change of files as one text.

    The second time is that of the file system, which a copy with its old dates does not carry.
    """
    parts = []
    for path in files:
        try:
            status = path.stat()
            parts.append(f"{path}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}")
        except OSError:
            parts.append(f"{path}|missing")
    return "|".join(parts)


def _identity(dataset: DiskDataset) -> str:
    parents = {path.parent for index in range(len(dataset)) for path in dataset.files(index)}
    folders = sorted(os.path.realpath(parent) for parent in parents)
    names = {kind: class_names(dataset, kind) for kind in dataset.kinds}
    tables = {kind: dataset.tables[kind] for kind in dataset.kinds}
    meaning = repr((_FORMAT, folders, names, tables, dataset.limits))
    return sha256(meaning.encode()).hexdigest()[:24]


def _load(path: Path) -> dict[str, tuple[str, Record]]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {key: (state, Record(**record)) for key, (state, record) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # absent or damaged: everything is read again
