from __future__ import annotations

from collections.abc import Callable

import pytest

from rtseg.benchmark.latency import PROTOCOLS, Protocol, summarize, time_calls, warm_up


class Clock:
    """A clock that only the calls move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def call(self, *seconds: float) -> Callable[[], None]:
        """Return a call that takes so many seconds: the last number from its second call on."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_figures_are_those_worked_out_by_hand() -> None:
    # 1..5 ms: percentile p lies at position p/100 * 4 between them.
    found = summarize([[0.003, 0.001, 0.005, 0.002, 0.004]], batch=4)
    expected = {
        "iterations": 5, "p50_ms": 3.0, "p90_ms": 4.6, "p95_ms": 4.8, "p99_ms": 4.96,
        "min_ms": 1.0, "mean_ms": 3.0, "std_ms": 2.5**0.5, "images_per_second": 20 / 0.015,
    }  # fmt: skip
    assert found.pop("images_per_second_std") is None
    assert found == pytest.approx(expected)


def test_rounds_are_put_together_and_their_speeds_spread() -> None:
    found = summarize([[0.1, 0.1], [0.2]], batch=2)
    assert found["iterations"] == 3
    assert found["p50_ms"] == pytest.approx(100)
    assert found["images_per_second"] == pytest.approx(6 / 0.4)
    # 20 and 10 images/s: a sample of two spreads by their distance over the root of 2.
    assert found["images_per_second_std"] == pytest.approx(10 / 2**0.5)


def test_a_single_call_has_no_spread() -> None:
    found = summarize([[0.5]], batch=1)
    assert (found["std_ms"], found["p99_ms"]) == (0.0, 500.0)


@pytest.mark.parametrize(
    ("limits", "seconds", "calls"),
    [
        ((50, 3.0), 0.01, 50),  # the calls come first
        ((50, 3.0), 0.5, 6),  # the seconds come first
        ((50, 3.0), 60.0, 3),  # three calls in any case
        ((50, None), 60.0, 50),  # seconds do not count
        ((2, 3.0), 0.01, 2),
    ],
)
def test_warming_up_ends_with_the_first_limit(
    limits: tuple[int, float | None], seconds: float, calls: int
) -> None:
    clock = Clock()
    taken = warm_up(clock.call(seconds), Protocol(*limits, 1, 0.0), clock=clock)
    assert taken == pytest.approx([seconds] * calls)


def test_measuring_ends_when_both_limits_are_reached() -> None:
    clock = Clock()
    few = time_calls(clock.call(0.25), iterations=3, seconds=2.0, clock=clock)
    assert few.seconds == pytest.approx([0.25] * 8)
    many = time_calls(clock.call(0.7, 0.5), iterations=5, seconds=2.0, clock=clock)
    assert many.seconds == pytest.approx([0.7, 0.5, 0.5, 0.5, 0.5])


def test_processor_seconds_are_those_of_the_calls() -> None:
    timed = time_calls(lambda: sum(range(200_000)), iterations=5, seconds=0.0)
    assert 0 < timed.processor_seconds <= 1.5 * sum(timed.seconds) + 0.05


def test_rounds_share_calls_and_seconds() -> None:
    assert Protocol(50, 3.0, 200, 10.0, rounds=3).part() == (67, pytest.approx(10 / 3))
    paper = PROTOCOLS["twinmixing"]
    assert paper.part()[0] * paper.rounds == 500
    assert paper.warmup_iterations == 50
    standard = PROTOCOLS["standard"]
    assert standard == Protocol(50, 3.0, 200, 10.0, 1)
