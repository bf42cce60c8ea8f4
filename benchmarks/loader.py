"""Images per second of the training loader against a plain torchvision pipeline, in one run.

Both read CamVid at 360x480 and do what the recipe `lsa_binet/camvid` says: a scale out of seven, a
crop of 360x480 with padding, a mirror by chance, normalization, batches of 16. The plain pipeline
is what one writes first: PIL images and masks, transforms of torchvision v2 on them, a DataLoader.
Each way runs in a process of its own, all ways one after the other and that several times; a figure
is the median over the rounds. Reading from a decoded copy is measured beside reading the files.
Without reading processes the processor time of an image is measured too, which other load on the
machine disturbs less than the speed.

    python benchmarks/loader.py --root data/camvid --output benchmarks/results/loader.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from rtseg.data.batch_augment import way_to
from rtseg.data.cache import Cached, write_cache
from rtseg.data.camvid import CamVid
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.data.transforms import Augment, Preprocess
from rtseg.tasks.semantic import SemanticTask

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
CROP = (360, 480)
MEAN, STD = (99.6254, 103.3298, 105.6577), (1.0, 1.0, 1.0)
BATCH, SPLIT = 16, "trainval"
CHILD = "--child"
"""First argument of a process that measures one way."""
WAYS = ("plain", "rtseg, files", "rtseg, copy", "rtseg, copy, augmented on the device")


class PlainScale(torch.nn.Module):
    """Resize image and mask by one of the factors."""

    def forward(self, image: Image.Image, mask: tv_tensors.Mask) -> tuple[Any, Any]:
        """Return both at the new size."""
        factor = SCALES[int(torch.randint(len(SCALES), ()))]
        size = [round(image.height * factor), round(image.width * factor)]
        return v2.Resize(size, antialias=True)(image, mask)


class PlainCamVid(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """CamVid as one would read it by hand."""

    def __init__(self, files: list[tuple[str, str]]) -> None:
        self.files = files
        fill = {Image.Image: tuple(round(value) for value in MEAN), tv_tensors.Mask: 255}
        self.transform = v2.Compose(
            [
                PlainScale(),
                v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(0.5),
                v2.ToImage(),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, mask_path = self.files[index]
        image = Image.open(image_path).convert("RGB")
        mask = np.array(Image.open(mask_path))
        mask[mask == 11] = 255
        picture, label = self.transform(image, tv_tensors.Mask(mask))
        return picture.as_subclass(torch.Tensor), label.as_subclass(torch.Tensor).long()


def plain(root: str, workers: int) -> Generator[Any, None, None]:
    """Yield batches of the plain pipeline without end."""
    frames = CamVid(root, split=SPLIT)
    files = [(str(image), str(mask)) for image, mask in map(frames.files, range(len(frames)))]
    dataset = PlainCamVid(files)
    endless = RandomSampler(dataset, num_samples=1_000_000)  # one permutation after another
    loader = DataLoader(dataset, batch_size=BATCH, sampler=endless, num_workers=workers)
    yield from until_closed(loader)


def ours(way: str, root: str, copy: str, workers: int) -> Generator[Any, None, None]:
    """Yield batches of the library without end."""
    dataset: Any = CamVid(root, split=SPLIT) if "files" in way else Cached(copy, split=SPLIT)
    augment = Augment(crop=CROP, scales=SCALES, flip=0.5)
    preprocess = Preprocess(mean=MEAN, std=STD, stride=8)
    on: Any = "device" if "device" in way else "loader"
    steps = way_to(augment, preprocess, on=on, device=torch.device("cpu"))
    loader = train_loader(
        dataset, TrainBatches(len(dataset), batch_size=BATCH, seed=0), augment=steps.augment,
        collate=steps.collate, preprocess=preprocess, workers=workers,
        target=SemanticTask(dataset.classes).target,
    )  # fmt: skip
    yield from map(steps.finish, opened(until_closed(loader)))


def until_closed(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """Yield the batches of a loader; end its processes when no more are wanted."""
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        if loader.num_workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def measure(way: str, options: dict[str, Any]) -> None:
    """Print images per second and milliseconds of processor time per image, over some batches."""
    root, workers, batches = options["root"], options["workers"], options["batches"]
    torch.set_num_threads(options["threads"])
    source = plain(root, workers) if way == "plain" else ours(way, root, options["copy"], workers)
    with contextlib.closing(source):
        for _ in range(2 + 4 * workers):  # until the queues are full
            next(source)
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(batches):
            batch = next(source)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        shape = tuple(batch[0].shape)
        assert shape == (BATCH, 3, *CROP), shape
    images = batches * BATCH
    print(json.dumps([images / seconds, 1000 * worked / images]))


def in_child(way: str, options: dict[str, Any]) -> tuple[float, float]:
    """Measure one way in a fresh process."""
    command = [sys.executable, __file__, CHILD, way, json.dumps(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    speed, cpu = json.loads(done.stdout)
    return speed, cpu


def rounds(options: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Measure every way several times, and compare the medians with the plain pipeline."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(count):
        for way, figures in found.items():
            figures.append(in_child(way, options))
    rows = []
    for way, figures in found.items():
        speed, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        row = {"workers": options["workers"], "way": way, "images_per_second": speed}
        if not options["workers"]:
            row["cpu_ms_per_image"] = cpu
        rows.append({**row, "rounds": figures})
    for row in rows:
        row["ratio"] = row["images_per_second"] / rows[0]["images_per_second"]
        cpu_text = ""
        if "cpu_ms_per_image" in row:
            row["cpu_ratio"] = rows[0]["cpu_ms_per_image"] / row["cpu_ms_per_image"]
            cpu_text = f"{row['cpu_ms_per_image']:6.1f} ms of a core {row['cpu_ratio']:5.2f}x"
        print(
            f"{row['workers']} workers  {row['way']:40s} {row['images_per_second']:7.1f} images/s "
            f"{row['ratio']:5.2f}x  {cpu_text}",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure all ways with 0, 1 and 2 reading processes, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data/camvid")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    arguments = parser.parse_args()
    protocol = {
        "torch": torch.__version__, "cores": os.cpu_count(), "threads": arguments.threads,
        "size": CROP, "batch": BATCH, "batches": arguments.batches, "rounds": arguments.rounds,
        "load_before": os.getloadavg(), "speed": "median over the rounds",
    }  # fmt: skip
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, {arguments.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        source = {"name": "camvid", "root": arguments.root, "split": SPLIT}
        frames = CamVid(arguments.root, split=SPLIT)
        summary = write_cache(frames, Path(folder) / SPLIT, source=source)
        protocol["copy_seconds"] = round(time.perf_counter() - began, 1)
        protocol["copy_bytes"] = summary.bytes
        for workers in arguments.workers:
            options = {
                "root": arguments.root, "copy": folder, "workers": workers,
                "batches": arguments.batches, "threads": arguments.threads,
            }  # fmt: skip
            rows += rounds(options, arguments.rounds)
    if arguments.output:
        document = {"protocol": protocol, "rows": rows}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        measure(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
