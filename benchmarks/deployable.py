"""Speed of networks as they are deployed against eager PyTorch and plain exports, in one run.

Every way of running a network has a process of its own, because engines disturb each other. The
processes take turns of a few images each until all have had their rounds; a way's time is the
median of its rounds, a ratio the median of the ratios within rounds; the processor's time, of all
threads, is listed beside it, as other programs disturb it less. Weights are random, norms
have plausible statistics; the share of pixels with the same class as eager float32 is reported.

    python benchmarks/deployable.py --models twinmixing_base lsa_binet --output speed.json

Ways: `eager` is the trained network in float32; `plain` the same network exported as it is;
the others run its `deployable()` copy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]
SIZES = {"twinmixing": (384, 640)}
"""Size of the input by the first part of a model's name."""
DEFAULT_SIZE = (512, 1024)
MODELS = (
    "twinmixing_tiny", "twinmixing_base", "lsa_binet", "bsdnet_s", "bsdnet_b",
    "bisenetformer_stdc1", "bisegunet_edge",
)  # fmt: skip
WAYS = {
    "eager": ("torch", False, "f32"),
    "eager deployable": ("torch", True, "f32"),
    "onnxruntime plain": ("onnxruntime", False, "f32"),
    "onnxruntime": ("onnxruntime", True, "f32"),
    "openvino plain f32": ("openvino", False, "f32"),
    "openvino plain bf16": ("openvino", False, "bf16"),
    "openvino f32": ("openvino", True, "f32"),
    "openvino bf16": ("openvino", True, "bf16"),
}
"""Engine, whether the network is its `deployable()` copy, and precision."""
DEFAULT_WAYS = ("eager", "openvino plain bf16", "openvino f32", "openvino bf16")
EXPENSIVE = 3
"""Layers that are listed."""


def build(name: str, *, deployable: bool, class_map: bool) -> Any:
    """Return a network in evaluation mode whose norms and slopes have seen something.

    With `class_map` it returns the best class of every pixel of its input instead of scores.
    """
    import torch
    from torch import nn

    from rtseg.checkpoint import class_count, create_model

    torch.manual_seed(0)
    model = create_model(name, class_count(name, 19))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.7, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.PReLU):  # engines treat equal slopes in another way
            nn.init.uniform_(module.weight, 0.1, 0.4)
    model.eval().requires_grad_(requires_grad=False)
    network = model.deployable() if deployable else model
    return _with_class_map(network) if class_map else network


def _with_class_map(network: Any) -> Any:
    from torch import Tensor, nn

    from rtseg.ops.resize import resize_argmax_reference
    from rtseg.structures import MaskOutput
    from rtseg.tasks.semantic_masks import semantic_scores

    class ClassMap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            output = self.network(images)
            maps = [semantic_scores(output)] if isinstance(output, MaskOutput) else output
            size = (images.shape[-2], images.shape[-1])
            return tuple(
                resize_argmax_reference(item, size) for item in maps if isinstance(item, Tensor)
            )

    return ClassMap().eval()


def images(name: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return one smooth random image, in the range that the network is trained on."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (1, 3, size[0] // 32, size[1] // 32))
    smooth = coarse.repeat(32, axis=2).repeat(32, axis=3) + rng.normal(0, 0.05, (1, 3, *size))
    factor, shift = (1.0, 0.0) if name.startswith("twinmixing") else (4.0, -2.0)
    return (smooth * factor + shift).astype(np.float32)


def prepare(
    name: str, way: str, size: tuple[int, int], arguments: argparse.Namespace
) -> tuple[Callable[[NDArray[np.float32]], Arrays], Callable[[], list[Any]]]:
    """Return a function from an image to the arrays of the output, and one that lists layers."""
    import torch

    engine, deployable, precision = WAYS[way]
    threads = arguments.threads
    torch.set_num_threads(threads)
    model = build(name, deployable=deployable, class_map=arguments.class_map)
    if engine == "torch":
        return lambda image: _run_torch(model, image), list
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        example = torch.from_numpy(images(name, size))
        torch.onnx.export(model, (example,), str(file), dynamo=True, verbose=False)
        if engine == "onnxruntime":
            return _onnxruntime(file, threads), list
        return _openvino(file, threads, precision, images(name, size))


def _run_torch(model: Any, image: NDArray[np.float32]) -> Arrays:
    import torch

    with torch.inference_mode():
        output = model(torch.from_numpy(image))
    return [item.numpy() for item in output if isinstance(item, torch.Tensor)]


def _onnxruntime(file: Path, threads: int) -> Callable[[NDArray[np.float32]], Arrays]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def _openvino(
    file: Path, threads: int, precision: str, example: NDArray[np.float32]
) -> tuple[Callable[[NDArray[np.float32]], Arrays], Callable[[], list[Any]]]:
    import openvino

    core = openvino.Core()
    network = core.read_model(str(file))

    def request(*, profile: bool) -> Any:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "PERF_COUNT": profile,
        }
        return core.compile_model(network, "CPU", settings).create_infer_request()

    plain = request(profile=False)

    def run(image: NDArray[np.float32]) -> Arrays:
        plain.infer([image], share_inputs=True)
        return [plain.get_output_tensor(index).data for index in range(len(network.outputs))]

    return run, lambda: expensive_layers(request(profile=True), example)


def expensive_layers(request: Any, image: NDArray[np.float32]) -> list[Any]:
    """Return the most expensive layers of OpenVINO: what they are, and microseconds."""
    seen: dict[str, tuple[str, list[float]]] = {}
    for _ in range(15):
        request.infer([image])
        for layer in request.profiling_info:
            kind = f"{layer.node_type} {layer.exec_type}"
            micros = layer.real_time.total_seconds() * 1e6
            seen.setdefault(layer.node_name, (kind, []))[1].append(micros)
    rows = [
        {"layer": layer, "kind": kind, "microseconds": round(statistics.median(times[5:]))}
        for layer, (kind, times) in seen.items()
    ]
    return sorted(rows, key=lambda row: -int(str(row["microseconds"])))[:EXPENSIVE]


def classes(output: Arrays) -> Arrays:
    """Return the best class of every pixel (or query) of each output."""
    return [
        item.argmax(axis=1).astype(np.uint8) if item.dtype == np.float32 else item.copy()
        for item in output
    ]


def serve(
    name: str, way: str, size: tuple[int, int], arguments: argparse.Namespace, pipe: Any
) -> None:
    """Run a network in this process, a few images whenever it is asked to."""
    run, layers = prepare(name, way, size, arguments)
    image = images(name, size)
    pipe.send(classes(run(image)))
    while count := pipe.recv():
        run(image)  # the caches belong to another process
        seconds = []
        used = time.process_time()
        for _ in range(count):
            began = time.perf_counter()
            run(image)
            seconds.append(time.perf_counter() - began)
        processor = time.process_time() - used
        pipe.send((statistics.median(seconds), processor / count))
    pipe.send(layers())


def measure(name: str, ways: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a network: milliseconds, ratios and agreement of every way."""
    size = SIZES.get(name.split("_")[0], DEFAULT_SIZE)
    context = multiprocessing.get_context("spawn")
    children: dict[str, Any] = {}
    first: dict[str, Arrays] = {}
    for way in ways:
        here, there = context.Pipe()
        child = context.Process(target=serve, args=(name, way, size, arguments, there))
        child.start()
        there.close()
        children[way] = (child, here)
        first[way] = here.recv()
    rounds: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, (_, pipe) in children.items():
            pipe.send(arguments.images)
            wall, used = pipe.recv()
            rounds[way].append(1000 * wall)
            processor[way].append(1000 * used)
    layers = {}
    for way, (child, pipe) in children.items():
        pipe.send(0)
        layers[way] = pipe.recv()
        child.join()
    used = {way: round(statistics.median(times), 2) for way, times in processor.items()}
    facts = {
        **summary(rounds, first),
        "processor_milliseconds": used,
        "processor_speedup": {way: round(used[ways[0]] / used[way], 2) for way in ways},
    }
    return {"model": name, "size": size, **facts, "layers": layers}


def summary(rounds: dict[str, list[float]], first: dict[str, Arrays]) -> dict[str, Any]:
    """Return medians, ratios to the first way within rounds, and equal classes."""
    base, *_ = rounds
    return {
        "milliseconds": {way: round(statistics.median(times), 2) for way, times in rounds.items()},
        "speedup": {
            way: round(
                statistics.median(a / b for a, b in zip(rounds[base], times, strict=True)), 2
            )
            for way, times in rounds.items()
        },
        "same_class": {
            way: [
                round(float(np.mean(a == b)), 5) for a, b in zip(first[base], output, strict=True)
            ]
            for way, output in first.items()
        },
    }


def processor() -> str:
    """Return the name of the processor and the instructions that matter here."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in facts.items()}
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    return f"{values['model name']}; " + " ".join(f for f in known if f in values["flags"].split())


def versions() -> dict[str, str]:
    """Return the versions of the engines."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "onnx", "onnxruntime", "openvino")}


def main() -> None:
    """Measure networks one after the other and print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--ways", nargs="*", default=list(DEFAULT_WAYS), choices=list(WAYS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=5, help="images per round")
    parser.add_argument("--class-map", action="store_true", help="choose classes at full size too")
    parser.add_argument("--note", default="", help="such as: machine shared")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments.ways, arguments))
        show(rows[-1])
        if arguments.output:  # what is there should a later network fail
            document = {"protocol": protocol(arguments), "rows": rows}
            arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(row: dict[str, Any]) -> None:
    """Print the row of a network."""
    print(f"{row['model']} {row['size'][0]}x{row['size'][1]}, speed as a multiple of the first")
    for way, milliseconds in row["milliseconds"].items():
        print(
            f"  {way:20s} {milliseconds:8.2f} ms {row['speedup'][way]:6.2f}x  "
            f"processor {row['processor_milliseconds'][way]:8.2f} ms "
            f"{row['processor_speedup'][way]:6.2f}x  "
            f"same class {min(row['same_class'][way]):.4f}",
            flush=True,
        )
        for layer in row["layers"].get(way, []):
            print(f"    {layer['microseconds']:6d} us  {layer['kind']}  {layer['layer']}")


def protocol(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return on what and how the rows were measured."""
    return {
        "processor": processor(),
        "threads": arguments.threads,
        "batch": 1,
        "rounds": arguments.rounds,
        "images_per_round": arguments.images,
        "class_map": arguments.class_map,
        "note": arguments.note,
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
