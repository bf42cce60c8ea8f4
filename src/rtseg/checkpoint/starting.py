"""Begin with weights from elsewhere: another run, a classifier's backbone, or a user's file."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rtseg.checkpoint.folder import WEIGHTS, locate, read_info, read_weights
from rtseg.errors import CheckpointError

CACHED, DOWNLOAD = "torchvision", "torchvision-download"
BACKBONE = "backbone."
WRAPPERS = ("state_dict", "model")
CLASSIFIER = ("fc.weight", "fc.bias")
"""The last layer of torchvision's classifiers, which no backbone has."""
COUNTER = "num_batches_tracked"
"""Buffers that old files lack and that nothing here reads."""
SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Started:
    """What was done with starting weights.

    source: as the user gave it. part: `network` or `backbone`. tensors: how many were set.
    random: layers that keep their random weights, as names of the outermost modules all of whose
    weights do. sha256: of the file that was read.
    """

    source: str
    part: str
    tensors: int
    random: tuple[str, ...]
    sha256: str

    @property
    def note(self) -> str:
        """One sentence about it."""
        rest = f"left random: {', '.join(self.random)}" if self.random else "nothing left random"
        return f"{self.part} starts from {self.source} ({self.tensors} tensors); {rest}"


@dataclass(frozen=True)
class _Fit:
    """How given tensors, by the names of the network, compare with a part of it."""

    part: str
    found: Mapping[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @property
    def fitting(self) -> int:
        return len(self.found) - len(self.unexpected) - len(self.shapes)


def start_from(
    model: nn.Module, source: str | Path, *, name: str = "", class_layers: Collection[str] = ()
) -> Started:
    """Put starting weights into a network.

    Args:
        model: The network; changed in place.
        source: A checkpoint or run folder of the same network, or of a classifier with the same
            `backbone`; a file (.safetensors, .pth, .pt) with the weights of the network or of its
            backbone; `torchvision` for its ResNet-50 of ImageNet from the local cache of torch
            hub, or `torchvision-download` to fetch it when it is not there.
        name: Key of `MODELS` of the network.
        class_layers: Names of the tensors whose shape depends on the number of classes; where
            theirs differs, they keep their random values.

    Raises:
        CheckpointError: Nothing there, damaged, or the names or shapes fit neither the network nor
            its backbone.
    """
    file, given, parts = _read(str(source), name)
    own = model.state_dict()
    offered = {"network": given, "backbone": _of_backbone(given)}
    if not any(key.startswith(BACKBONE) for key in own):
        parts = tuple(part for part in parts if part != "backbone")
    fits = [_compare(part, own, offered[part]) for part in parts]
    for fit in fits:
        if fit.missing or fit.unexpected or not set(fit.shapes) <= set(class_layers):
            continue
        chosen = {key: value for key, value in fit.found.items() if key not in fit.shapes}
        model.load_state_dict(chosen, strict=False)
        left = [key for key in own if key not in chosen and not key.endswith(COUNTER)]
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return Started(str(source), fit.part, len(chosen), _outermost(left, own), digest)
    raise _misfit(fits, own, given, where=file)


def _read(source: str, name: str) -> tuple[Path, dict[str, Tensor], tuple[str, ...]]:
    """Return the file, its tensors, and the parts of a network that they may be."""
    if source in (CACHED, DOWNLOAD):
        file = _torchvision(download=source == DOWNLOAD)
        return file, _read_file(file), ("backbone",)
    path = Path(source)
    if path.suffix in SUFFIXES and not path.is_dir():
        return path, _read_file(path), ("network", "backbone")
    folder = locate(path)
    info = read_info(folder)
    classifier = info.task == "classification" and info.name != name
    return folder / WEIGHTS, read_weights(folder), ("backbone",) if classifier else ("network",)


def _read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without what training scripts wrap around them."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot be read ({reason})",
            where=str(path),
            fix="give a .safetensors file, or a .pth file that holds tensors and nothing else",
        ) from None
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    tensors = dict(held) if isinstance(held, Mapping) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(
            "holds no tensors by name",
            where=str(path),
            fix="save the state_dict() of the network alone",
        )
    return {str(key).removeprefix("module."): value for key, value in tensors.items()}


def _torchvision(*, download: bool) -> Path:
    """Return torchvision's weights of ResNet-50 in the cache of torch hub.

    decision: the first set of ImageNet weights, on which segmentation papers build.
    """
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if file.is_file():
        return file
    if not download:
        raise CheckpointError(
            "is not in the cache of torch hub",
            where=str(file),
            fix=f"put it there, or set model.weights={DOWNLOAD} to fetch it",
        )
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot be fetched ({error})", where=weights.url, fix="put the file there by hand"
        ) from None
    return file


def _of_backbone(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a backbone alone, with the names that they have in a network."""
    inside = {key: value for key, value in given.items() if key.startswith(BACKBONE)}
    bare = {f"{BACKBONE}{key}": value for key, value in given.items() if key not in CLASSIFIER}
    return inside or bare


def _compare(part: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> _Fit:
    prefix = BACKBONE if part == "backbone" else ""
    wanted = [key for key in own if key.startswith(prefix)]
    missing = [key for key in wanted if key not in found and not key.endswith(COUNTER)]
    unexpected = [key for key in found if key not in own]
    shapes = [key for key in wanted if key in found and found[key].shape != own[key].shape]
    return _Fit(part, found, missing, unexpected, shapes)


def _outermost(left: Collection[str], own: Collection[str]) -> tuple[str, ...]:
    """Return the outermost modules, or single tensors, all of whose tensors are among `left`."""
    names: dict[str, None] = {}
    kept = {key for key in own if not key.endswith(COUNTER)} - set(left)
    for key in left:
        parts = key.split(".")
        prefixes = (".".join(parts[: depth + 1]) for depth in range(len(parts)))
        name = next(item for item in prefixes if not any(_within(other, item) for other in kept))
        names[name] = None
    return tuple(names)


def _within(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _misfit(
    fits: list[_Fit], own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, where: Path
) -> CheckpointError:
    """Return the error that tells how near the best part came."""
    if not fits:
        return CheckpointError(
            "holds a backbone, and this network has none",
            where=str(where),
            fix="leave model.weights out, or give weights of the same network",
        )
    best = max(fits, key=lambda fit: fit.fitting)
    says = [f"{best.fitting} of {len(given)} keys fit the {best.part}"]
    if best.missing:
        says.append(f"it lacks {best.missing[0]} (of {len(best.missing)})")
    if best.unexpected:
        first = best.unexpected[0]
        first = first if first in given else first.removeprefix(BACKBONE)
        says.append(f"it has an unexpected {first} (of {len(best.unexpected)})")
    if best.shapes:
        key = best.shapes[0]
        theirs, ours = tuple(best.found[key].shape), tuple(own[key].shape)
        says.append(f"{key} is {theirs} instead of {ours} (of {len(best.shapes)})")
    return CheckpointError(
        ", ".join(says),
        where=str(where),
        fix="give weights of the same network and switches, or of its backbone",
    )
