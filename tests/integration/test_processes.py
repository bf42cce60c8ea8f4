"""Two processes train one network: started, stopped together, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtseg import checkpoint
from rtseg.training.run_log import read_log

RECIPE = """
model: {name: dabnet}
data:
  train: {name: synthetic, split: train, size: [32, 48], length: 8}
  val: {name: synthetic, split: val, size: [32, 48], length: 3}
  augment: {crop: [32, 32]}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 30, batch_size: 2, device: cpu, devices: 2, log_every: 1, threads: 1}
optimizer: {name: adam, lr: 1.0e-3}
schedule: {name: poly}
"""
SCRIPT = """
import sys
from pathlib import Path
from rtseg.errors import RtsegError
from rtseg.recipe import read_recipe, resume_recipe, train
from rtseg.training import run_log
run_log._tensorboard = lambda *_: None
folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
recipe = resume_recipe(folder) if resume else read_recipe(folder.parent / "own.yaml", sys.argv[3:])
try:
    train(recipe, folder, resume=resume)
except RtsegError as error:
    sys.exit(error.exit_code)
"""


def start(folder: Path, mode: str, *overrides: str) -> subprocess.Popen[bytes]:
    """Train in two processes; the second is started by the first, from the same file."""
    script = folder.parent / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    (folder.parent / "own.yaml").write_text(RECIPE, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), mode, *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "new")
    deadline = time.monotonic() + 120
    while not any(event["step"] >= 3 for event in read_log(folder)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    stopped = checkpoint.read_state(folder / "last")
    assert 3 <= stopped["step"] < 30
    assert stopped["random"]["cpu"].shape[0] == 2
    assert start(folder, "resume").wait(timeout=240) == 0
    assert checkpoint.read_state(folder / "last")["step"] == 30
    steps = [event["step"] for event in read_log(folder) if event["event"] == "train"]
    assert steps == list(range(1, 31))
