"""A run that is killed again and again ends with the weights of one that was not."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rtseg import checkpoint
from rtseg.training.run_log import read_log
from training.toy import Pictures, run, toy_plan

STEPS_PER_KILL, VAL_EVERY, THREADS = 25, 7, 1
SCRIPT = """
import sys
from pathlib import Path
import torch
from rtseg.training import run_log
from training.toy import Pictures, run, toy_plan
folder, steps, val_every, save_every, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
run_log._tensorboard = lambda *_: None
plan = toy_plan(
    iterations=steps, val=Pictures(3), val_every=val_every, save_every=save_every, ema_decay=0.9,
    workers=1,
)
run(plan, Path(folder), resume=True)
"""


def start(folder: Path, steps: int, save_every: int) -> subprocess.Popen[bytes]:
    """Train, from what the folder holds, in a process of its own."""
    arguments = [str(folder), *map(str, (steps, VAL_EVERY, save_every, THREADS))]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
    )


def logged_step(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return max((event["step"] for event in read_log(folder)), default=0)
    return 0


def wait_for_step(process: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    """Wait until the log of a run has reached a step, or the run has ended."""
    deadline = time.monotonic() + 120
    while logged_step(folder) < step and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not go on"
        time.sleep(0.005)


def reference(folder: Path, steps: int, save_every: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    options = {"iterations": steps, "val_every": VAL_EVERY, "save_every": save_every}
    run(toy_plan(val=Pictures(3), ema_decay=0.9, **options), folder)
    torch.set_num_threads(threads)


def survive(tmp_path: Path, *, kills: int, save_every: int, seed: int) -> None:
    """Kill a run at random moments of random steps, resume it each time, compare the ends."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = STEPS_PER_KILL * kills
    reference(whole, steps, save_every)
    draws = random.Random(seed)
    early = 0
    for _ in range(kills):
        process = start(parts, steps, save_every)
        wait_for_step(process, parts, logged_step(parts) + draws.randint(1, STEPS_PER_KILL // 2))
        time.sleep(draws.uniform(0.0, 0.05))  # anywhere in a step or in the middle of saving
        early += process.poll() is None
        process.kill()
        process.wait()
        if (parts / "last").exists() or (parts / "last.previous").exists():
            found = checkpoint.locate(parts / "last")
            state = checkpoint.read_state(found)
            assert state["step"] == checkpoint.read_info(found).facts["step"]
            checkpoint.read_weights(found)
    assert early >= kills / 2, "most runs ended before they were killed"
    assert start(parts, steps, save_every).wait(timeout=300) == 0
    states = [checkpoint.read_state(folder / "last") for folder in (whole, parts)]
    for kind in ("model", "ema"):
        for name, value in states[0][kind].items():
            assert torch.equal(value, states[1][kind][name]), name
    assert torch.equal(states[0]["random"]["cpu"], states[1]["random"]["cpu"])
    for name in ("last", "best"):
        weights = [checkpoint.read_weights(folder / name) for folder in (whole, parts)]
        assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    losses = [
        [(event["step"], event["loss"]) for event in read_log(folder) if event["event"] == "train"]
        for folder in (whole, parts)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [1, 3])
def test_a_run_that_is_killed_three_times_ends_the_same(tmp_path: Path, save_every: int) -> None:
    survive(tmp_path, kills=3, save_every=save_every, seed=save_every)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_killed_twenty_times_ends_the_same(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, kills=20, save_every=2, seed=seed)
