"""Move the state of scripts/train_zoo.py between machines in small files; put weights in place."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo_jobs import Job, folder_of

from rtseg.checkpoint import CONFIG, WEIGHTS, write_sums, zoo_folder
from rtseg.errors import DataError

PART = 15 * 2**20
ARCHIVE = "zoo.tar.gz"
SHIPPED = (WEIGHTS, CONFIG, "README.md")
SIZE_LIMIT = 25 * 2**20


def pack(
    state: Path, target: Path, jobs: Iterable[Job], *, limit: int, part: int = PART
) -> list[str]:
    """Write the folders of jobs as one archive in parts: `zoo.tar.gz.000` and so on.

    Of a job that another one is taught by, only the weights go along. Jobs beyond the limit are
    left out, the last ones first.

    Args:
        state: Folder of the runs.
        target: Where the parts go; older parts are replaced.
        jobs: In the order of their importance.
        limit: Largest size of all parts together, in bytes.
        part: Largest size of one part, in bytes.

    Returns:
        The names of the jobs that were left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob(f"{ARCHIVE}.*"):
        old.unlink()
    left_out = []
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        whole = Path(scratch) / ARCHIVE
        chosen: list[Job] = []
        for job in jobs:
            if not (state / job.name).is_dir():
                continue
            _write(state, whole, [*chosen, job])
            if whole.stat().st_size <= limit:
                chosen.append(job)
            else:
                left_out.append(job.name)
        _write(state, whole, chosen)
        with whole.open("rb") as stream:
            for number, piece in enumerate(iter(lambda: stream.read(part), b"")):
                (target / f"{ARCHIVE}.{number:03d}").write_bytes(piece)
    return left_out


def _write(state: Path, path: Path, jobs: Sequence[Job]) -> None:
    folders = [job.name for job in jobs]
    taught = {str(folder_of(Path(), job.teacher)) for job in jobs if job.teacher}
    with tarfile.open(path, "w:gz", compresslevel=3) as archive:
        for name in [*folders, *sorted(taught)]:
            inside = Path(name).parts[0] in folders and name not in folders
            if (state / name).is_dir() and not inside:
                archive.add(state / name, arcname=name, filter=_needed)


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out weights that stand in the training state as well, and what only viewers need."""
    parts = Path(entry.name).parts
    twice = parts[1:] == ("last", WEIGHTS)
    return None if twice or "tensorboard" in parts or "partial" in parts else entry


def unpack(source: Path, state: Path) -> list[str]:
    """Read the parts that `pack` has written; folders of the same jobs are replaced.

    Returns:
        The names of the jobs.

    Raises:
        DataError: There are no parts, or they are damaged or incomplete.
    """
    parts = sorted(source.glob(f"{ARCHIVE}.*"))
    if not parts:
        raise DataError(
            f"holds no {ARCHIVE}.000", where=str(source), fix="give the folder that --pack wrote"
        )
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state) as scratch:
        whole, fresh = Path(scratch) / ARCHIVE, Path(scratch) / "fresh"
        with whole.open("wb") as stream:
            for path in parts:
                stream.write(path.read_bytes())
        try:
            with tarfile.open(whole) as archive:
                archive.extractall(fresh, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(
                f"cannot be unpacked ({error})", where=str(source), fix="copy all parts again"
            ) from None
        names = sorted(path.name for path in fresh.iterdir())
        for name in names:
            shutil.rmtree(state / name, ignore_errors=True)
            (fresh / name).rename(state / name)
    return names


def ship(state: Path, jobs: Iterable[Job], *, zoo: Path | None = None) -> list[str]:
    """Copy finished weights that have a name to ship under into the package, with their sums.

    Returns:
        The names they have there.

    Raises:
        DataError: The package would hold more than 25 MiB of weights; nothing is copied then.
    """
    root = zoo_folder() if zoo is None else zoo
    found = {job.ship: folder_of(state, job.name) for job in jobs if job.ship}
    found = {name: result for name, result in found.items() if result.is_dir()}
    kept = [path for path in root.glob("*/*") if path.parent.name not in found]
    fresh = [result / file for result in found.values() for file in SHIPPED]
    size = sum(path.stat().st_size for path in [*kept, *fresh])
    if size > SIZE_LIMIT:
        raise DataError(
            f"would hold {size / 2**20:.1f} MiB of weights, more than {SIZE_LIMIT // 2**20}",
            where=str(root), fix="choose fewer --jobs",
        )  # fmt: skip
    for name, result in found.items():
        partial = root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file in SHIPPED:
            shutil.copy(result / file, partial / file)
        write_sums(partial)
        shutil.rmtree(root / name, ignore_errors=True)
        partial.rename(root / name)
    return sorted(found)
