"""Optimizers, their parameter groups, and learning-rate schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rtseg.errors import ConfigError

Schedule = Callable[[int], float]
"""Step of the run (0 = first) -> factor of the base learning rate."""


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay_norms: bool,
    backbone_multiplier: float,
    decay_biases: bool = False,
    no_decay: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups with their own learning rate and weight decay.

    Args:
        model: Any network; parameters under an attribute `backbone` form groups of their own.
        lr: Base learning rate.
        weight_decay: Of every parameter that decays.
        decay_norms: Whether norms, biases and other one-dimensional parameters decay as well.
        backbone_multiplier: Factor of `lr` for the backbone.
        decay_biases: Whether biases decay even though norms do not; those of norms never do.
        no_decay: Names of attributes whose parameters never decay, such as learned queries.

    Raises:
        ConfigError: The model has no backbone, or nothing of a name in `no_decay`.
    """
    kept = decaying(model, norms=decay_norms, biases=decay_biases, never=no_decay)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_backbone = "backbone" in name.split(".")
            groups.setdefault((in_backbone, name in kept), []).append(parameter)
    if not any(in_backbone for in_backbone, _ in groups) and backbone_multiplier != 1:
        raise ConfigError(
            "this model has no backbone",
            where="optimizer.backbone_multiplier",
            fix="leave it out (1.0)",
        )
    return [
        {
            "params": parameters,
            "lr": lr * (backbone_multiplier if in_backbone else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def decaying(
    model: nn.Module, *, norms: bool, biases: bool, never: tuple[str, ...]
) -> frozenset[str]:
    """Return the names of the parameters that decay; the arguments are those above."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    of_norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, kinds)
        for parameter in module.parameters(recurse=False)
    }
    found, unused = set(), set(never)
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        unused.difference_update(parts)
        bias = biases and parts[-1].endswith("bias") and id(parameter) not in of_norms
        if not set(never) & set(parts) and (norms or bias or parameter.squeeze().ndim > 1):
            found.add(name)
    if unused:
        raise ConfigError(
            f"this model has no {min(unused)!r}",
            where="optimizer.no_decay",
            fix="give names of its attributes, or leave it out",
        )
    return frozenset(found)


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    decay_norms: bool = True,
    backbone_multiplier: float = 1.0,
) -> Optimizer:
    """Build stochastic gradient descent; weight decay is added to the gradient."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        decay_norms=decay_norms,
        backbone_multiplier=backbone_multiplier,
    )
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def adam(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay_norms: bool = True,
    backbone_multiplier: float = 1.0,
) -> Optimizer:
    """Build Adam; weight decay is added to the gradient (L2), not decoupled."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        decay_norms=decay_norms,
        backbone_multiplier=backbone_multiplier,
    )
    return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps)


def adamw(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decay_norms: bool = False,
    backbone_multiplier: float = 1.0,
    decay_biases: bool = False,
    no_decay: tuple[str, ...] = (),
) -> Optimizer:
    """Build AdamW: weight decay is decoupled from the gradient and spares norms and biases."""
    groups = parameter_groups(
        model,
        lr=lr,
        weight_decay=weight_decay,
        decay_norms=decay_norms,
        backbone_multiplier=backbone_multiplier,
        decay_biases=decay_biases,
        no_decay=no_decay,
    )
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adam": adam, "adamw": adamw}
BATCH_SCALING = {"sgd": 1.0, "adam": 0.5, "adamw": 0.5}
"""Exponent of the batch-size ratio by which a learning rate follows a changed batch: linear for
SGD, square root for Adam (decision: the usual rules for gradient noise of the two families)."""


def apply_schedule(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of every group to its base value (`initial_lr`) times `factor`."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def _warm(step: int, warmup: int, start: float) -> float:
    return start * (1 - step / warmup) + step / warmup


def _warmup_length(total: int, warmup: int) -> int:
    """Shorten the warm-up to a tenth of runs that are not twice as long (smoke runs)."""
    return warmup if total > 2 * warmup else total // 10


def poly(
    total: int,
    *,
    power: float = 0.9,
    final: float = 0.0,
    warmup_iterations: int = 0,
    warmup_start: float = 1 / 3,
    warmup_overlaps: bool = False,
) -> Schedule:
    """Fall from 1 to `final` as (1 - t/T)^power after a linear warm-up from `warmup_start`.

    Args:
        total: Steps T of the whole run.
        power: Exponent.
        final: Factor at the end: the fall is (1 - final) (1 - t/T)^power + final.
        warmup_iterations: Length of the warm-up; T/10 if the run is not more than twice as long.
        warmup_start: Factor at step 0.
        warmup_overlaps: The fall begins at step 0 and the warm-up multiplies it, as in
            MMSegmentation and Detectron2; otherwise the fall begins, at 1, after the warm-up.
    """
    warmup = _warmup_length(total, warmup_iterations)
    begin = 0 if warmup_overlaps else warmup

    def factor(step: int) -> float:
        rest = min(1.0, max(0.0, 1 - (step - begin) / (total - begin)))
        fall = (1 - final) * float(rest**power) + final
        return fall * _warm(step, warmup, warmup_start) if step < warmup else fall

    return factor


def epoch_poly(
    total: int, *, epochs: int, power: float = 0.9, resolution: float | None = None
) -> Schedule:
    """Fall as (1 - e/E)^power in one stair for each epoch e, 0 to E - 1.

    Args:
        total: Steps of the whole run.
        epochs: Stairs E of equal length; in a recipe `${train.epochs}`.
        power: Exponent.
        resolution: The factor is rounded to multiples of it; 2e-5 rounds a rate that begins at
            5e-4 to 8 decimals.

    Raises:
        ConfigError: There is no stair, or the resolution is not positive.
    """
    if epochs < 1 or (resolution is not None and resolution <= 0):
        raise ConfigError(
            f"epochs {epochs} and resolution {resolution} must be positive",
            where="schedule",
            fix="write epochs: ${train.epochs}, and leave resolution out for no rounding",
        )

    def factor(step: int) -> float:
        epoch = min(step * epochs // total, epochs - 1)
        fall = float((1 - epoch / epochs) ** power)
        return fall if resolution is None else round(fall / resolution) * resolution

    return factor


def cosine(
    total: int,
    *,
    restarts: tuple[int, ...] = (),
    final: float = 0.0,
    warmup_iterations: int = 0,
    warmup_start: float = 1 / 3,
) -> Schedule:
    """Fall from 1 to `final` along half a cosine, again from each restart, after a linear warm-up.

    Args:
        total: Steps of the whole run.
        restarts: Steps, rising, at which the cosine starts anew from 1.
        final: Factor at the end of each cosine.
        warmup_iterations: Length of the warm-up; total/10 if the run is not more than twice as
            long.
        warmup_start: Factor at step 0.

    Raises:
        ConfigError: A restart lies outside the run or out of order.
    """
    warmup = _warmup_length(total, warmup_iterations)
    edges = [warmup, *restarts, total]
    if any(end <= start for start, end in itertools.pairwise(edges)):
        raise ConfigError(
            f"{list(restarts)} must rise from the warm-up ({warmup}) to the end ({total})",
            where="schedule.restarts",
            fix="give the steps at which the learning rate jumps back",
        )

    def factor(step: int) -> float:
        if step < warmup:
            return _warm(step, warmup, warmup_start)
        later = [index for index, edge in enumerate(edges) if edge <= step and edge < total]
        start, end = edges[later[-1]], edges[later[-1] + 1]
        progress = min(1.0, (step - start) / (end - start))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def cosine_phases(total: int, *, lengths: tuple[int, ...], final: float = 0.0) -> Schedule:
    """Fall as `cosine`, anew from 1 at the start of each phase.

    Args:
        total: Steps of the whole run.
        lengths: Of the phases, in proportion, such as numbers of epochs; phases that have no step
            of a short run are left out.
        final: Factor at the end of each phase.

    Raises:
        ConfigError: A length is not above 0.

    Source: BiSegUNet, table 10, where a run of 50 + 100 + 30 epochs restarts at 50 and 150.
    """
    if not lengths or min(lengths) <= 0:
        raise ConfigError(
            f"{list(lengths)} are no lengths of phases",
            where="schedule.lengths",
            fix="give one number above 0 for each phase, such as its epochs",
        )
    ends = [round(total * end / sum(lengths)) for end in itertools.accumulate(lengths)]
    return cosine(total, restarts=tuple(sorted(set(ends) - {0, total})), final=final)


def step(
    total: int,
    *,
    milestones: tuple[int, ...],
    gamma: float = 0.1,
    warmup_iterations: int = 0,
    warmup_start: float = 1 / 3,
) -> Schedule:
    """Multiply by `gamma` at each milestone, after a linear warm-up.

    Args:
        total: Steps of the whole run.
        milestones: Steps at which the rate falls.
        gamma: Factor of each fall.
        warmup_iterations: Length of the warm-up; total/10 if the run is not more than twice as
            long.
        warmup_start: Factor at step 0.
    """
    warmup = _warmup_length(total, warmup_iterations)

    def factor(now: int) -> float:
        if now < warmup:
            return _warm(now, warmup, warmup_start)
        return gamma ** sum(now >= milestone for milestone in milestones)

    return factor


def constant(total: int, *, warmup_iterations: int = 0, warmup_start: float = 1 / 3) -> Schedule:
    """Stay at 1 after a linear warm-up."""
    return step(
        total, milestones=(), warmup_iterations=warmup_iterations, warmup_start=warmup_start
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "poly": poly,
    "epoch_poly": epoch_poly,
    "cosine": cosine,
    "cosine_phases": cosine_phases,
    "step": step,
    "constant": constant,
}
