"""Several processes that score one set together, each its share of the images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

from rtseg.errors import ConfigError

T = TypeVar("T")
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Number of this process, and how many there are."""

    rank: int
    world: int


def place() -> Place:
    """Return the place of this process among those that were joined; (0, 1) if it is alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Place(0, 1)
    return Place(distributed.get_rank(), distributed.get_world_size())


def gathered(items: list[T]) -> list[T]:
    """Return the items of all processes, in the order of the processes; all must call it."""
    if place().world == 1:
        return items
    parts: list[Any] = [None] * place().world
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Place]:
    """Join the processes that a launcher such as torchrun has started; alone without one.

    Args:
        device: Of this process; decides how they exchange data.

    Raises:
        ConfigError: The launcher left something out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield place()
        return
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise ConfigError(
            f"is set, but {' and '.join(missing)} not",
            where="environment variable WORLD_SIZE",
            fix="start with torchrun, or unset it",
        )
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield place()
    finally:
        distributed.destroy_process_group()


def device_of_process(name: str) -> str:
    """Return which of the devices `auto` or `cuda` this process takes: one each."""
    number = os.environ.get("LOCAL_RANK")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and number is not None and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{number}"
    return name
