from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rtseg.errors import ConfigError
from rtseg.training.find_lr import RateTest, draw_rates, find_lr, smooth, suggest
from training.toy import Pictures, Toy, toy_plan


def test_moving_average_is_corrected_for_its_start() -> None:
    assert smooth([3.0]) == [pytest.approx(3.0)]
    assert smooth([3.0, 6.0])[1] == pytest.approx((0.8 * 0.6 + 0.2 * 6) / 0.36)
    assert smooth([5.0] * 20) == pytest.approx([5.0] * 20)


def test_steepest_fall_over_the_logarithm_is_suggested() -> None:
    rates = [10.0**power for power in range(-8, 3)]
    losses = [9.0, 9.0, 9.0, 9.0, 8.5, 7.0, 3.0, 2.0, 1.9, 5.0, 90.0]
    assert suggest(rates, losses) == 10.0**-3  # from 8.5 before it to 3.0 after it is most
    assert suggest(rates, [1.0 + index for index in range(11)]) is None
    assert suggest([], []) is None


def test_rates_rise_by_one_factor_and_nothing_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan = toy_plan(iterations=5, model=Toy(dropout=0.0), train=Pictures(12))
    found = find_lr(plan, tmp_path, low=1e-4, high=1e-1, steps=31)
    steps = np.diff(np.log10(found.rates))
    assert found.rates[0] == pytest.approx(1e-4)
    assert found.rates[-1] == pytest.approx(1e-1)
    assert steps == pytest.approx(np.full(30, 0.1))
    assert len(found.losses) == len(found.smoothed) == 31
    assert found.suggested is not None
    assert 1e-4 < found.suggested < 1e-1
    assert found.losses[-1] < found.losses[0]
    assert list(tmp_path.iterdir()) == []


def test_first_step_has_the_first_rate_in_every_group_ratio(tmp_path: Path) -> None:
    model = Toy(dropout=0.0, norm=False)

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        weights = [*module.model.first.parameters()], [*module.model.last.parameters()]
        return torch.optim.SGD([{"params": weights[0], "lr": 0.1}, {"params": weights[1]}], lr=0.2)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = toy_plan(iterations=5, model=model, optimizer=optimizer)
    seen = []

    def after(name: str) -> float:
        return float((model.state_dict()[name] - before[name]).norm())

    find_lr(plan, tmp_path, low=1e-9, high=1.0000001e-9, steps=10)
    seen = [after("first.weight"), after("last.weight")]
    assert all(change < 1e-6 for change in seen)  # 0.1 and 0.2 would move them visibly


def test_test_ends_when_the_loss_explodes(tmp_path: Path) -> None:
    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=1.0)

    plan = toy_plan(iterations=5, model=Toy(dropout=0.0, norm=False), optimizer=optimizer)
    found = find_lr(plan, tmp_path, low=1e-3, high=1e12, steps=60)
    assert len(found.losses) < 60
    assert all(math.isfinite(loss) for loss in found.losses)


@pytest.mark.parametrize(("low", "high", "steps"), [(0.0, 1.0, 20), (1.0, 0.1, 20), (0.1, 1.0, 9)])
def test_bounds_are_checked(tmp_path: Path, low: float, high: float, steps: int) -> None:
    with pytest.raises(ConfigError, match="are no range"):
        find_lr(toy_plan(iterations=5), tmp_path, low=low, high=high, steps=steps)


def test_picture_is_drawn(tmp_path: Path) -> None:
    test = RateTest((0.1, 1.0), (2.0, 1.0), (2.0, 1.5), 0.1)
    with Image.open(draw_rates(test, tmp_path / "rates.png")) as picture:
        assert picture.width > 400
