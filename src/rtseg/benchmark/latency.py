"""Call something many times, and sum up how long that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

SMALLEST_WARMUP = 3
"""decision: calls before anything is timed, however slow they are; engines settle on the second."""
PERCENTILES = (50, 90, 95, 99)


class Protocol(NamedTuple):
    """When a measurement is warm, and when it is long enough.

    warmup_iterations, warmup_seconds: warming up ends when one of them is reached; None is never.
    iterations, seconds: each round ends when its share of both is reached.
    rounds: with more than one, several engines take turns, so that a change of the machine's
    clock or load meets all of them; one round measures them one after the other.
    """

    warmup_iterations: int
    warmup_seconds: float | None
    iterations: int
    seconds: float
    rounds: int = 1

    def part(self) -> tuple[int, float]:
        """Return iterations and seconds of one round."""
        return -(-self.iterations // self.rounds), self.seconds / self.rounds


PROTOCOLS = {
    "standard": Protocol(50, 3.0, 200, 10.0),
    # Source: TwinMixing, table 1: 50 calls to warm up, then 500. decision: in ten rounds, whose
    # spread is given, and the device is waited for, which the published code leaves out.
    "twinmixing": Protocol(50, None, 500, 0.0, rounds=10),
}
QUICK = Protocol(3, 0.5, 10, 0.0)
"""For a first try; figures are marked, and no file of them passes for a measurement."""


class Timed(NamedTuple):
    """Seconds of every call, and the processor's seconds for all of them, of all threads."""

    seconds: list[float]
    processor_seconds: float


def warm_up(
    call: Callable[[], object],
    protocol: Protocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Call until the protocol says that it is warm; return the seconds of every call.

    Args:
        call: Returns when its result is there, on any device.
        protocol: Says when to stop.
        clock: Seconds.
    """
    limit = protocol.warmup_seconds
    taken: list[float] = []
    while len(taken) < protocol.warmup_iterations:
        started = clock()
        call()
        taken.append(clock() - started)
        if limit is not None and sum(taken) >= limit and len(taken) >= SMALLEST_WARMUP:
            break
    return taken


def time_calls(
    call: Callable[[], object],
    *,
    iterations: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Call at least so many times and for at least so long.

    Args:
        call: As for `warm_up`.
        iterations: Calls.
        seconds: Of all calls together.
        clock: Seconds.
    """
    taken: list[float] = []
    total, processor = 0.0, time.process_time()
    while len(taken) < iterations or total < seconds:
        started = clock()
        call()
        taken.append(clock() - started)
        total += taken[-1]
    return Timed(taken, time.process_time() - processor)


def summarize(rounds: Sequence[Sequence[float]], *, batch: int) -> dict[str, Any]:
    """Return percentiles, mean and spread of calls, and images per second.

    Args:
        rounds: Seconds of the calls of each round.
        batch: Images of one call.

    Returns:
        `iterations`; `p50_ms`, `p90_ms`, `p95_ms`, `p99_ms` (between two calls linearly), `min_ms`,
        `mean_ms`, `std_ms` (of a sample; 0 of a single call); `images_per_second`, all images over
        all seconds, and `images_per_second_std`, from round to round (None of a single round).
    """
    times = np.concatenate([np.asarray(part, np.float64) for part in rounds]) * 1000
    marks = np.percentile(times, PERCENTILES)
    speeds = [batch * len(part) / sum(part) for part in rounds]
    return {
        "iterations": len(times),
        **{f"p{mark}_ms": float(value) for mark, value in zip(PERCENTILES, marks, strict=True)},
        "min_ms": float(times.min()),
        "mean_ms": float(times.mean()),
        "std_ms": _spread(times),
        "images_per_second": float(batch * len(times) * 1000 / times.sum()),
        "images_per_second_std": _spread(np.asarray(speeds)) if len(speeds) > 1 else None,
    }


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
