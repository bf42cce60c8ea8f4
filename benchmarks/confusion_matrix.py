"""Measure how many label maps per second the confusion matrix counts, and its peak memory.

Run: python benchmarks/confusion_matrix.py [--maps 1000]

Protocol: one thread, uint8 maps 1024x2048, 19 classes; 5 warm-up pairs, then the median of 40
single timings for each kind of map; memory is the peak resident set of the process after 10 and
after all maps.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from rtseg.metrics.confusion import SegmentationScores, confusion_matrix
from rtseg.structures import SemanticResult, SemanticTarget

HEIGHT, WIDTH, CLASSES = 1024, 2048, 19
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def make_pairs() -> dict[str, Pair]:
    """Return prediction and truth by kind: noise, regions with 10 % errors and void, one class."""
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH)
    noise = rng.integers(0, CLASSES, (2, *shape), dtype=np.uint8)
    blocks = rng.integers(0, CLASSES, (16, 32), dtype=np.uint8)
    regions = blocks.repeat(64, axis=0).repeat(64, axis=1)
    prediction = np.where(rng.random(shape) < 0.1, noise[0], regions)
    truth = np.where(rng.random(shape) < 0.1, np.uint8(255), regions)
    flat = np.zeros(shape, dtype=np.uint8)
    return {
        "independent noise": (noise[0], noise[1]),
        "regions, 10 % wrong, 10 % void": (prediction, truth),
        "one class": (flat, flat),
    }


def pairs_per_second(pair: Pair, *, warmup: int = 5, repeats: int = 40) -> float:
    """Return the inverse of the median time of one pair."""
    seconds = []
    for index in range(warmup + repeats):
        start = time.perf_counter()
        confusion_matrix(*pair, CLASSES)
        if index >= warmup:
            seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds)


def peak_mib() -> float:
    """Return the peak resident memory of this process in MiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the figures with their protocol."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1000, help="maps of the memory run")
    maps = parser.parse_args().maps
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, 1 thread; torch {torch.__version__}, "
        f"numpy {np.__version__}; uint8 {HEIGHT}x{WIDTH}, {CLASSES} classes"
    )
    pairs = make_pairs()
    for kind, pair in pairs.items():
        print(f"{kind:32s} {pairs_per_second(pair):6.0f} pairs/s (median)")
    prediction, truth = pairs["independent noise"]
    names = tuple(str(index) for index in range(CLASSES))
    result = SemanticResult(prediction, names, ((0, 0, 0),) * CLASSES)
    target = SemanticTarget(torch.from_numpy(truth))
    scores = SegmentationScores(CLASSES)
    for count in range(1, maps + 1):
        scores.update(result, target)
        if count in (10, maps):
            print(f"peak memory after {count:5d} maps: {peak_mib():.1f} MiB")


if __name__ == "__main__":
    main()
