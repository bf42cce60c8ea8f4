"""Measure how long Boundary IoU of one pair of label maps takes.

Run: python benchmarks/boundary.py

Protocol: one thread, a drawn street scene of 1024x2048 with 19 classes as truth (int64, as tasks
give it), the same moved by 7 columns as prediction; 2 warm-up pairs, then the median of 15 single
timings, as processor time, so that other work on the machine does not count.
"""

from __future__ import annotations

import platform
import statistics
import time

import numpy as np

from rtseg.data.synthetic import Synthetic
from rtseg.metrics.boundary import boundary_counts


def main() -> None:
    """Print the median and the protocol."""
    scene = Synthetic(split="val", size=(1024, 2048), length=1)[0]
    labels = scene.labels["semantic"]
    prediction = np.where(labels == 255, 0, np.roll(labels, 7, axis=1)).astype(np.uint8)
    prediction[prediction == 255] = 0
    truth = labels.astype(np.int64)
    seconds = []
    for _ in range(17):
        start = time.process_time()
        boundary_counts(prediction, truth, 19)
        seconds.append(time.process_time() - start)
    median = 1000 * statistics.median(seconds[2:])
    print(f"{median:.0f} ms of processor time per pair, 1024x2048, 19 classes, one thread")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
