"""Exported networks that are kept for this machine, and which of them was found to be best."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rtseg.checkpoint import Checkpoint, sha256
from rtseg.data.check_cache import cache_folder
from rtseg.errors import CheckpointError, DataError
from rtseg.export import export, identity, remembered
from rtseg.runtimes import MANIFEST, processor, read_manifest
from rtseg.visualize import write_text

PACKAGES = ("rtseg", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")
ROOMS = ("models", "nn", "ops", "export", "runtimes")
"""Packages, and parts of this one, that an export and its speed depend on."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Decision:
    """What runs a network fastest, and why.

    runtime, precision: what was chosen. milliseconds: median time of one image, by runtime and
    precision. agreement: share of pixels of the same class as with plain torch. reasons: why
    others were not measured or not taken.
    """

    runtime: str
    precision: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


class Kept:
    """The exports and decisions of one network on this machine.

    They lie in `<cache>/runtimes/<key>`; the key is a hash of the weights, of `config.json`, of all
    versions that matter, of the code of networks and exports, and of the name of the processor.

    Args:
        loaded: A network from a checkpoint folder.

    Raises:
        DataError: No folder for it can be written.
    """

    def __init__(self, loaded: Checkpoint) -> None:
        root = cache_folder("runtimes")
        if root is None:
            raise DataError(
                "no folder for exported networks can be written",
                where="RTSEG_CACHE",
                fix="set it to a folder that can",
            )
        self.loaded, self.folder = loaded, root / _key(loaded)

    def export(self, form: str, size: Size) -> Path | None:
        """Return the export of a format that takes images of a size, if there is a whole one."""
        for folder in self._places(form, size):
            try:
                read_manifest(folder)
            except CheckpointError:
                continue  # absent or damaged: it is made again
            return folder
        return None

    def make_export(self, form: str, size: Size) -> Path:
        """Export the network, for images of any size if it allows that, and return the folder.

        Two processes may do so at once: the first that is done is kept.

        Raises:
            RtsegError: It cannot be exported, or the file does not agree with the network.
        """
        draft = self.folder / f".{form}.{secrets.token_hex(4)}"
        try:
            export(self.loaded, form, draft, size=size)
            any_size = None in read_manifest(draft).image.shape[2:]
            place = self._places(form, size)[0 if any_size else 1]
            _move(draft, place, stays=lambda: self.export(form, size) is not None)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place

    def eight_bits(self, forms: Sequence[str], size: Size) -> Path | None:
        """Return the newest int8 export, made by the user, that can stand for the network.

        Args:
            forms: Export formats that serve.
            size: (H, W) of the images.
        """
        for folder, manifest in remembered(self.loaded.path).items():
            batch, *_, height, width = manifest.image.shape
            inside = manifest.with_preprocess or manifest.with_argmax
            fits = height in (None, size[0]) and width in (None, size[1]) and batch is None
            if manifest.format in forms and fits and not inside:
                return folder
        return None

    def decision(self, size: Size, threads: int, extra: Path | None = None) -> Decision | None:
        """Return what was found for a size and a number of threads; None if nothing was.

        Args:
            size: (H, W) of the images.
            threads: Threads that were computed with.
            extra: The int8 export that took part.
        """
        try:
            path = self._decision_file(size, threads, extra)
            return Decision(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent or damaged: it is measured again
            return None

    def keep(self, decision: Decision, size: Size, threads: int, extra: Path | None = None) -> None:
        """Remember what was found."""
        path = self._decision_file(size, threads, extra)
        write_text(path, json.dumps(asdict(decision), indent=2))

    def _places(self, form: str, size: Size) -> tuple[Path, Path]:
        return self.folder / f"{form}-any", self.folder / f"{form}-{size[0]}x{size[1]}"

    def _decision_file(self, size: Size, threads: int, extra: Path | None) -> Path:
        took_part = "" if extra is None else f"-{sha256(extra / MANIFEST)[:16]}"
        return self.folder / f"decision-{size[0]}x{size[1]}-{threads}threads{took_part}.json"


def _move(draft: Path, place: Path, *, stays: Callable[[], bool]) -> None:
    """Move a folder to where another one may lie, which stays if it is whole."""
    try:
        draft.rename(place)
    except OSError:
        if not stays():
            shutil.rmtree(place)
            draft.rename(place)


def _key(loaded: Checkpoint) -> str:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    code = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            code.update(path.read_bytes())
    facts = [identity(loaded.path), versions, code.hexdigest(), processor()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
