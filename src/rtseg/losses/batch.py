"""Sums over a whole batch, of which every process holds its share of the images.

A mean over the labelled pixels of one process is not its share of the mean over the batch when
images differ in what is labelled. So losses add up over all processes before they divide: their
value is then the same in every process. Its gradients, averaged over the processes as distributed
training does, are those of one process that holds all images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """Return how many processes share the batch; 1 where none were joined."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def batch_sum(values: Tensor) -> Tensor:
    """Add up tensors of equal shape over all processes; every process must call it.

    Args:
        values: Sums over the images of this process, any shape, floating.

    Returns:
        The same shape; `values` itself in a process that is alone.
    """
    if processes() == 1:
        return values
    total: Tensor = _sum_over_processes(values)
    return total


@torch.no_grad()
def batch_gather(values: Tensor) -> Tensor:
    """Put the equally shaped tensors of all processes behind each other, without gradients."""
    if processes() == 1:
        return values
    rows: Tensor = _gather_from_processes(values)
    return rows


class _Sum(torch.autograd.Function):
    """Add up over processes; what each of them does with the sum adds to its derivative.

    Where all compute the same loss, the derivative is as many times too large as there are
    processes, and becomes right when they are averaged.
    """

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


# Not compiled: PyTorch's compiler cannot follow a collective inside of an own derivative.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _gather_from_processes(values: Tensor) -> Tensor:
    parts = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
