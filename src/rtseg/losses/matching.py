"""Assign predictions to targets at least cost (Hungarian algorithm)."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 1e6
"""decision: stands for a cost that is not a number or infinite; far above every finite cost."""


@torch.no_grad()
def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Pair queries with targets so that the sum of their costs is least.

    A cost that is not finite is replaced by a large one: such a query is taken only when there is
    no other, and nothing raises.

    Args:
        cost: (N, T), any floating type.

    Returns:
        Queries and targets of the min(N, T) pairs, two int64 tensors, targets rising.
    """
    from scipy.optimize import linear_sum_assignment

    finite = torch.nan_to_num(cost.float(), nan=LARGE, posinf=LARGE, neginf=LARGE)
    targets, queries = linear_sum_assignment(finite.T.cpu().numpy())
    pairs = (torch.as_tensor(queries, device=cost.device), torch.as_tensor(targets).to(cost.device))
    return pairs[0].long(), pairs[1].long()
