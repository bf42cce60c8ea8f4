"""Training speed of LSA-BiNet against the plain loop, in one run on one machine.

Both train the same network from the same weights on the same batches of random images; the losses
of every step are compared. The plain loop is what one writes first: eager float32, contiguous
memory, images prepared in the training process. Each way runs in a process of its own.

    python benchmarks/training_speed.py --size 360 480 --batch 16 --steps 20
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.structures import ClassInfo, Sample
from rtseg.training.options import native_bf16

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, channels-last": {"channels_last": True},
    "fp32, compiled": {"compile": True},
    "fp32, compiled, channels-last": {"compile": True, "channels_last": True},
    "bf16, channels-last": {"precision": "bf16", "channels_last": True},
    "bf16, compiled, channels-last": {"precision": "bf16", "compile": True, "channels_last": True},
}
LOSS_TOLERANCE = 1e-2


class RandomScenes:
    """Images with random blocks of colour that tell the class: quick to draw, and learnable."""

    kinds = ("semantic",)

    def __init__(self, size: tuple[int, int], length: int) -> None:
        self.size, self.length = size, length
        colors = np.random.default_rng(0).integers(0, 256, (11, 3))
        self.colors = colors.astype(np.uint8)
        self.classes = tuple(
            ClassInfo(f"class {index}", (int(color[0]), int(color[1]), int(color[2])))
            for index, color in enumerate(colors)
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 11, (-(-self.size[0] // 40), -(-self.size[1] // 40)))
        label = np.kron(coarse, np.ones((40, 40), np.int64))[: self.size[0], : self.size[1]]
        noise = rng.normal(0, 20, (*self.size, 3))
        image = np.clip(self.colors[label] + noise, 0, 255).astype(np.uint8)
        return Sample(image, {"semantic": label.astype(np.uint8)}, path=f"random/{index}")


def measure(way: dict[str, Any], arguments: argparse.Namespace, pipe: Any) -> None:
    """Train a few steps through the loop of the library; send losses and seconds of each step."""
    import contextlib
    import functools

    import torch

    from rtseg.checkpoint import ModelInfo, create_model
    from rtseg.data.transforms import Augment, Preprocess
    from rtseg.tasks.semantic import SemanticTask
    from rtseg.training.loop import batches, train_step
    from rtseg.training.memory import freed_memory_kept
    from rtseg.training.optim import adam, poly
    from rtseg.training.options import Plan, TrainData, TrainOptions
    from rtseg.training.run_log import RunLog
    from rtseg.training.session import start

    torch.manual_seed(0)
    size = tuple(arguments.size)
    data = RandomScenes(size, arguments.batch * (arguments.steps + 1))
    plan = Plan(
        create_model("lsa_binet", 11), SemanticTask(data.classes),
        TrainData(data, None, Augment(), Preprocess(stride=1), workers=1),
        TrainOptions(arguments.batch, iterations=arguments.steps, device=arguments.device, **way),
        functools.partial(adam, lr=1e-3), functools.partial(poly, warmup_iterations=0),
        ModelInfo("lsa_binet", {}, "semantic", data.classes, {}),
    )  # fmt: skip
    losses, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        session = start(plan, Path(folder), RunLog(None, display=lambda _: None))
        memory = freed_memory_kept(session.fabric.device.type)
        with memory, contextlib.closing(batches(session)) as source:
            for _ in range(arguments.steps):
                began = time.perf_counter()
                losses.append(train_step(session, [next(source)])["loss"])
                seconds.append(time.perf_counter() - began)
    pipe.send((losses, seconds, torch.get_num_threads(), torch.__version__))


def plain_loop(arguments: argparse.Namespace, pipe: Any) -> None:
    """Train the same steps as one would by hand."""
    import torch

    from rtseg.checkpoint import create_model
    from rtseg.data.loader import TrainBatches
    from rtseg.training.optim import poly

    torch.manual_seed(0)
    data = RandomScenes(tuple(arguments.size), arguments.batch * (arguments.steps + 1))
    model = create_model("lsa_binet", 11).to(arguments.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = poly(arguments.steps)
    mean = torch.tensor((123.675, 116.28, 103.53)).view(3, 1, 1)
    std = torch.tensor((58.395, 57.12, 57.375)).view(3, 1, 1)
    order = iter(TrainBatches(len(data), batch_size=arguments.batch, seed=0))
    losses, seconds = [], []
    for step in range(arguments.steps):
        began = time.perf_counter()
        samples = [data[index] for _, index in next(order)]
        pictures = [torch.from_numpy(item.image).permute(2, 0, 1).float() for item in samples]
        images = torch.stack([(picture - mean) / std for picture in pictures])
        labels = torch.stack([torch.from_numpy(item.labels["semantic"]).long() for item in samples])
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(step)
        logits = model(images.to(arguments.device)).logits
        logits = torch.nn.functional.interpolate(logits, arguments.size, mode="bilinear")
        loss = torch.nn.functional.cross_entropy(logits, labels.to(arguments.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - began)
    pipe.send((losses, seconds, torch.get_num_threads(), torch.__version__))


def in_child(target: Any, *parameters: Any) -> Any:
    """Run a function in a fresh process and return what it sends."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*parameters, sender))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def main() -> None:
    """Measure the plain loop and then each way, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=[360, 480], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    losses, seconds, threads, version = in_child(plain_loop, arguments)
    skip = min(3, arguments.steps - 1)  # compiling and first allocations
    base = arguments.batch / statistics.median(seconds[skip:])
    print(
        f"torch {version}, {threads} threads, {arguments.device}, LSA-BiNet, size "
        f"{arguments.size}, batch {arguments.batch}, {arguments.steps} steps, median after {skip}"
    )
    rows = [
        {"way": "plain loop", "images_per_second": base, "ratio": 1.0, "first_step_s": seconds[0]}
    ]
    print(f"{'plain loop':32s} {base:7.2f} images/s")
    for name in arguments.ways:
        own, times, _, _ = in_child(measure, WAYS[name], arguments)
        speed = arguments.batch / statistics.median(times[skip:])
        apart = max(abs(a - b) for a, b in zip(own, losses, strict=True))
        rows.append(
            {"way": name, "images_per_second": speed, "ratio": speed / base,
             "first_step_s": times[0], "largest_loss_difference": apart}
        )  # fmt: skip
        verdict = "same losses" if apart <= LOSS_TOLERANCE else "OTHER LOSSES"
        print(
            f"{name:32s} {speed:7.2f} images/s {speed / base:5.2f}x  first step {times[0]:5.1f} s  "
            f"losses differ by {apart:.1e} ({verdict})",
            flush=True,
        )
    if arguments.output:
        protocol = {
            "torch": version,
            "threads": threads,
            "processor": processor_name(),
            "bf16_instructions": native_bf16("cpu"),
            "device": arguments.device,
            "size": arguments.size,
            "batch": arguments.batch,
            "steps": arguments.steps,
            "speed": f"median of the steps after the first {skip}",
        }
        document = {"protocol": protocol, "rows": rows}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")


def processor_name() -> str:
    """Return what Linux calls the processor, with its family and model numbers."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{values['model name']}, family {values['cpu family']}, model {values['model']}"


if __name__ == "__main__":
    main()
