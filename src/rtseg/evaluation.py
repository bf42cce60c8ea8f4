"""Score a network on a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtseg.structures import Batch
from rtseg.tasks import Task

Visitor = Callable[[Batch, list[Any]], None]


@dataclass(frozen=True)
class Evaluation:
    """Scores over a whole set: by name, by class, and the metric they come from."""

    scores: dict[str, float]
    per_class: list[dict[str, Any]]
    metric: Any
    images: int
    seconds: float


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    visit: Visitor | None = None,
) -> Evaluation:
    """Score a network over all batches at native label size.

    Args:
        model: Network or runtime: images (B, 3, H, W) -> the task's output. Its mode is restored
            afterwards.
        task: Makes results from outputs, and the metric.
        batches: Evaluation batches (one target per image).
        device: Where the network is.
        visit: Called with each batch and its results, for pictures and files.
    """
    metric = task.new_metric()
    training = model.training
    model.eval()
    started, images = time.perf_counter(), 0
    for batch in batches:
        output = model(batch.images.to(device, non_blocking=True))
        results = task.postprocess(output, batch.meta)
        for result, target in zip(results, batch.target, strict=True):
            metric.update(result, target)
        if visit is not None:
            visit(batch, results)
        images += len(results)
    model.train(training)
    seconds = time.perf_counter() - started
    return Evaluation(metric.compute(), metric.per_class(), metric, images, seconds)
