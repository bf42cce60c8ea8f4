"""How long a training step takes, without leaving anything behind."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from pathlib import Path

from rtseg.training.loop import batches, train_step
from rtseg.training.options import Plan
from rtseg.training.run_log import RunLog
from rtseg.training.session import start


def step_seconds(plan: Plan, folder: Path, *, warmup: int, steps: int) -> float:
    """Return the median seconds of a training step, waiting for its images included.

    The network of the plan is changed by the steps; build another for the run.

    Args:
        plan: What would be trained.
        folder: Run folder; nothing is written to it.
        warmup: Steps before the clock starts.
        steps: Steps that are timed.
    """
    session = start(plan, folder, RunLog(None, display=lambda _: None))
    times = []
    with closing(batches(session)) as source:
        for _ in range(warmup + steps):
            began = time.perf_counter()
            train_step(session, [next(source) for _ in range(plan.options.accumulate)])
            times.append(time.perf_counter() - began)
    return statistics.median(times[warmup:])
