"""Try an exported network in a process of its own: `python -m rtseg.inference.trial ...`.

An engine that crashes then ends this process only, and none disturbs the others.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rtseg.runtimes import open_export
from rtseg.runtimes.ports import make_output

WARM_UP, SECONDS, RUNS = 3, 0.5, 10
"""decision: runs before the clock starts; then at least so many seconds and so many runs."""
PATIENCE = 300.0
"""Seconds after which a trial is given up; compiling for a large size takes tens of them."""


class Trial(NamedTuple):
    """What came of it: the outputs of each image, and the median milliseconds of one run."""

    outputs: list[Any]
    milliseconds: float


class TrialFailedError(Exception):
    """The engine raised, crashed or took too long; the text says which."""


def median_ms(models: Sequence[Callable[[Tensor], Any]], image: Tensor) -> list[float]:
    """Return the median time of one run of each model in milliseconds.

    They take turns, so that whatever else the machine does slows down all of them.

    Args:
        models: Networks or runtimes on the CPU.
        image: (1, 3, H, W).
    """
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < WARM_UP + RUNS or time.perf_counter() - start < SECONDS:
        stamps = [time.perf_counter()]
        for model in models:
            model(image)
            stamps.append(time.perf_counter())
        times.append([(after - before) * 1000 for before, after in pairwise(stamps)])
    return [statistics.median(column) for column in zip(*times[WARM_UP:], strict=True)]


def run_trial(
    folders: Mapping[str, Path], images: Tensor, *, runtime: str, threads: int
) -> dict[str, Trial]:
    """Open exported folders in a new process, run them on each image, and measure them by turns.

    Args:
        folders: What `rtseg export` wrote, by the precision to compute in.
        images: (N, 3, H, W) float32, normalized.
        runtime: The engine.
        threads: Threads that it computes with.

    Returns:
        By precision.

    Raises:
        TrialFailedError: The engine raised, crashed or took too long.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        save_file({"images": images.contiguous()}, place / "images")
        words = [runtime, str(threads), str(place)]
        for precision, folder in folders.items():
            words += [precision, str(folder)]
        command = [sys.executable, "-m", "rtseg.inference.trial", *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise TrialFailedError(f"took more than {PATIENCE:.0f} s") from None
        if done.returncode < 0:
            raise TrialFailedError(f"crashed (signal {-done.returncode})")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise TrialFailedError(f"failed ({lines[-1]})")
        return {precision: _read(place / precision) for precision in folders}


def _read(path: Path) -> Trial:
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    outputs = []
    for index in range(int(facts["images"])):
        prefix = f"{index}."
        found = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        outputs.append(make_output(facts["output"], found))
    return Trial(outputs, float(facts["milliseconds"]))


def main(runtime: str, threads: str, place: str, *words: str) -> None:
    """Run the images in `place`; write outputs and time of each precision beside them.

    Args:
        runtime: The engine.
        threads: Threads that it computes with.
        place: Folder of the images.
        words: Each precision, and the folder that was exported for it.
    """
    torch.set_num_threads(int(threads))
    names, folders = words[::2], words[1::2]
    models = [
        open_export(folder, runtime=runtime, precision=name, threads=int(threads)).model
        for name, folder in zip(names, folders, strict=True)
    ]
    images = load_file(Path(place) / "images")["images"]
    times = median_ms(models, images[:1])
    for name, model, milliseconds in zip(names, models, times, strict=True):
        _write(Path(place) / name, Trial([model(image[None]) for image in images], milliseconds))


def _write(path: Path, trial: Trial) -> None:
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, output in enumerate(trial.outputs)
        for name, value in output._asdict().items()
        if isinstance(value, Tensor)
    }
    facts = {
        "milliseconds": repr(trial.milliseconds),
        "images": str(len(trial.outputs)),
        "output": type(trial.outputs[0]).__name__,
    }
    save_file(tensors, path, metadata=facts)


if __name__ == "__main__":
    main(*sys.argv[1:])
