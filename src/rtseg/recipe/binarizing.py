"""Section `binarize` of a recipe: training until the weights are binary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rtseg.config import call
from rtseg.errors import ConfigError
from rtseg.tasks import Task
from rtseg.training.binarize import PhasedTask
from rtseg.training.hooks import Hooks, no_hooks
from rtseg.training.phases import Phases


def binarized(
    section: Mapping[str, Any] | None, task: Task, model: nn.Module
) -> tuple[Task, Callable[[int], Hooks]]:
    """Let the network of a task become binary while it trains.

    Args:
        section: Section `binarize`; None leaves all as it is.
        task: The task of the recipe.
        model: The network that will be trained.

    Returns:
        The task to train with, and what a plan has to call.

    Raises:
        ConfigError: A key or value does not fit, or the network has no such layers.
    """
    if section is None:
        return task, no_hooks
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{section!r} is no mapping", where="binarize", fix="write {lengths: [50, 100, 30]}"
        )
    phased = PhasedTask(task, model, call(Phases, section, section="binarize"))
    return phased, phased.hooks
