"""Measure how many synthetic scenes one core draws per second."""

from __future__ import annotations

import argparse
import statistics
import time

from rtseg.data.synthetic import Synthetic


def main() -> None:
    """Draw scenes one after the other and print the median rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args()
    scenes = Synthetic(size=options.size, length=options.scenes + 1)
    _ = scenes[options.scenes]  # fills the noise fields
    wall, busy = [], []
    for index in range(options.scenes):
        clock, core = time.perf_counter(), time.process_time()
        _ = scenes[index]
        wall.append(time.perf_counter() - clock)
        busy.append(time.process_time() - core)
    height, width = scenes.size
    print(
        f"{height}x{width}: {1 / statistics.median(wall):.1f} scenes/s by the clock, "
        f"{1 / statistics.median(busy):.1f} per second of processor time "
        f"(median of {options.scenes})"
    )


if __name__ == "__main__":
    main()
