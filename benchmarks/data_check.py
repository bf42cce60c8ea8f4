"""Measure how many pairs of image and mask a data check examines per second.

Draws a few synthetic scenes, grains them like photos so that they compress no better, and writes
pairs that all differ into a native folder. Then checks it several times without a cache, and once
with one. The files are in the memory of the system, so this measures decoding, not the disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rtseg.data.check import CheckReport, check_dataset
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic
from rtseg.data.weights import default_workers

SCENES = 8


def write_pairs(root: Path, *, pairs: int, size: tuple[int, int], suffix: str) -> None:
    """Write a native folder; every image is a scene, shifted and with grain of its own."""
    drawn = Synthetic(size=size, length=SCENES)
    scenes = [drawn[index] for index in range(SCENES)]
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True)
    for index in range(pairs):
        scene, rng = scenes[index % SCENES], np.random.default_rng(index)
        shift = int(rng.integers(size[1]))
        grain = rng.integers(-2, 3, size=(*size, 1), dtype=np.int16)
        image = np.clip(np.roll(scene.image, shift, axis=1) + grain, 0, 255).astype(np.uint8)
        mask = np.roll(scene.labels["semantic"], shift, axis=1)
        Image.fromarray(image).save(root / f"images/train/{index:06d}{suffix}", quality=92)
        Image.fromarray(mask).save(root / f"masks/train/{index:06d}.png")
    names = [info.name for info in Synthetic(length=1).classes]
    classes = "".join(
        f"  {i}: {{name: {name}, color: [0, 0, {i}]}}\n" for i, name in enumerate(names)
    )
    (root / "data.yaml").write_text(f"splits: [train]\nclasses:\n{classes}", encoding="utf-8")


def timed(root: Path, *, workers: int, cache: Path | None) -> tuple[float, float, CheckReport]:
    """Return seconds by the clock, seconds of processor time, and the report of one check."""
    clock, busy = time.perf_counter(), time.process_time()
    report = check_dataset(
        {"train": NativeFolder(root, split="train")}, cache=cache, workers=workers
    )
    return time.perf_counter() - clock, time.process_time() - busy, report


def main() -> None:
    """Write the pairs, check them, print the median rate and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"))
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--suffix", choices=(".png", ".jpg"), default=".png")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "set", Path(folder) / "cache"
        size = (options.size[0], options.size[1])
        write_pairs(root, pairs=options.pairs, size=size, suffix=options.suffix)
        megabytes = sum(path.stat().st_size for path in root.rglob("*.*")) / 1e6
        runs = [timed(root, workers=options.workers, cache=None) for _ in range(options.repeats)]
        timed(root, workers=options.workers, cache=cache)
        again, _, _ = timed(root, workers=options.workers, cache=cache)
    report = runs[0][2]
    clock = [options.pairs / seconds for seconds, _, _ in runs]
    busy = [options.pairs / seconds for _, seconds, _ in runs]
    print(
        f"{options.pairs} pairs of {size[0]}x{size[1]} {options.suffix} ({megabytes:.0f} MB), "
        f"{options.workers} threads, {os.cpu_count()} processors, median of {len(runs)} runs: "
        f"{statistics.median(clock):.0f} pairs/s by the clock "
        f"({min(clock):.0f} to {max(clock):.0f}), "
        f"{statistics.median(busy):.0f} per second of processor time; "
        f"unchanged files again: {options.pairs / again:.0f} pairs/s; {len(report.faults)} faults"
    )


if __name__ == "__main__":
    main()
