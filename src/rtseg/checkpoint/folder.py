"""Write and read checkpoint folders; one appears as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rtseg.checkpoint.facts import model_card
from rtseg.checkpoint.info import FORMAT, ModelInfo
from rtseg.checkpoint.shipped import find_shipped, list_shipped
from rtseg.errors import CheckpointError, DataError, nearest
from rtseg.structures import ClassInfo

WEIGHTS, CONFIG, STATE, CARD = "model.safetensors", "config.json", "train_state.pt", "README.md"
PREVIOUS = ".previous"


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

    Where there is no such file or folder, it may be the name of weights that come with the package.

    Raises:
        CheckpointError: There is none, or shipped weights are damaged.
    """
    folder = Path(path)
    candidates = [folder, folder / "best", folder / "last"]
    for candidate in candidates:
        for place in (candidate, previous_of(candidate)):
            if (place / CONFIG).is_file():
                return place
    fix = "give a run folder, or a folder with config.json"
    if folder.exists():
        raise CheckpointError("is no checkpoint folder", where=str(folder), fix=fix)
    shipped = find_shipped(str(path))
    if shipped is not None:
        return shipped
    if len(folder.parts) == 1 and list_shipped():
        fix += f", or shipped weights such as {', '.join(nearest(str(path), list_shipped()))}"
    raise CheckpointError("does not exist", where=str(folder), fix=fix)


def read_info(folder: Path) -> ModelInfo:
    """Read `config.json` of a checkpoint folder.

    Raises:
        CheckpointError: It is missing, damaged, or of a newer format.
    """
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(error, path) from None
    return parse_info(raw, where=path)


def parse_info(raw: Mapping[str, Any], *, where: Path) -> ModelInfo:
    """Read what `config.json` holds, wherever it stands.

    Args:
        raw: The parsed JSON.
        where: Where it stands, for errors.

    Raises:
        CheckpointError: It lacks something, or is of a newer format.
    """
    try:
        content = dict(raw)
        version = content.pop("format")
        if version > FORMAT:
            raise CheckpointError(
                f"has format {version}, this version reads up to {FORMAT}",
                where=str(where),
                fix="update rtseg",
            )
        classes = tuple(
            ClassInfo(item["name"], tuple(item["color"]), item["thing"])
            for item in content.pop("classes")
        )
        return ModelInfo(classes=classes, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(error, where) from None


def _unreadable(error: Exception, path: Path) -> CheckpointError:
    return CheckpointError(
        f"cannot be read ({error})", where=str(path), fix="copy the checkpoint again"
    )


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
