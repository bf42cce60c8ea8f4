"""Schedules at the steps where their value is known, and the groups of parameters."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from rtseg.errors import ConfigError
from rtseg.training.optim import (
    BATCH_SCALING,
    OPTIMIZERS,
    SCHEDULES,
    adam,
    adamw,
    apply_schedule,
    constant,
    cosine,
    cosine_phases,
    epoch_poly,
    parameter_groups,
    poly,
    sgd,
    step,
)


class Net(nn.Module):
    """A backbone and a head, each with a weight, a bias and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.PReLU(2))


# ---------------------------------------------------------------- schedules
def test_poly_warms_up_from_a_third_and_ends_at_zero() -> None:
    total = 29_000
    factor = poly(total, power=0.9, warmup_iterations=500, warmup_start=1 / 3)
    assert factor(0) == pytest.approx(1 / 3, abs=1e-12)
    assert factor(250) == pytest.approx(2 / 3, abs=1e-12)
    assert factor(500) == 1.0
    assert factor(total) == 0.0
    assert factor(500 + (total - 500) // 2) == pytest.approx(0.5**0.9, abs=1e-12)
    values = [factor(now) for now in range(total + 1)]
    assert all(a < b for a, b in itertools.pairwise(values[:501]))
    assert all(a > b for a, b in itertools.pairwise(values[500:]))


def test_poly_ends_at_its_final_factor() -> None:
    factor = poly(100, power=1.0, final=0.2, warmup_iterations=20, warmup_start=0.0)
    assert [factor(now) for now in (10, 20, 60, 100)] == pytest.approx([0.5, 1.0, 0.6, 0.2])


def test_an_overlapping_warmup_multiplies_the_fall() -> None:
    # The learning rate that BSDNet's ancestors use: lr0 4e-4, down to 1e-6.
    total, warmup, start, least, first = 160_000, 1500, 1e-6, 1e-6, 4e-4
    factor = poly(
        total, power=0.9, final=least / first, warmup_iterations=warmup, warmup_start=start,
        warmup_overlaps=True,
    )  # fmt: skip
    for now in (0, 1, 700, 1499, 1500, 80_000, 160_000):
        rate = (first - least) * (1 - now / total) ** 0.9 + least
        if now < warmup:
            rate *= 1 - (1 - now / warmup) * (1 - start)
        assert first * factor(now) == pytest.approx(rate, rel=1e-12)
    assert factor(1500) < 1


def test_poly_without_warmup_begins_at_one() -> None:
    factor = poly(100, power=2.0)
    assert [factor(0), factor(50), factor(100)] == [1.0, 0.25, 0.0]


@pytest.mark.parametrize(("total", "warmup"), [(1001, 500), (1000, 100), (500, 50), (9, 0)])
def test_a_short_run_warms_up_for_a_tenth_of_it(total: int, warmup: int) -> None:
    for name, options in (
        ("poly", {}),
        ("constant", {}),
        ("cosine", {}),
        ("step", {"milestones": ()}),
    ):
        factor = SCHEDULES[name](total, warmup_iterations=500, warmup_start=0.5, **options)
        if warmup:
            assert factor(0) == 0.5
            assert factor(warmup - 1) < 1.0
        assert factor(warmup) == 1.0


def test_stairs_of_epochs_have_the_rates_of_the_released_code() -> None:
    steps = 4375
    factor = epoch_poly(100 * steps, epochs=100, power=1.5, resolution=2e-5)
    for epoch, rate in {0: 5e-4, 1: 4.9252e-4, 50: 1.7678e-4, 80: 4.472e-5, 99: 5e-7}.items():
        first, last = epoch * steps, (epoch + 1) * steps - 1
        assert 5e-4 * factor(first) == pytest.approx(rate, abs=1e-15)
        assert factor(first) == factor(last)
        assert 5e-4 * factor(first) == pytest.approx(
            round(5e-4 * (1 - epoch / 100) ** 1.5, 8), abs=1e-15
        )
    assert factor(100 * steps) == factor(100 * steps - 1)


def test_stairs_without_rounding_and_in_runs_that_do_not_divide() -> None:
    factor = epoch_poly(10, epochs=4, power=2.0)
    assert [factor(now) for now in range(10)] == [
        (1 - epoch / 4) ** 2 for epoch in (0, 0, 0, 1, 1, 2, 2, 2, 3, 3)
    ]
    for options in ({"epochs": 0}, {"epochs": 4, "resolution": 0.0}):
        with pytest.raises(ConfigError, match="must be positive"):
            epoch_poly(10, **options)


def test_cosine_falls_along_half_a_wave() -> None:
    factor = cosine(100, final=0.2)
    assert [factor(0), factor(50), factor(100)] == pytest.approx([1.0, 0.6, 0.2])
    assert factor(25) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_cosine_begins_again_at_each_restart() -> None:
    factor = cosine(130, restarts=(50, 90), warmup_iterations=10, warmup_start=0.0)
    assert factor(5) == 0.5
    assert [factor(now) for now in (10, 50, 90)] == [1.0, 1.0, 1.0]
    assert [factor(now) for now in (30, 70, 110)] == pytest.approx([0.5, 0.5, 0.5])
    assert factor(49) < 0.01
    assert factor(89) < 0.01
    assert factor(130) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("restarts", [(0,), (10, 10), (20, 10), (100,), (150,)])
def test_a_restart_outside_of_the_run_or_out_of_order_is_refused(restarts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.restarts"):
        cosine(100, restarts=restarts)


def test_phases_of_180_epochs_begin_at_the_full_rate_and_end_at_a_hundredth() -> None:
    epoch = 185  # steps, of Cityscapes in batches of 16
    factor = cosine_phases(180 * epoch, lengths=(50, 100, 30), final=0.01)
    assert [factor(start * epoch) for start in (0, 50, 150)] == [1.0, 1.0, 1.0]
    lasts = [factor(end * epoch - 1) for end in (50, 150, 180)]
    assert lasts == pytest.approx([0.01] * 3, abs=1e-6)
    assert factor(100 * epoch) == pytest.approx(0.01 + 0.99 / 2)


def test_phases_follow_the_length_of_the_run() -> None:
    factor = cosine_phases(36, lengths=(50, 100, 30))
    assert [now for now in range(36) if factor(now) == 1.0] == [0, 10, 30]
    assert [now for now in range(2) if cosine_phases(2, lengths=(5, 10, 3))(now) == 1.0] == [0, 1]
    assert cosine_phases(1, lengths=(5, 10, 3))(0) == 1.0


@pytest.mark.parametrize("lengths", [(), (5, 0), (-1, 2)])
def test_phases_without_length_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.lengths"):
        cosine_phases(100, lengths=lengths)


def test_step_falls_at_each_milestone() -> None:
    factor = step(100, milestones=(30, 60), gamma=0.1)
    values = [factor(now) for now in (0, 29, 30, 59, 60, 99)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_constant_stays() -> None:
    factor = constant(100, warmup_iterations=10, warmup_start=0.0)
    assert [factor(now) for now in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]


# ---------------------------------------------------------------- parameter groups
def groups_of(model: nn.Module, **options: Any) -> list[dict[str, Any]]:
    settings = {"lr": 0.1, "weight_decay": 0.01, "decay_norms": False, "backbone_multiplier": 1.0}
    return parameter_groups(model, **{**settings, **options})


def test_norms_biases_and_slopes_do_not_decay() -> None:
    model = Net()
    decay = {
        id(item): group["weight_decay"] for group in groups_of(model) for item in group["params"]
    }
    assert {name: decay[id(item)] for name, item in model.named_parameters()} == {
        "backbone.0.weight": 0.01,
        "backbone.0.bias": 0.0,
        "backbone.1.weight": 0.0,
        "backbone.1.bias": 0.0,
        "head.0.weight": 0.01,
        "head.0.bias": 0.0,
        "head.1.weight": 0.0,
    }


def test_all_parameters_decay_if_asked() -> None:
    assert {group["weight_decay"] for group in groups_of(Net(), decay_norms=True)} == {0.01}


def test_the_backbone_has_its_own_rate() -> None:
    model = Net()
    rates = {
        id(item): group["lr"]
        for group in groups_of(model, backbone_multiplier=0.1)
        for item in group["params"]
    }
    for name, item in model.named_parameters():
        assert rates[id(item)] == pytest.approx(0.01 if name.startswith("backbone") else 0.1)


def test_a_multiplier_needs_a_backbone() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.backbone_multiplier"):
        groups_of(nn.Conv2d(3, 3, 1), backbone_multiplier=0.1)


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = Net()
    model.head[0].weight.requires_grad_(False)
    found = [id(item) for group in groups_of(model) for item in group["params"]]
    wanted = {id(item) for item in model.parameters() if item.requires_grad}
    assert len(found) == len(set(found))
    assert set(found) == wanted


# ---------------------------------------------------------------- optimizers
def test_the_schedule_scales_each_group_by_its_own_rate() -> None:
    optimizer = sgd(Net(), lr=0.1, backbone_multiplier=0.1)
    for factor in (1.0, 0.5, 0.0, 0.25):
        apply_schedule(optimizer, factor)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert rates == {0.1 * 0.1 * factor, 0.1 * factor}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_of_groups_survive_saving_at_any_factor(name: str) -> None:
    first = OPTIMIZERS[name](Net(), lr=0.1, backbone_multiplier=0.1)
    apply_schedule(first, 1.0)
    apply_schedule(first, 0.3)
    second = OPTIMIZERS[name](Net(), lr=7.0, backbone_multiplier=0.5)
    apply_schedule(second, 1.0)
    second.load_state_dict(first.state_dict())
    apply_schedule(first, 0.2)
    apply_schedule(second, 0.2)
    assert [group["lr"] for group in second.param_groups] == [
        group["lr"] for group in first.param_groups
    ]


def test_adam_adds_the_decay_to_the_gradient_and_adamw_does_not() -> None:
    def after_one_step(build: Any) -> float:
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        optimizer = build(model, lr=0.1, weight_decay=0.5, decay_norms=True)
        model.weight.grad = torch.zeros(1, 1)
        optimizer.step()
        return float(model.weight.detach())

    assert after_one_step(adam) == pytest.approx(1.9)  # a gradient of any size moves by lr
    assert after_one_step(adamw) == pytest.approx(2.0 * (1 - 0.1 * 0.5))
    assert after_one_step(sgd) == pytest.approx(2.0 - 0.1 * 0.5 * 2.0)


def test_each_optimizer_has_a_rule_for_the_batch_size() -> None:
    assert BATCH_SCALING == {"sgd": 1.0, "adam": 0.5, "adamw": 0.5}
    assert set(BATCH_SCALING) == set(OPTIMIZERS)


class Queries(nn.Module):
    """Learned queries beside a packed attention, a norm and a layer with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.q_feat = nn.Parameter(torch.zeros(5, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)
        self.prelu = nn.PReLU(4)


def test_biases_may_decay_while_norms_and_named_parameters_do_not() -> None:
    model = Queries()
    optimizer = adamw(
        model,
        lr=1.0,
        weight_decay=0.05,
        backbone_multiplier=0.1,
        decay_biases=True,
        no_decay=("q_feat",),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        (group["lr"], group["weight_decay"]): sorted(names[id(p)] for p in group["params"])
        for group in optimizer.param_groups
    }
    assert found == {
        (0.1, 0.05): ["backbone.0.bias", "backbone.0.weight"],
        (0.1, 0.0): ["backbone.1.bias", "backbone.1.weight"],
        (1.0, 0.05): [
            "attention.in_proj_bias",
            "attention.in_proj_weight",
            "attention.out_proj.bias",
            "attention.out_proj.weight",
        ],
        (1.0, 0.0): ["norm.bias", "norm.weight", "prelu.weight", "q_feat"],
    }


def test_a_name_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.no_decay: this model has no 'q_pos'"):
        adamw(Queries(), lr=1.0, no_decay=("q_feat", "q_pos"))
