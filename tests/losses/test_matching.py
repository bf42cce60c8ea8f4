"""Assignments against all permutations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rtseg.losses.matching import match


def test_the_greedy_choice_is_not_taken_when_it_costs_more_in_all() -> None:
    cost = torch.tensor([[1.0, 2.0], [2.0, 9.0], [8.0, 8.0]])
    queries, targets = match(cost)
    assert queries.tolist() == [1, 0]
    assert targets.tolist() == [0, 1]
    assert queries.dtype == targets.dtype == torch.int64


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (3, 5), (4, 4)])
def test_sum_of_costs_is_least_of_all_assignments(rows: int, columns: int) -> None:
    torch.manual_seed(rows)
    cost = torch.randn(rows, columns)
    queries, targets = match(cost)
    assert len(queries) == len(targets) == min(rows, columns)
    assert len(set(queries.tolist())) == len(queries)
    assert targets.tolist() == sorted(set(targets.tolist()))
    small, wide = (cost, columns) if rows <= columns else (cost.T, rows)
    least = min(
        sum(small[i, j].item() for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(wide), len(small))
    )
    assert cost[queries, targets].sum().item() == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_query_that_is_not_finite_never_wins_and_never_raises(bad: float) -> None:
    cost = torch.tensor([[bad, bad], [5.0, 900.0], [800.0, 7.0]])
    queries, targets = match(cost)
    assert queries.tolist() == [1, 2]
    assert targets.tolist() == [0, 1]
    assert len(match(torch.full((3, 2), bad))[0]) == 2


def test_no_targets_give_no_pairs() -> None:
    queries, targets = match(torch.zeros(4, 0))
    assert queries.shape == targets.shape == (0,)
    assert queries.dtype == torch.int64


def test_half_precision_and_gradients_do_not_matter() -> None:
    cost = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.bfloat16, requires_grad=True)
    assert match(cost)[0].tolist() == [1, 0]
