"""Sums over processes: their value, and gradients that are right once processes are averaged."""

from __future__ import annotations

import pytest
import torch

from rtseg.losses import batch


def test_a_process_that_is_alone_gets_its_own_tensor() -> None:
    values = torch.tensor([1.0, 2.0])
    assert batch.processes() == 1
    assert batch.batch_sum(values) is values
    assert batch.batch_gather(values) is values


def test_sums_and_gradients_of_three_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others hold 10 and 20: S = x + 30, L = S^2, and dL/dx = 2 S after averaging over 3."""
    exchanges = iter([lambda total: total.add_(30), lambda slope: slope.mul_(3)])
    monkeypatch.setattr(batch, "processes", lambda: 3)
    monkeypatch.setattr(batch.dist, "all_reduce", lambda values: next(exchanges)(values))
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    total = batch.batch_sum(x)
    assert total.tolist() == [31.0, 28.0]
    assert x.tolist() == [1.0, -2.0]
    total.square().sum().backward()
    assert x.grad is not None
    assert (x.grad / 3).tolist() == [62.0, 56.0]  # the other two have no x


def test_gathered_tensors_stand_behind_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for number, part in enumerate(parts):
            part.copy_(own + 10 * number)

    monkeypatch.setattr(batch, "processes", lambda: 3)
    monkeypatch.setattr(batch.dist, "all_gather", all_gather)
    found = batch.batch_gather(torch.tensor([1.0, 2.0], requires_grad=True))
    assert found.tolist() == [1.0, 2.0, 11.0, 12.0, 21.0, 22.0]
    assert not found.requires_grad
