"""Build networks by name, and fill them from checkpoints."""

from __future__ import annotations

import fnmatch
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.checkpoint.folder import CONFIG, WEIGHTS, locate, read_info, read_weights
from rtseg.checkpoint.info import ModelInfo
from rtseg.checkpoint.shipped import WeightsNotice
from rtseg.checkpoint.starting import start_from
from rtseg.config import check
from rtseg.errors import CheckpointError, ConfigError, nearest
from rtseg.models import MODELS
from rtseg.quantization import QuantizedNetwork, prepare


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


def class_count(name: str, classes: int) -> int | None:
    """Return the `num_classes` of a network for data with so many classes; None if it has none."""
    counted = name not in MODELS or "num_classes" in inspect.signature(MODELS[name]).parameters
    return classes if counted else None


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    weights: str | Path | None = None,
    **switches: Any,
) -> nn.Module:
    """Build a network with random weights, or with weights to start from.

    Args:
        name: Key of `MODELS`; see `list_models`.
        num_classes: Classes K of the output; mandatory, but for networks of road and lane, which
            have none.
        weights: What `start_from` takes: a checkpoint folder, a file, `torchvision` or
            `torchvision-download`. A warning names the layers that stay random.
        **switches: Keyword arguments of the network, as its recipe would give them.

    Raises:
        ValueError: The name is unknown; the message lists the three closest.
        TypeError: `num_classes` is missing or not wanted; a keyword is unknown or its value does
            not fit.
        CheckpointError: The weights are missing, damaged or of another network.
    """
    if name not in MODELS:
        close = ", ".join(nearest(name, MODELS))
        raise ConfigError(f"model {name!r} is unknown", fix=f"did you mean one of: {close}?")
    counted = class_count(name, 1) is not None
    if counted and num_classes is None:
        raise TypeError(f"{name} needs num_classes; write create_model({name!r}, 19)")
    if not counted and num_classes is not None:
        raise TypeError(f"{name} has no num_classes; write create_model({name!r})")
    given = (num_classes,) if counted else ()
    try:
        options = check(MODELS[name], switches, section=name, given=len(given))
    except ConfigError as error:
        raise TypeError(str(error)) from None
    model = MODELS[name](*given, **options)
    if weights is not None:
        layers = class_layers(name, num_classes, **switches)
        started = start_from(model, weights, name=name, class_layers=layers)
        if started.random:
            warnings.warn(started.note, stacklevel=2)
    return model


def class_layers(name: str, num_classes: int | None, **switches: Any) -> frozenset[str]:
    """Return the names of the tensors of a network whose shape depends on the number of classes."""
    if num_classes is None:
        return frozenset()
    with torch.device("meta"):
        own, other = (
            create_model(name, count, **switches).state_dict()
            for count in (num_classes, num_classes + 1)
        )
    return frozenset(key for key in own if own[key].shape != other[key].shape)


def load(path: str | Path, *, model: nn.Module | None = None) -> Checkpoint:
    """Load a network from a checkpoint folder, a run folder, or by the name of shipped weights.

    A warning (`WeightsNotice`) repeats what `facts.notice` says, such as terms of use.

    Args:
        path: The folder; of a run folder `best` is taken, or `last` if there is no `best`. Or a
            name such as `lsa_binet-camvid`; a folder of that name goes first.
        model: The network to fill, for a checkpoint of the user's own class. If the weights are of
            a quantized network, a quantized copy of it is filled.

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
            classes = class_count(info.name, len(info.classes))
            model = create_model(info.name, classes, **info.options)
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                str(error),
                where=str(folder / CONFIG),
                fix="use the version of rtseg that wrote it (facts.versions in this file)",
            ) from None
    section = info.recipe.get("quantize")
    if section is not None and not isinstance(model, QuantizedNetwork):
        model = _quantized(model, section, where=folder / CONFIG)
    fill(model, read_weights(folder), where=folder / WEIGHTS)
    if info.facts.get("notice"):
        warnings.warn(f"{folder.name}: {info.facts['notice']}", WeightsNotice, stacklevel=2)
    return Checkpoint(model.eval(), info, folder)


def _quantized(model: nn.Module, section: Mapping[str, Any], *, where: Path) -> nn.Module:
    """Return the form of a network that section `quantize` of its recipe describes."""
    try:
        return prepare(model, float_layers=tuple(section.get("float_layers") or ()))
    except (ConfigError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"describes another quantized network ({error})",
            where=str(where),
            fix="use the version of rtseg that wrote it (facts.versions in this file)",
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
