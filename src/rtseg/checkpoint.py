"""Checkpoints: a folder that holds all that is needed to use a network again.

    model.safetensors   weights (the averaged ones if the run averages)
    config.json         architecture, classes, preprocessing, recipe, versions, scores
    README.md           model card, generated from the same facts
    train_state.pt      only while training: optimizer, position, random state (loads with
                        weights_only=True)

A folder appears as a whole or not at all: it is written under a temporary name, flushed, and
renamed.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rtseg.config import check
from rtseg.errors import CheckpointError, ConfigError, DataError, nearest
from rtseg.models import MODELS
from rtseg.structures import ClassInfo

FORMAT = 1
"""Version of `config.json`; older ones stay readable for two minor releases."""
WEIGHTS, CONFIG, STATE, CARD = "model.safetensors", "config.json", "train_state.pt", "README.md"
PREVIOUS = ".previous"


@dataclass(frozen=True)
class ModelInfo:
    """What `config.json` holds.

    name, options: key of `MODELS` and the switches; "" for a network of the user's own, which has
    to be passed to `load`.
    task: name of the task. classes: by id. preprocess: arguments of `Preprocess`. recipe: the
    resolved recipe.
    facts: what is known about the run: step, epoch, scores, seed, versions, git revision, hash of
    the recipe.
    """

    name: str
    options: Mapping[str, Any]
    task: str
    classes: tuple[ClassInfo, ...]
    preprocess: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded network (evaluation mode, on the CPU) with the facts of its folder.

    Calling it calls the network: images (B, 3, H, W) -> the output of its task.
    """

    model: nn.Module
    info: ModelInfo
    path: Path

    def __call__(self, images: Tensor) -> Any:
        """Return the output of the network."""
        return self.model(images)


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of all networks that match a shell pattern such as `twinmixing*`."""
    return sorted(fnmatch.filter(MODELS, pattern))


def create_model(name: str, num_classes: int, **switches: Any) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: Key of `MODELS`; see `list_models`.
        num_classes: Classes K of the output.
        **switches: Keyword arguments of the network, as its recipe would give them.

    Raises:
        ValueError: The name is unknown; the message lists the three closest.
        TypeError: A keyword is unknown or its value does not fit.
    """
    if name not in MODELS:
        close = ", ".join(nearest(name, MODELS))
        raise ConfigError(f"model {name!r} is unknown", fix=f"did you mean one of: {close}?")
    try:
        options = check(MODELS[name], switches, section=name, given=1)
    except ConfigError as error:
        raise TypeError(str(error)) from None
    return MODELS[name](num_classes, **options)


def versions() -> dict[str, str]:
    """Return the versions of everything that a result depends on."""
    packages = ("rtseg", "torch", "torchvision", "numpy", "pillow", "lightning", "torchmetrics")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str | None:
    """Return the commit of the checkout that this file belongs to, or None outside of one."""
    here = Path(__file__)
    ask = functools.partial(
        subprocess.run, cwd=here.parent, capture_output=True, text=True, timeout=5, check=True
    )
    try:
        # An installed package may lie inside of a repository that knows nothing about it.
        ask(["git", "ls-files", "--error-unmatch", here.name])
        revision: str = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return revision


def environment() -> dict[str, Any]:
    """Return versions, device and thread count: what a result depends on beside the recipe."""
    cuda = torch.cuda.is_available()
    return {
        "versions": versions(),
        "git_revision": git_revision(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    info: ModelInfo,
    *,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder; an existing one is replaced only when the new one is complete.

    Args:
        folder: Where it goes.
        weights: State dict of the network.
        info: Content of `config.json`.
        state: Training state; tensors, numbers, strings, lists and dictionaries only.

    Raises:
        DataError: The disk is full or the folder cannot be written; the old checkpoint is kept.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        tensors = {name: _apart(value) for name, value in weights.items()}
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / CONFIG).write_text(info.to_json(), encoding="utf-8")
        (partial / CARD).write_text(model_card(info, tensors), encoding="utf-8")
        if state is not None:
            torch.save(dict(state), partial / STATE)
        for path in (*partial.iterdir(), partial):
            _flush(path)
        _replace(partial, folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(
            f"cannot write the checkpoint ({error})",
            where=str(folder),
            fix="free space or choose another --output; the previous checkpoint is untouched",
        ) from error


def _apart(value: Tensor) -> Tensor:
    """Copy a tensor to memory of its own; safetensors refuses weights that share theirs."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _flush(path: Path) -> None:
    """Have a file or folder written to the disk itself; Windows knows no such call for folders."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(partial: Path, folder: Path) -> None:
    """Put `partial` in the place of `folder`; until that is done, `.previous` holds the old one."""
    previous = previous_of(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def previous_of(folder: Path) -> Path:
    """Return where the checkpoint that `folder` replaces stands while it is replaced."""
    return folder.parent / f"{folder.name}{PREVIOUS}"


def locate(path: str | Path) -> Path:
    """Return the folder that `path` means: itself, `best` or `last` of a run, or what a crash left.

    Raises:
        CheckpointError: There is none.
    """
    folder = Path(path)
    candidates = [folder, folder / "best", folder / "last"]
    for candidate in candidates:
        for place in (candidate, previous_of(candidate)):
            if (place / CONFIG).is_file():
                return place
    reason = "is no checkpoint folder" if folder.exists() else "does not exist"
    raise CheckpointError(
        reason, where=str(folder), fix="give a run folder, or a folder with config.json"
    )


def read_info(folder: Path) -> ModelInfo:
    """Read `config.json` of a checkpoint folder.

    Raises:
        CheckpointError: It is missing, damaged, or of a newer format.
    """
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw.pop("format")
        if version > FORMAT:
            raise CheckpointError(
                f"has format {version}, this version reads up to {FORMAT}",
                where=str(path),
                fix="update rtseg",
            )
        classes = tuple(
            ClassInfo(item["name"], tuple(item["color"]), item["thing"])
            for item in raw.pop("classes")
        )
        return ModelInfo(classes=classes, **raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot be read ({error})", where=str(path), fix="copy the checkpoint again"
        ) from None


def load(path: str | Path, *, model: nn.Module | None = None) -> Checkpoint:
    """Load a network from a checkpoint folder or a run folder.

    Args:
        path: The folder; of a run folder `best` is taken, or `last` if there is no `best`.
        model: The network to fill, for a checkpoint of the user's own class.

    Raises:
        CheckpointError: Nothing there, damaged, or weights and architecture disagree.
    """
    folder = locate(path)
    info = read_info(folder)
    if model is None:
        if not info.name:
            raise CheckpointError(
                "holds a network of your own class",
                where=str(folder),
                fix="pass it: rtseg.load(path, model=net)",
            )
        try:
            model = create_model(info.name, len(info.classes), **info.options)
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                str(error),
                where=str(folder / CONFIG),
                fix="use the version of rtseg that wrote it (facts.versions in this file)",
            ) from None
    fill(model, read_weights(folder), where=folder / WEIGHTS)
    return Checkpoint(model.eval(), info, folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be read ({error})", where=str(path), fix="copy the checkpoint again"
        ) from None


def fill(model: nn.Module, weights: Mapping[str, Tensor], *, where: Path) -> None:
    """Put weights into a network; float16 values are widened to the network's type.

    Raises:
        CheckpointError: Names or shapes disagree; the message gives the first of each.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or extra or shapes:
        parts = [
            f"{label} {names[0]} (of {len(names)})"
            for label, names in (
                ("lacks", missing),
                ("has an unknown", extra),
                ("differs in shape at", shapes),
            )
            if names
        ]
        raise CheckpointError(
            f"does not fit the network: it {', '.join(parts)}",
            where=str(where),
            fix="load it with the model and switches it was trained with",
        )
    model.load_state_dict(dict(weights))


def read_state(folder: Path) -> dict[str, Any]:
    """Read `train_state.pt` of a checkpoint.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise CheckpointError(
            "has no training state", where=str(folder), fix="resume from a run folder with `last`"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise CheckpointError(
            f"cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            fix="remove this folder and resume from the other checkpoint of the run",
        ) from None
    return state


def model_card(info: ModelInfo, weights: Mapping[str, Tensor]) -> str:
    """Write the model card; a figure that was not measured is called so."""
    count = sum(value.numel() for name, value in weights.items() if not _is_buffer(name))
    scores = info.facts.get("scores") or {}
    rows = [f"| {name} | {value:.4f} |" for name, value in sorted(scores.items())]
    table = ["| score | value |", "|---|---|", *rows] if rows else ["Scores: not measured."]
    data = info.recipe.get("data", {})
    lines = [
        f"# {info.name or 'network'} ({info.task}, {len(info.classes)} classes)",
        "",
        f"- Parameters: {count:,}",
        f"- Switches: {dict(info.options) or 'defaults'}",
        f"- Classes: {', '.join(item.name for item in info.classes)}",
        f"- Preprocessing: {json.dumps(dict(info.preprocess), sort_keys=True)}",
        f"- Training data: {json.dumps(data.get('train', 'not recorded'))}",
        f"- Step: {info.facts.get('step', 'not recorded')}",
        f"- Seed: {info.facts.get('seed', 'not recorded')}",
        f"- Recipe SHA-256: {info.facts.get('recipe_sha256', 'not recorded')}",
        "",
        f"## Scores ({info.facts.get('scored_on', 'no validation set')})",
        "",
        *table,
        "",
        "Latency: not measured.",
    ]
    return "\n".join(lines) + "\n"


def _is_buffer(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")
