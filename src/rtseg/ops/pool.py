"""Adaptive max pooling out of plain pooling, so that every export format can hold it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def adaptive_max_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pool (B, C, H, W) to (B, C, h, w), exactly as `torch.nn.functional.adaptive_max_pool2d`.

    Maxima are separable, so each axis is pooled on its own. Where the windows of an axis are
    uneven, its rows are first gathered into windows of one length. H and W become constants of an
    export.

    Args:
        x: Any floating type.
        size: (h, w), each between 1 and the side of `x`.
    """
    return _pool_axis(_pool_axis(x, 2, size[0]), 3, size[1])


def _pool_axis(x: Tensor, dim: int, count: int) -> Tensor:
    length = int(x.shape[dim])
    if length % count:
        table = window_table(length, count)
        index = torch.tensor([i for row in table for i in row], device=x.device)
        x, window = x.index_select(dim, index), len(table[0])
    else:
        window = length // count
    return F.max_pool2d(x, (window, 1) if dim == 2 else (1, window))


def window_table(length: int, count: int) -> list[list[int]]:
    """List the indices of every window of an axis, all rows padded to one length.

    Window i covers floor(i * length / count) to ceil((i + 1) * length / count) - 1; shorter ones
    repeat their last index, which no maximum notices.
    """
    starts = [i * length // count for i in range(count)]
    # The ceiling is written with positive numbers: tracers truncate negative floor divisions.
    ends = [((i + 1) * length + count - 1) // count for i in range(count)]
    widest = max(end - start for start, end in zip(starts, ends, strict=True))
    return [
        [min(start + j, end - 1) for j in range(widest)]
        for start, end in zip(starts, ends, strict=True)
    ]
