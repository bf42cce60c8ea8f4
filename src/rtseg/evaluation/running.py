"""Run a network over a data set and score its results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from rtseg.checkpoint import Checkpoint
from rtseg.config import call
from rtseg.data.dataset import Dataset
from rtseg.data.preprocess import Preprocess
from rtseg.data.views import ONE_VIEW, Views
from rtseg.errors import ConfigError, DataError
from rtseg.evaluation.examples import examples
from rtseg.evaluation.processes import place
from rtseg.evaluation.tally import Evaluation, Tally
from rtseg.runtimes import Runtime
from rtseg.structures import Batch
from rtseg.tasks import Task, rebuild
from rtseg.tasks.views import Windows, can_average, predict

Visitor = Callable[[Batch, list[Any]], None]
CLASS_KINDS = frozenset({"semantic", "panoptic", "class"})
"""Label kinds whose values are class ids."""


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
    tally, started = Tally(task, device=device), time.perf_counter()
    with _evaluating(model), torch.inference_mode():
        for batch in batches:
            output = model(batch.images.to(device, non_blocking=True))
            results = task.postprocess(output, batch.meta)
            for result, target in zip(results, batch.target, strict=True):
                tally.add(result, target)
            if visit is not None:
                visit(batch, results)
    return tally.finish(seconds=time.perf_counter() - started)


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
    views: Views = ONE_VIEW,
    windows: Windows | None = None,
    by: Sequence[str] = (),
    boundary: bool = False,
    per_image: bool = False,
    worst: int = 0,
) -> Evaluation:
    """Score a checkpoint or an export, with the preprocessing that it was trained with.

    A network computes in float32, a runtime in what it was made for.

    In a process group (torchrun) every process scores its share of the images, none twice, and
    reports the scores of all.

    Args:
        checkpoint: Network or runtime, classes and preprocessing.
        dataset: Any set with the same classes.
        device: Where to compute.
        workers: Reading processes.
        visit: Called with each image, as a batch of one, and its results.
        views: At which size the network looks at an image, and whether it looks again at others
            or at the mirrored image (test-time augmentation).
        windows: Look through windows instead of at the whole image.
        by: Attributes of the images, such as `weather`, by whose values scores are grouped too.
        boundary: Also score outlines (Boundary IoU).
        per_image: Also score every image alone.
        worst: How many of the images with the lowest scores are kept with their results.

    Raises:
        DataError: The classes differ from those of the checkpoint, or an attribute is unknown.
        ConfigError: The task or its preprocessing does not allow what is asked for.
    """
    info = checkpoint.info
    task = rebuild(info.task, info.classes, info.recipe.get("task", {}))
    if CLASS_KINDS.intersection(task.needs):
        _check_classes(checkpoint, dataset)
    preprocess = call(Preprocess, info.preprocess, section="preprocess")
    if isinstance(checkpoint.model, Runtime) and checkpoint.model.takes_pixels:
        preprocess = preprocess.in_pixels()
    _check_looks(checkpoint, task, preprocess, views, windows)
    if by and place().world > 1:
        raise ConfigError(
            "scores are grouped in one process only", where="by", fix="start without torchrun"
        )
    model = checkpoint.model.to(device)
    tally = Tally(task, device=device, boundary=boundary, by=by, per_image=per_image, worst=worst)
    started = time.perf_counter()
    found = examples(dataset, preprocess, views=views, target=task.target, workers=workers)
    with _evaluating(model), torch.inference_mode():
        for example in found:
            looks = [(view.image.to(device), view.meta, view.mirrored) for view in example.views]
            result = predict(model, task, looks, windows=windows)
            tally.add(result, example.target, number=example.number, attributes=example.attributes)
            if visit is not None:
                first = example.views[0]
                visit(Batch(first.image[None], (example.target,), (first.meta,)), [result])
    return tally.finish(seconds=time.perf_counter() - started)


def _check_looks(
    checkpoint: Checkpoint,
    task: Task,
    preprocess: Preprocess,
    views: Views,
    windows: Windows | None,
) -> None:
    """Refuse looks at an image that task or network do not allow, before anything is read."""
    averaged = len(views) > 1 or windows is not None
    if averaged and isinstance(checkpoint.model, Runtime) and checkpoint.model.gives_classes:
        raise ConfigError(
            "the exported file chooses classes itself, so that there are no scores to average",
            where=str(checkpoint.path),
            fix="score it without scales, flip and windows, or export without --with-argmax",
        )
    if averaged and not can_average(task):
        raise ConfigError(
            f"results of task {checkpoint.info.task!r} cannot be averaged over scales, flips or "
            "windows: their masks do not correspond",
            where="task",
            fix="score it without them; a single --scale is possible",
        )
    stride = preprocess.stride
    if windows is not None and any(side % stride for side in windows.size):
        raise ConfigError(
            f"{windows.size[0]}x{windows.size[1]} is no multiple of the network's stride {stride}",
            where="window",
            fix="use one",
        )


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
