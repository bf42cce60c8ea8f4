"""The process that measures one network by one engine: `python -m rtseg.benchmark.engines`."""

from __future__ import annotations

import importlib.metadata
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtseg import checkpoint
from rtseg.benchmark.child import Prepared, serve
from rtseg.checkpoint import Checkpoint
from rtseg.data.synthetic import Synthetic
from rtseg.inference.loading import task_and_preprocess
from rtseg.inference.predictor import Predictor
from rtseg.inference.sources import image_paths
from rtseg.runtimes import ENGINES, NETWORKS, Runtime, open_export, run_network

SETTINGS: dict[str, dict[str, Any]] = {
    "torch": {"memory": "channels_last"},
    "compile": {"memory": "channels_last", "freezing": True},
    "cudagraph": {"memory": "channels_last"},
    "onnxruntime": {"intra_op_spinning": False},
    "openvino": {"hint": "LATENCY"},
}
"""How an engine is set up, as far as that is a choice."""


def prepare(job: dict[str, Any]) -> Prepared:
    """Open the network of a job and return what is to be timed."""
    torch.manual_seed(0)
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    opened = open_network(job, device)
    prepared = {"model": _tensors, "e2e": _image, "stream": _files}[job["scope"]](opened, job)
    assert isinstance(opened.model, Runtime)
    facts = {"engine": describe_engine(opened.model), "threads": torch.get_num_threads()}
    return prepared._replace(facts={**prepared.facts, **facts})


def open_network(job: dict[str, Any], device: torch.device) -> Checkpoint:
    """Return a checkpoint whose network is the runtime of the job."""
    path, name, threads = Path(job["path"]), job["runtime"], job["threads"]
    if name in NETWORKS:
        loaded = checkpoint.load(path)
        model = run_network(
            loaded.model, name, device=device, precision=job["precision"], threads=threads
        )
        return Checkpoint(model, loaded.info, loaded.path)
    return open_export(
        path, runtime=name, device=device, threads=threads, precision=job["precision"]
    )


def describe_engine(runtime: Runtime) -> dict[str, Any]:
    """Return name, version and settings of an engine."""
    name = runtime.engine
    package = "torch" if name in NETWORKS else ENGINES[name].package
    version = importlib.metadata.version(package)
    return {"name": package, "version": version, "flags": SETTINGS.get(name, {})}


# ---------------------------------------------------------------- what is timed
def _tensors(opened: Checkpoint, job: dict[str, Any]) -> Prepared:
    """Time the network alone: a batch of normalized street scenes that lies in memory."""
    runtime: Any = opened.model
    images = scenes(tuple(job["size"]), job["batch"])
    if runtime.takes_pixels:
        batch = torch.from_numpy(images)
    else:
        _, preprocess = task_and_preprocess(opened)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        batch = preprocess.normalize(pixels).contiguous()
        if job["runtime"] in NETWORKS:  # as the predictor hands it over
            batch = batch.contiguous(memory_format=torch.channels_last)
    batch = batch.to(runtime.device)
    return Prepared(_waiting(lambda: runtime(batch), runtime.device), {})


def _image(opened: Checkpoint, job: dict[str, Any]) -> Prepared:
    """Time a decoded image up to the result at its own size."""
    predictor = Predictor(opened.model, *task_and_preprocess(opened), device=job["device"])
    image = scenes(tuple(job["size"]), 1)[0]
    stages: list[Mapping[str, float]] = []
    return Prepared(
        lambda: stages.append(predictor.predict(image).timing), {}, lambda: _medians(stages)
    )


def _files(opened: Checkpoint, job: dict[str, Any]) -> Prepared:
    """Time image files up to overlays, one file per call, over and over."""
    predictor = Predictor(opened.model, *task_and_preprocess(opened), device=job["device"])
    endless = itertools.cycle(image_paths(job["source_images"]))
    stages: list[Mapping[str, float]] = []

    def call() -> None:
        result = predictor.predict(next(endless))
        result.plot()
        stages.append(result.timing)

    return Prepared(call, {}, lambda: _medians(stages))


def scenes(size: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """Return procedural street scenes (count, H, W, 3), RGB uint8."""
    drawn = Synthetic(split="val", size=size, length=count)
    return np.stack([drawn[index].image for index in range(count)])


def _waiting(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return a call that ends when the device has done its work."""
    if device.type != "cuda":
        return call

    def waiting() -> None:
        call()
        torch.cuda.synchronize(device)

    return waiting


def _medians(stages: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the median milliseconds of each stage of a predictor."""
    return {
        "stages_ms": {
            name: statistics.median(stage[name] for stage in stages) for name in stages[0]
        }
    }


if __name__ == "__main__":
    serve(prepare)
