"""Try learning rates from small to large on one run, and see where the loss falls fastest.

Source: Smith, Cyclical learning rates for training neural networks (2017), section 3.3: the range
test. decision: of the rates at which the smoothed loss falls, the one with the steepest slope over
the logarithm of the rate is suggested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rtseg import visualize
from rtseg.errors import ConfigError, RtsegError
from rtseg.training.loop import batches, train_step
from rtseg.training.options import Plan
from rtseg.training.run_log import RunLog
from rtseg.training.session import start

SMOOTHING = 0.8
DIVERGED = 4.0
"""The test ends when the smoothed loss is above its smallest value times this."""
_EDGE = 3  # points at both ends that are not suggested: the average has not settled


@dataclass(frozen=True)
class RateTest:
    """Result of a range test.

    rates: of the largest parameter group. losses: of each step. smoothed: their moving average,
    corrected for its start. suggested: the rate of steepest fall; None if the loss never fell.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggested: float | None


def find_lr(
    plan: Plan, folder: Path, *, low: float = 1e-6, high: float = 1.0, steps: int = 100
) -> RateTest:
    """Train with a learning rate that rises by the same factor from step to step.

    The network of the plan is changed; build another for the run. Nothing is written.

    Args:
        plan: What would be trained; its schedule is not used. Groups with a rate of their own, such
            as a backbone, keep their ratio to the others.
        folder: Run folder; nothing is written to it.
        low: First rate.
        high: Last rate, unless the loss grows too large before.
        steps: How many, at least 10.

    Raises:
        ConfigError: The bounds or the number of steps make no sense.
    """
    if not 0 < low < high or steps < 10:
        raise ConfigError(
            f"{steps} steps from {low:g} to {high:g} are no range",
            where="--find-lr",
            fix="use two rates above 0, the lower first, and at least 10 steps",
        )
    session = start(plan, folder, RunLog(None, display=lambda _: None))
    base = max(group["initial_lr"] for group in session.optimizer.param_groups)
    rates = [low * (high / low) ** (index / (steps - 1)) for index in range(steps)]
    session.schedule = lambda step: rates[step] / base
    losses: list[float] = []
    smoothed: list[float] = []
    with closing(batches(session)) as source:
        for _ in rates:
            parts = [next(source) for _ in range(plan.options.accumulate)]
            try:
                losses.append(sum(train_step(session, parts).values()))
            except RtsegError:  # the loss is not finite any more
                break
            smoothed = smooth(losses)
            if smoothed[-1] > DIVERGED * min(smoothed):
                break
    used = tuple(rates[: len(losses)])
    return RateTest(used, tuple(losses), tuple(smoothed), suggest(used, smoothed))


def smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average, divided by the weight that it has seen so far."""
    found, average = [], 0.0
    for count, value in enumerate(values, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        found.append(average / (1 - SMOOTHING**count))
    return found


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """Return the rate at which the loss falls most steeply over log(rate); None if it never does.

    Only what lies before the smallest loss counts.
    """
    if not smoothed:
        return None
    end = min(range(len(smoothed)), key=smoothed.__getitem__)
    slopes = {
        index: (smoothed[index + 1] - smoothed[index - 1])
        / (math.log(rates[index + 1]) - math.log(rates[index - 1]))
        for index in range(_EDGE, min(end + 1, len(rates) - _EDGE))
    }
    if not slopes:
        return None
    best = min(slopes, key=slopes.__getitem__)
    return rates[best] if slopes[best] < 0 else None


def draw_rates(test: RateTest, path: Path) -> Path:
    """Draw loss over log10(rate) to a PNG file."""
    axis = [math.log10(rate) for rate in test.rates]
    series = {
        "loss": list(zip(axis, test.losses, strict=True)),
        "smoothed": list(zip(axis, test.smoothed, strict=True)),
    }
    picture = visualize.curves(
        series, title="Range test", xlabel="log10 of the learning rate", ylabel="loss"
    )
    return visualize.write_image(path, picture)
