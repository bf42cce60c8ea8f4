"""Score a network on a data set, and write what was found."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtseg import visualize
from rtseg.checkpoint import Checkpoint
from rtseg.config import call
from rtseg.data.dataset import Dataset
from rtseg.data.loader import eval_loader, opened
from rtseg.data.transforms import Preprocess
from rtseg.errors import DataError
from rtseg.structures import Batch
from rtseg.tasks import Task, rebuild

Visitor = Callable[[Batch, list[Any]], None]
CLASS_KINDS = frozenset({"semantic", "panoptic", "class"})
"""Label kinds whose values are class ids."""


@dataclass(frozen=True)
class Evaluation:
    """Scores over a whole set: by name, by class, and the metric they come from."""

    scores: dict[str, float]
    per_class: list[dict[str, Any]]
    metric: Any
    images: int
    seconds: float


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
        model: Network or runtime: images (B, 3, H, W) -> the task's output. The mode of each of
            its modules is restored afterwards.
        task: Makes results from outputs, and the metric.
        batches: Evaluation batches (one target per image).
        device: Where the network is.
        visit: Called with each batch and its results, for pictures and files.
    """
    metric = task.new_metric()
    if isinstance(metric, nn.Module):
        metric.to(device)  # where processes can add up what each of them counted
    started, images = time.perf_counter(), 0
    with _evaluating(model), torch.inference_mode():
        for batch in batches:
            output = model(batch.images.to(device, non_blocking=True))
            results = task.postprocess(output, batch.meta)
            for result, target in zip(results, batch.target, strict=True):
                metric.update(result, target)
            if visit is not None:
                visit(batch, results)
            images += len(results)
    seconds = time.perf_counter() - started
    return Evaluation(metric.compute(), metric.per_class(), metric, images, seconds)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode; restore each module's own, as parts may be frozen in training."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def score(
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    visit: Visitor | None = None,
) -> Evaluation:
    """Score a checkpoint, in float32, with the preprocessing that it was trained with.

    Args:
        checkpoint: Network, classes and preprocessing.
        dataset: Any set with the same classes.
        device: Where to compute.
        workers: Reading processes.
        visit: Called with each batch and its results.

    Raises:
        DataError: The classes differ from those of the checkpoint.
    """
    info = checkpoint.info
    task = rebuild(info.task, info.classes, info.recipe.get("task", {}))
    if CLASS_KINDS.intersection(task.needs):
        _check_classes(checkpoint, dataset)
    preprocess = call(Preprocess, info.preprocess, section="preprocess")
    loader = eval_loader(dataset, preprocess=preprocess, target=task.target, workers=workers)
    model = checkpoint.model.to(device)
    return evaluate(model, task, opened(loader), device=device, visit=visit)


def _check_classes(checkpoint: Checkpoint, dataset: Dataset) -> None:
    classes = checkpoint.info.classes, dataset.classes
    own, theirs = ([item.name for item in items] for items in classes)
    if own == theirs:
        return
    pairs = zip([*own, "nothing"], [*theirs, "nothing"], strict=False)
    mine, other = next(pair for pair in pairs if pair[0] != pair[1])
    raise DataError(
        f"the checkpoint has {len(own)} classes and the data {len(theirs)}; "
        f"they first differ at {mine!r} and {other!r}",
        where=str(checkpoint.path),
        fix="score it on data with the classes that it was trained with",
    )


def write_evaluation(
    result: Evaluation, folder: Path, *, protocol: Mapping[str, Any]
) -> dict[str, Path]:
    """Write `metrics.json`, `per_class.csv` and the confusion matrices; return their paths.

    Args:
        result: Scores; a metric without classes or matrices has no such files.
        folder: Where they go: `confusion.png`, or `confusion_<name>.png` if there are several.
        protocol: How the scores came about: checkpoint, data, split, size and so on.
    """
    document = {
        "protocol": dict(protocol),
        "scores": result.scores,
        "per_class": result.per_class,
        "images": result.images,
        "seconds": round(result.seconds, 3),
    }
    text = json.dumps(document, indent=2) + "\n"
    files = {"metrics": visualize.write_text(folder / "metrics.json", text)}
    if result.per_class:
        table = _table(result.per_class)
        files["per_class"] = visualize.write_text(folder / "per_class.csv", table)
    for name, (matrix, names) in result.metric.matrices().items():
        stem = name if name == "confusion" else f"confusion_{name}"
        picture = visualize.confusion_picture(matrix, names)
        files[stem] = visualize.write_image(folder / f"{stem}.png", picture)
    return files


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; each column stands where it first occurs, a missing value is empty."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
