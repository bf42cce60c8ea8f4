"""When layers become binary: the paper's table, short runs, five phases, orders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rtseg.checkpoint import create_model
from rtseg.errors import ConfigError
from rtseg.nn.binary import BinaryConv2d, binary_layers
from rtseg.training.optim import cosine_phases
from rtseg.training.phases import Phases, layer_order, timetable

LENGTHS = (50, 100, 30)


def binary_after(table: Any, step: int) -> int:
    """Return how many layers compute with binary weights in a step."""
    return sum(at <= step for at in table.weights.values())


# ---------------------------------------------------------------- the timetable
@pytest.mark.parametrize("steps", [1, 7, 185])
def test_layers_of_the_paper_become_binary_in_ten_groups_of_five(steps: int) -> None:
    names = [f"layer{index}" for index in range(50)]
    table = timetable(Phases(LENGTHS), 180 * steps, weights=names, inputs=[])
    known = {0: 0, 49: 0, 50: 5, 59: 5, 60: 10, 140: 50, 149: 50, 150: 50, 179: 50}
    for epoch, count in known.items():
        assert binary_after(table, epoch * steps) == count
        assert binary_after(table, epoch * steps + steps - 1) == count
    assert binary_after(table, 60 * steps - 1) == 5  # the last step before a switch
    assert list(table.weights) == names
    assert list(table.weights.values()) == sorted(table.weights.values())
    assert (table.rise, table.final) == ((50 * steps, 150 * steps), 150 * steps)
    assert table.inputs == {}


def test_the_learning_rate_restarts_with_the_phases() -> None:
    for total in (2, 5, 17, 180, 999, 1500):
        table = timetable(Phases(LENGTHS), total, weights=["a", "b"], inputs=[])
        factor = cosine_phases(total, lengths=LENGTHS, final=0.01)
        for start in (0, *table.rise):
            assert factor(start) == pytest.approx(1.0)
        assert all(factor(step) < 1 for step in range(total) if step not in (0, *table.rise))


@pytest.mark.parametrize("total", [1, 2, 3, 4])
def test_the_shortest_runs_end_with_binary_weights(total: int) -> None:
    table = timetable(Phases(LENGTHS), total, weights=["a", "b", "c"], inputs=[])
    assert table.final <= total - 1
    assert binary_after(table, total - 1) == 3
    shares = [table.penalty_share(step) for step in range(total)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_without_a_second_phase_the_penalty_jumps() -> None:
    table = timetable(Phases((1, 0, 1)), 10, weights=["a"], inputs=[])
    assert [table.penalty_share(step) for step in range(10)] == [0.0] * 5 + [1.0] * 5


def test_groups_are_equal_but_for_the_last() -> None:
    phases = Phases((1, 4, 1), groups=4)
    table = timetable(phases, 60, weights=list("abcdefghij"), inputs=[])
    # Ten layers in four groups: 3, 3, 3, 1 at equal distances of 10 steps.
    assert list(table.weights.values()) == [10, 10, 10, 20, 20, 20, 30, 30, 30, 40]
    assert table.final == 50
    at_once = timetable(Phases((1, 4, 1), groups=1), 60, weights=list("abc"), inputs=[])
    assert list(at_once.weights.values()) == [10, 10, 10]


def test_inputs_follow_in_two_phases_of_their_own() -> None:
    phases = Phases((2, 2, 1, 4, 1), groups=2)
    table = timetable(phases, 100, weights=["a", "b", "c"], inputs=["a", "c"])
    assert table.weights == {"a": 20, "b": 20, "c": 30}
    assert table.inputs == {"a": 50, "c": 70}
    assert (table.rise, table.final) == ((20, 40), 90)


def test_phases_may_be_empty_but_for_the_last() -> None:
    table = timetable(Phases((0, 0, 1)), 30, weights=["a", "b"], inputs=[])
    assert set(table.weights.values()) == {0}
    assert table.final == 0
    assert table.penalty_share(0) == 1.0


def test_the_penalty_rises_over_the_second_phase() -> None:
    table = timetable(Phases(LENGTHS), 180, weights=["a"], inputs=[])
    shares = {0: 0.0, 50: 0.0, 51: 0.01, 100: 0.5, 149: 0.99, 150: 1.0, 179: 1.0}
    assert {step: table.penalty_share(step) for step in shares} == pytest.approx(shares)


def test_switches_are_looked_for_between_two_steps() -> None:
    table = timetable(Phases((1, 1, 1, 1, 1), groups=1), 50, weights=["a"], inputs=["a"])
    assert (table.weights["a"], table.inputs["a"]) == (10, 30)
    looked = [(0, 10), (0, 11), (10, 11), (11, 30), (11, 31), (31, 50)]
    assert [table.switches(*pair) for pair in looked] == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"lengths": (50, 100)}, "binarize.lengths"),
        ({"lengths": (50, 100, 30, 10)}, "binarize.lengths"),
        ({"lengths": (50, -1, 30)}, "binarize.lengths"),
        ({"lengths": (50, 100, 0)}, "binarize.lengths"),
        ({"lengths": LENGTHS, "groups": 0}, "binarize.groups"),
        ({"lengths": LENGTHS, "penalty": -0.1}, "binarize.penalty"),
        ({"lengths": LENGTHS, "recalibrate": -1}, "binarize.recalibrate"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Phases(**options)
    assert caught.value.where == where
    assert caught.value.fix


# ---------------------------------------------------------------- the order
class Pyramid(nn.Module):
    """Layers of known scale and size: a (1/1, 36), b (1/2, 72), c (1/2, 8), d (1/4, 72)."""

    def __init__(self) -> None:
        super().__init__()
        self.d = BinaryConv2d(4, 2, 3, stride=2)  # built first, runs last
        self.a = BinaryConv2d(3, 2, 3)
        self.b = BinaryConv2d(2, 4, 3, stride=2)
        self.c = BinaryConv2d(4, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.b(self.a(images))
        return torch.Tensor(self.c(x).mean() + self.d(x))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("deep_first", "dbca"),
        ("shallow_first", "acbd"),
        ("by_size", "bdac"),  # b and d have 72 weights each: in the order of their names
        (("c", "*"), "cabd"),
        (("[bd]", "a", "*"), "bdac"),
    ],
    ids=str,
)
def test_orders_of_a_network_whose_layers_are_known(order: Any, expected: str) -> None:
    model = Pyramid()
    assert [layer.weight.numel() for layer in binary_layers(model).values()] == [72, 54, 72, 8]
    assert "".join(layer_order(model, order)) == expected
    assert model.training
    assert not any(layer._forward_hooks for layer in binary_layers(model).values())


@pytest.mark.parametrize(
    ("order", "says"),
    [(("a", "x*"), "no binary layer has a name like 'x\\*'"), (("a", "b"), "'c' fits no pattern")],
    ids=str,
)
def test_patterns_have_to_name_every_layer(order: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        layer_order(Pyramid(), order)
    assert caught.value.where == "binarize.order"


def test_networks_without_binary_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="no binary layers") as caught:
        layer_order(nn.Conv2d(3, 2, 3), "deep_first")
    assert caught.value.where == "binarize"


def test_the_paper_network_begins_at_its_bottom_and_ends_at_full_size() -> None:
    with torch.device("meta"):
        model = create_model("bisegunet", 19)
    names = layer_order(model, "deep_first")
    assert len(names) == 50
    assert names[0] == "encoder4.conv"  # 1/16, 2.36 million weights
    assert {name.split(".")[0] for name in names[:5]} == {"encoder4", "aspp"}
    assert {name.split(".")[0] for name in names[-9:]} == {"stem", "capacity_out"}
    assert (
        names.index("decoder1.conv")
        < names.index("encoder3.conv")
        < names.index("stem.stream3.conv")
    )
    half = layer_order(create_model("bisegunet_edge", 19), "deep_first")
    assert sorted(half) == sorted(names)
