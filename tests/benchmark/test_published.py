from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from rtseg.benchmark.complexity import Complexity, measure
from rtseg.benchmark.published import PUBLISHED, RULES, Figure, Published
from rtseg.models import MODELS

FIGURES = [(name, figure) for name, entry in PUBLISHED.items() for figure in entry.figures]


def rounds_to(counted: float, printed: str) -> bool:
    """Tell whether a count has the printed digits."""
    number, suffix = printed.split()
    decimals = len(number.partition(".")[2])
    unit = {"K": 1e3, "M": 1e6, "G": 1e9}[suffix]
    return f"{counted / unit:.{decimals}f}" == number


@functools.cache
def measured(name: str, size: tuple[int, int], classes: int | None) -> tuple[nn.Module, Complexity]:
    with torch.device("meta"):
        model = MODELS[name](*([] if classes is None else [classes]))
    return model, measure(model, size)


def test_every_network_is_placed() -> None:
    assert set(PUBLISHED) == set(MODELS)


def test_every_rule_is_used() -> None:
    assert {figure.rule for _, figure in FIGURES} == set(RULES)


@pytest.mark.parametrize(("name", "figure"), FIGURES)
def test_counts_have_the_printed_digits_or_a_note_says_why_not(name: str, figure: Figure) -> None:
    counted = figure.counted(*measured(name, figure.input_size, figure.num_classes))
    assert rounds_to(counted, figure.printed) == (figure.note == ""), counted


def test_printed_numbers_are_read_with_their_unit() -> None:
    figure = Figure("98.2 K", "parameters", "table", (32, 32), None)
    assert figure.value == pytest.approx(98_200)
    assert figure._replace(printed="3.95 G").value == pytest.approx(3.95e9)
    assert figure.deviation(98_200 * 1.25) == pytest.approx(25)
    assert figure.deviation(98_200 * 0.5) == pytest.approx(-50)


def test_the_first_figures_are_the_main_ones() -> None:
    size = (32, 32)
    cost = Figure("2 G", "flops", "b", size, 3)
    weights = Figure("1 M", "parameters", "a", size, 3)
    entry = Published(size, 3, (cost, weights, cost._replace(printed="9 G")))
    assert entry.main(parameters=True) is weights
    assert entry.main(parameters=False) is cost
    assert Published(size, 3).main(parameters=True) is None
