"""Speed of a network in eight bits against float32 and bfloat16, by OpenVINO and ONNX Runtime.

Every way has a process of its own for each round, because engines disturb each other; the ways take
turns. A way's time is the median of its rounds, a ratio the median of the ratios to the first way
within rounds. Weights are random, so nothing is said about scores.

    python benchmarks/int8.py --model bsdnet_s --rounds 5 --output int8.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from rtseg.checkpoint import Checkpoint, ModelInfo, create_model
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.synthetic import Synthetic
from rtseg.export import export
from rtseg.inference.trial import TrialFailedError, run_trial
from rtseg.runtimes import installed, processor

WAYS = {
    "openvino f32": ("float", "openvino", "fp32"),
    "openvino bf16": ("float", "openvino", "bf16"),
    "openvino int8 by nncf": ("nncf", "openvino", "int8"),
    "openvino int8 by nncf, rest bf16": ("nncf", "openvino", "bf16"),
    "openvino int8 from onnx": ("qdq", "openvino", "int8"),
    "onnxruntime f32": ("float onnx", "onnxruntime", "fp32"),
    "onnxruntime int8": ("qdq", "onnxruntime", "int8"),
}
"""File, engine and precision of the computation; the first one is 1."""
FILES = {
    "float": ("openvino", "fp32"),
    "nncf": ("openvino", "int8"),
    "float onnx": ("onnx", "fp32"),
    "qdq": ("onnx", "int8"),
}


def write_files(name: str, size: tuple[int, int], root: Path, *, images: int) -> dict[str, int]:
    """Write the files of a network with random weights, for one image of a size; return bytes."""
    torch.manual_seed(0)
    task = {"name": "semantic"}
    info = ModelInfo(name, {}, "semantic", CITYSCAPES_CLASSES, {"stride": 32}, {"task": task})
    loaded = Checkpoint(create_model(name, len(CITYSCAPES_CLASSES)).eval(), info, root)
    data = {key: Synthetic(split=key, size=size, length=images) for key in ("train", "val")}
    sizes = {}
    for key, (form, precision) in FILES.items():
        eight: dict[str, Any] = {"calib": data, "gate": 100.0} if precision == "int8" else {}
        manifest = export(
            loaded, form, root / key, precision=precision, size=size, dynamic=(), **eight
        )  # type: ignore[arg-type]
        sizes[key] = manifest.facts["bytes"]
    return sizes


def measure(root: Path, image: torch.Tensor, *, rounds: int, threads: int) -> dict[str, Any]:
    """Return milliseconds of each round by way; a text if a way does not run."""
    found: dict[str, Any] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, (file, engine, precision) in WAYS.items():
            if isinstance(found[name], str):
                continue
            try:
                folders = {precision: root / file}
                trial = run_trial(folders, image, runtime=engine, threads=threads)[precision]
            except TrialFailedError as error:
                found[name] = str(error)
                continue
            found[name].append(trial.milliseconds)
            print(f"round {number + 1}  {name}  {trial.milliseconds:.1f} ms", flush=True)
    return found


def main() -> None:
    """Read the options, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bsdnet_s")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--images", type=int, default=2, help="for the ranges")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        sizes = write_files(options.model, size, root, images=options.images)
        times = measure(
            root, torch.randn(1, 3, *size), rounds=options.rounds, threads=options.threads
        )
    first = times[next(iter(WAYS))]
    table = {
        name: values
        if isinstance(values, str)
        else {
            "ms": statistics.median(values),
            "faster": statistics.median(a / b for a, b in zip(first, values, strict=True)),
            "bytes": sizes[WAYS[name][0]],
        }
        for name, values in times.items()
    }
    facts = {"processor": processor(), "threads": options.threads, "engines": installed()}
    document = {"model": options.model, "size": size, "rounds": options.rounds, **facts}
    options.output.write_text(json.dumps({**document, "ways": table}, indent=2) + "\n")
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
