"""Processes that were started by the run, by torchrun or as SLURM does: they end together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtseg import checkpoint
from rtseg.errors import ConfigError, RtsegError
from rtseg.training import processes
from rtseg.training.run_log import read_log

RECIPE = """
model: {name: dabnet}
data:
  train: {name: synthetic, split: train, size: [32, 48], length: 8}
  augment: {crop: [32, 32]}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 400, batch_size: 4, device: cpu, log_every: 1, save_every: 2, threads: 1}
optimizer: {name: adam, lr: 1.0e-3}
schedule: {name: poly}
"""
RTSEG = ["-m", "rtseg", "train"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def started(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    """Run Python in a folder that holds the recipe."""
    (folder / "own.yaml").write_text(RECIPE, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder, env={**ENVIRONMENT, **variables}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextlib.contextmanager
def group(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process of the test behind, however it ends."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not any(event["step"] >= step for event in read_log(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the process that a run has started, by its environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{processes.STARTED_BY}={process.pid}\0".encode() in path.read_bytes():
                return int(path.parent.name)
    raise AssertionError("no other process was started")


def gone(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return True


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "other"])
def test_a_process_that_is_killed_ends_the_run_which_goes_on_later(
    tmp_path: Path, victim: str
) -> None:
    folder = tmp_path / "run"
    words = [*RTSEG, "own.yaml", "--output", "run", "--overwrite", "train.devices=2"]
    process = started(tmp_path, *words)
    with group(process):
        wait_for(folder, 4, process)
        other = child_of(process)
        os.kill(process.pid if victim == "first" else other, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not (gone(process.pid) and gone(other)):
            assert time.monotonic() < deadline, "the others wait for a process that is gone"
            time.sleep(0.1)
        errors = process.communicate(timeout=30)[1]
    who = {
        "first": "the first process of the run ended",
        "other": r"process 1 of 2 \(counted from 0\) was killed by signal 9",
    }
    assert re.search(f"error: run: {who[victim]}, and the others cannot go on", errors), errors
    assert "rtseg train --resume run" in errors
    assert "Traceback" not in errors
    assert process.returncode == (-9 if victim == "first" else 1)
    saved = checkpoint.read_state(folder / "last")["step"]
    assert 2 <= saved < 400
    shorter = folder / "config.yaml"
    text = shorter.read_text(encoding="utf-8")
    shorter.write_text(
        text.replace("iterations: 400", f"iterations: {saved + 3}"), encoding="utf-8"
    )
    again = started(tmp_path, *RTSEG, "--resume", "run", "--json")
    with group(again):
        output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert json.loads(output)["run"] == "run"  # one document, although two processes made it
    lines = [event["step"] for event in read_log(folder) if event["event"] == "train"]
    assert lines == list(range(1, saved + 4))
    end = read_log(folder)[-1]
    assert end["images_per_second"] > 0
    assert end["peak_memory_mb"] > 100
    assert 0 <= end["data_share"] <= 1


@pytest.mark.slow
def test_torchrun_says_how_many_processes_there_are(tmp_path: Path) -> None:
    words = ["own.yaml", "--output", "run", "train.iterations=3"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    process = started(tmp_path, *launcher, *RTSEG, *words)
    with group(process):
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.count("run folder: run") == 1
    state = checkpoint.read_state(tmp_path / "run" / "last")
    assert state["step"] == 3
    assert len(state["random"]["cpu"]) == 2


@pytest.mark.slow
def test_tasks_of_slurm_form_one_run(tmp_path: Path) -> None:
    port = str(processes._free_port())
    variables = {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1",
        "SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    words = [*RTSEG, "own.yaml", "--output", "run", "train.iterations=3"]
    tasks = [
        started(tmp_path, *words, **variables, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in ("0", "1")
    ]
    with group(tasks[0]), group(tasks[1]):
        ends = [task.communicate(timeout=240) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], ends
    assert ends[1][0] == ""
    assert len(checkpoint.read_state(tmp_path / "run" / "last")["random"]["cpu"]) == 2


def test_layout_is_that_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert processes.launched() is None
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert processes.launched() == (4, 2)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert processes.launched() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert processes.launched() == (2, 3)


def test_without_a_script_there_is_nothing_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with (
        pytest.raises(ConfigError, match=r"train.devices: is 2, .* no script or command"),
        processes.together(2, 1, folder=tmp_path),
    ):
        pass
    assert "WORLD_SIZE" not in os.environ


def test_several_nodes_need_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NODE_RANK", "1")
    words = "train.num_nodes: is 2, but the environment does not say MASTER_ADDR and MASTER_PORT;"
    with pytest.raises(ConfigError, match=words), processes.together(1, 2, folder=tmp_path):
        pass


def test_only_failed_exchanges_become_the_loss_of_a_process(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="out of range"),
        processes.together(1, 1, folder=tmp_path),
    ):
        raise RuntimeError("out of range")
    with (
        pytest.raises(RtsegError, match="another process of the run ended, and the others"),
        processes.together(1, 1, folder=tmp_path),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
