"""Bilinear resize and arg-max in one compiled pass against the two steps of torch, in one run.

Scores are random, which is the worst case (nearly no cell has one class), or those of scenes: the
labels of a synthetic street scene as scores with noise, and what a trained network says of it. All
ways take turns, many times; a figure is the median. `cpu_ms` is processor time over all threads,
which other load on the machine disturbs less than the time that passes; the printed ratio is that
of processor times, to torch with channels-last scores.

    python benchmarks/resize_argmax.py --output benchmarks/results/resize_argmax.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.cli.env import describe
from rtseg.data.synthetic import Synthetic
from rtseg.inference.predictor import Predictor
from rtseg.ops import native
from rtseg.ops.resize import resize_argmax_reference, resize_logits

Way = Callable[[], Tensor]


def scene_scores(size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Return scores (1, 19, H/8, W/8) for a scene of `size`: its labels, seen through noise."""
    sample = Synthetic(split="val", size=size, length=1, seed=seed)[0]
    labels = torch.from_numpy(sample.labels["semantic"].copy()).long()
    shares = torch.nn.functional.one_hot(labels.clamp(max=19), 20)[..., :19].float()
    pooled = torch.nn.functional.avg_pool2d(shares.permute(2, 0, 1)[None], 8)
    noise = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(seed))
    return 8 * pooled + 0.5 * noise


def network_scores(path: str, size: tuple[int, int]) -> Tensor:
    """Return what a trained network says of a synthetic scene of `size`."""
    predictor = Predictor.load(path, runtime="torch")
    image = predictor.preprocess.fit(Synthetic(split="val", size=size, length=1)[0].image).image
    with torch.inference_mode():
        return predictor.model(image[None]).logits.clone()


def cases(path: str | None) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    """Return scores and the size that is wanted, by what they are."""
    random = torch.Generator().manual_seed(0)
    found = {
        "random, 19 classes at 1/8": (torch.randn(1, 19, 64, 128, generator=random), (512, 1024)),
        "scene, 19 classes at 1/8": (scene_scores((512, 1024)), (512, 1024)),
        "random, 19 classes at 1/8, large": (
            torch.randn(1, 19, 128, 256, generator=random), (1024, 2048),
        ),
        "scene, 19 classes at 1/8, large": (scene_scores((1024, 2048)), (1024, 2048)),
        "random, 2 classes, 384x640 to 720p": (
            torch.randn(1, 2, 384, 640, generator=random), (768, 1280),
        ),
    }  # fmt: skip
    if path is not None:
        scores = network_scores(path, (512, 1024))
        found[f"network, {scores.shape[1]} classes"] = (scores, (512, 1024))
    return found


def ways(logits: Tensor, size: tuple[int, int]) -> dict[str, Way]:
    """Return everything that is compared, by name."""
    logits, last = logits.contiguous(), logits.contiguous(memory_format=torch.channels_last)
    whole = native.Window(0, 0, *size)
    library = native.library()
    assert library is not None, "build the kernels first"
    found: dict[str, Way] = {
        "torch, contiguous": lambda: resize_logits(logits, size).argmax(1).to(torch.uint8),
        "torch, channels-last": lambda: resize_argmax_reference(last, size),
    }
    for name, number in native.VARIANTS.items():
        if 0 < number <= library.rtseg_best_variant():
            found[f"kernel, {name}"] = lambda name=name: native.resize_argmax(  # type: ignore[misc]
                logits, size, whole, variant=name
            )
    found["kernel, channels-last scores"] = lambda: native.resize_argmax(last, size, whole)
    return found


def measure(table: dict[str, Way], *, rounds: int) -> dict[str, dict[str, float]]:
    """Let all ways take turns; return medians in milliseconds, and the fastest turn."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in table}
    for turn in range(rounds + 3):
        for name, way in table.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            done = (time.perf_counter() - wall, time.process_time() - cpu)
            if turn >= 3:  # the first ones warm up
                spans[name].append((done[0] * 1000, done[1] * 1000))
    return {
        name: {
            "ms": round(statistics.median(wall for wall, _ in pairs), 3),
            "best_ms": round(min(wall for wall, _ in pairs), 3),
            "cpu_ms": round(statistics.median(cpu for _, cpu in pairs), 3),
        }
        for name, pairs in spans.items()
    }


def agreement(table: dict[str, Way]) -> float:
    """Return the smallest share of pixels in which a way agrees with the first one."""
    expected, *others = (way() for way in table.values())
    return min(float((found == expected).double().mean()) for found in others)


def main() -> None:
    """Measure every case with one and with two threads, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--checkpoint", help="of a network, whose scores of a scene are one case")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for case, (logits, size) in cases(options.checkpoint).items():
            table = ways(logits, size)
            figures = measure(table, rounds=options.rounds)
            results.append(
                {"case": case, "scores": list(logits.shape), "size": list(size), "threads": threads,
                 "agreement": agreement(table), "ways": figures}
            )  # fmt: skip
            plain = figures["torch, channels-last"]["cpu_ms"]
            print(f"{case}, {threads} threads, agreement {results[-1]['agreement']:.6f}")
            for name, figure in figures.items():
                print(f"  {name:30} {figure}  {plain / figure['cpu_ms']:6.1f} x")
    document = {"environment": describe(), "note": options.note, "results": results}
    if options.output:
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
