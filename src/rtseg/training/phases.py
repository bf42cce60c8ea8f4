"""When which layer of a network becomes binary: a function of the step and of nothing else."""

from __future__ import annotations

import copy
import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.nn.binary import binary_layers

PROBE_SIZE = 512
"""Side of the image, without data, on which it is seen at what scale a layer works."""


@dataclass(frozen=True)
class Phases:
    """Section `binarize` of a recipe: from real weights to binary ones in three phases.

    In the first phase all weights are real, in the second one group of layers after the other
    becomes binary, in the third all of them are. Two more phases do the same to the inputs of
    layers in networks built with `act_bits=1`: they become binary group by group, then all are.

    lengths: Of the 3 or 5 phases, in proportion, such as their epochs; the last one has at least
        one step of any run.
    groups: Into how many equal groups, one after the other at equal distances, the layers are cut;
        1 makes all of them binary at once.
    order: `deep_first` begins with the layers of the smallest maps, among those with the most
        weights; `shallow_first` is the opposite; `by_size` begins with the most weights; or
        patterns of names such as `encoder*`, one after the other.
    penalty: Factor of the mean of |W - sign W| over the weights that are binary. It rises from 0
        over the second phase.
    reduction: `sum` takes the sum instead of the mean, as the paper writes it.
    recalibrate: Batches of training images on which the statistics of batch norms are measured
        anew before a validation, if layers have become binary since the last one.

    Source: BiSegUNet, section IV, eqs. 22 to 25. Groups, their order, the rise of the penalty and
    the phases of inputs are decisions: the paper says that subsets of layers follow each other.
    """

    lengths: tuple[int, ...]
    groups: int = 10
    order: Literal["deep_first", "shallow_first", "by_size"] | tuple[str, ...] = "deep_first"
    penalty: float = 0.0
    reduction: Literal["mean", "sum"] = "mean"
    recalibrate: int = 0

    def __post_init__(self) -> None:
        if len(self.lengths) not in (3, 5) or min(self.lengths) < 0 or self.lengths[-1] == 0:
            raise ConfigError(
                f"{list(self.lengths)} are no lengths of phases",
                where="binarize.lengths",
                fix="give three numbers (real, becoming binary, binary), or five if inputs become "
                "binary too; only the last must not be 0",
            )
        for name, value, least in (
            ("groups", self.groups, 1),
            ("penalty", self.penalty, 0),
            ("recalibrate", self.recalibrate, 0),
        ):
            if value < least:
                raise ConfigError(
                    f"{value} is too small", where=f"binarize.{name}", fix=f"use {least} or more"
                )

    @property
    def with_inputs(self) -> bool:
        """Whether inputs become binary too."""
        return len(self.lengths) == 5


@dataclass(frozen=True)
class Timetable:
    """Steps of a run at which things happen.

    weights, inputs: Of each layer, the first step that computes with binary weights, inputs; in the
        order in which they follow each other.
    rise: First and last step of the rise of the penalty.
    final: First step of the last phase.
    """

    weights: Mapping[str, int]
    inputs: Mapping[str, int]
    rise: tuple[int, int]
    final: int

    def penalty_share(self, step: int) -> float:
        """Return the share of the penalty's factor that counts in a step, in [0, 1]."""
        begin, end = self.rise
        if step >= end:
            return 1.0
        return 0.0 if step <= begin else (step - begin) / (end - begin)

    def switches(self, first: int, end: int) -> bool:
        """Return whether anything becomes binary in the steps `first` to `end - 1`."""
        steps = (*self.weights.values(), *self.inputs.values())
        return any(first <= step < end for step in steps)


def timetable(
    phases: Phases, total: int, *, weights: Sequence[str], inputs: Sequence[str]
) -> Timetable:
    """Work out the steps of a run.

    Args:
        phases: Section `binarize`.
        total: Steps of the whole run.
        weights: Layers whose weights become binary, first to last.
        inputs: Layers whose inputs become binary, first to last.
    """
    starts = [0, *itertools.accumulate(phases.lengths)]

    def at(phase: int, group: int = 0) -> int:
        # As `cosine_phases` rounds, so that the learning rate restarts with the phase.
        begun = starts[phase] * phases.groups + phases.lengths[phase] * group
        return min(round(total * begun / (starts[-1] * phases.groups)), total - 1)

    def spread(names: Sequence[str], phase: int) -> dict[str, int]:
        size = -(-len(names) // phases.groups)
        return {name: at(phase, index // size) for index, name in enumerate(names)}

    return Timetable(
        spread(weights, 1),
        spread(inputs, 3) if phases.with_inputs else {},
        (at(1), at(2)),
        at(len(phases.lengths) - 1),
    )


def layer_order(
    model: nn.Module, order: Literal["deep_first", "shallow_first", "by_size"] | Sequence[str]
) -> list[str]:
    """Return the names of the binary layers of a network, those first that become binary first.

    Layers that are equal in all that an order looks at come in the order of their names.

    Args:
        model: Any network; it is not run, only a copy without data is.
        order: As in `Phases`.

    Raises:
        ConfigError: The network has no binary layers, or patterns leave out a layer or fit none.
    """
    layers = binary_layers(model)
    if not layers:
        raise ConfigError(
            "this network has no binary layers",
            where="binarize",
            fix="leave the section out, or choose a network such as bisegunet_edge",
        )
    names = sorted(layers)
    if not isinstance(order, str):
        return _by_pattern(names, order)
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    if order == "by_size":
        return sorted(names, key=lambda name: -sizes[name])
    scales = _scales(model)
    deep = sorted(names, key=lambda name: (-scales[name], -sizes[name]))
    if order == "deep_first":
        return deep
    return sorted(names, key=lambda name: (scales[name], sizes[name]))


def _by_pattern(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise ConfigError(
                f"no binary layer has a name like {pattern!r}",
                where="binarize.order",
                fix=f"names are such as {names[0]!r}; patterns such as 'encoder*'",
            )
        found += [name for name in fitting if name not in found]
    rest = [name for name in names if name not in found]
    if rest:
        raise ConfigError(
            f"{rest[0]!r} fits no pattern",
            where="binarize.order",
            fix="put '*' at the end for all other layers",
        )
    return found


def _scales(model: nn.Module) -> dict[str, int]:
    """Return by which factor the output of each binary layer is smaller than the image."""
    twin = copy.deepcopy(model).to("meta").eval()
    found: dict[str, int] = {}

    def look(name: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        found[name] = PROBE_SIZE // output.shape[-1]

    for name, layer in binary_layers(twin).items():
        layer.register_forward_hook(partial(look, name))
    with torch.no_grad():
        twin(torch.empty(1, 3, PROBE_SIZE, PROBE_SIZE, device="meta"))
    return found
