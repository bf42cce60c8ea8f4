"""From a decoded image to the classes at its size: what that costs beside the network alone.

Networks have random weights (their speed is the same), so that classes change from pixel to pixel
and nearly no region can be filled at once: the worst case for what comes after the network. Each
network runs in a process of its own: with OpenVINO in bf16 where it is installed, else with torch
in bf16. `network` is the engine alone, given a finished input; `whole` is `Predictor.predict`.
`without kernels` is the same with RTSEG_KERNELS=off. All take turns; a figure is the median.
`ratio` is the median over the turns of whole to network in the same turn; `cpu_ms` is processor
time over all threads, which other load on the machine disturbs less.

    python benchmarks/end_to_end.py --output benchmarks/results/end_to_end.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rtseg import checkpoint
from rtseg.checkpoint import Checkpoint, ModelInfo
from rtseg.cli.env import describe
from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.export import export
from rtseg.inference.predictor import Predictor
from rtseg.ops import native
from rtseg.runtimes import Runtime, installed, open_export, run_network
from rtseg.structures import Result
from rtseg.tasks.semantic import SemanticTask

SIZE, STRIDE = (512, 1024), 64
GOALS = {"lsa_binet": 1.25, "bsdnet_b": 1.25, "bsdnet_s": 1.4}
"""Networks, and how many times the network alone the whole may take."""
CHILD = "--child"


def engine(name: str, *, threads: int) -> Runtime:
    """Return the fastest form of a network with random weights."""
    torch.manual_seed(0)
    model = checkpoint.create_model(name, num_classes=19)
    with torch.no_grad():
        for _ in range(5):  # batch norms learn what their inputs are like
            model.train()(torch.randn(2, 3, 128, 256))
    if "openvino" not in installed():
        return run_network(model, "torch", device="cpu", precision="bf16", threads=threads)
    info = ModelInfo(name, {}, "semantic", Synthetic(split="val").classes, {"stride": STRIDE})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export"
        export(Checkpoint(model.eval(), info, Path(folder)), "openvino", path, size=SIZE)
        opened = open_export(path, runtime="openvino", precision="bf16", threads=threads)
    found: Runtime = opened.model
    return found


def measure(name: str, *, threads: int, rounds: int) -> dict[str, Any]:
    """Let the network and the whole way take turns."""
    torch.set_num_threads(threads)
    kernels = native.active()
    preprocess = Preprocess(stride=STRIDE)
    scenes = Synthetic(split="val", size=SIZE, length=1)
    runtime = engine(name, threads=threads)
    predictor = Predictor(runtime, SemanticTask(scenes.classes), preprocess, device="cpu")
    image = scenes[0].image
    batch = preprocess.fit(image, planar=True).image[None]

    @torch.inference_mode()
    def network() -> None:
        runtime(batch)

    def whole(switch: str) -> Result:
        os.environ[native.SWITCH] = switch
        return predictor.predict(image)

    ways: dict[str, Callable[[], Any]] = {
        "network": network,
        "whole": lambda: whole("auto"),
        "without kernels": lambda: whole("off"),
    }
    spans: dict[str, list[float]] = {way: [] for way in ways}
    work: dict[str, list[float]] = {way: [] for way in ways}
    stages: dict[str, list[float]] = {}
    for turn in range(rounds + 5):
        for way, run in ways.items():
            start, busy = time.perf_counter(), time.process_time()
            result = run()
            span, busy = time.perf_counter() - start, time.process_time() - busy
            if turn < 5:  # the first ones warm up
                continue
            spans[way].append(1000 * span)
            work[way].append(1000 * busy)
            if way == "whole":
                for stage, value in result.timing.items():
                    stages.setdefault(stage, []).append(value)
    pairs = zip(spans["whole"], spans["network"], strict=True)
    return {
        "network": name, "engine": runtime.engine, "precision": runtime.precision,
        "threads": threads, "kernels": kernels, "goal": GOALS[name],
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ms": {way: round(statistics.median(values), 2) for way, values in spans.items()},
        "cpu_ms": {way: round(statistics.median(values), 2) for way, values in work.items()},
        "best_ms": {way: round(min(values), 2) for way, values in spans.items()},
        "stages_ms": {stage: round(statistics.median(values), 2)
                      for stage, values in stages.items()},
    }  # fmt: skip


def main() -> None:
    """Measure each network in a process of its own, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=list(GOALS), help="all by default")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--output", type=Path)
    parser.add_argument(CHILD, dest="child")
    options = parser.parse_args()
    if options.child:
        figures = measure(options.child, threads=options.threads, rounds=options.rounds)
        sys.stdout.write(json.dumps(figures))
        return
    results = []
    for name in options.network or GOALS:
        command = [
            sys.executable, __file__, CHILD, name, "--threads", str(options.threads),
            "--rounds", str(options.rounds),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1], indent=1))
    document = {"environment": describe(), "note": options.note, "results": results}
    if options.output:
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
