"""What is learnt from the labels: target, loss, metric and result of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.errors import ConfigError, nearest
from rtseg.structures import Batch, ClassInfo, ImageMeta, Sample
from rtseg.tasks.classification import ClassificationTask
from rtseg.tasks.instance import InstanceTask
from rtseg.tasks.panoptic import PanopticTask
from rtseg.tasks.road_lane import RoadLaneTask
from rtseg.tasks.semantic import SemanticTask
from rtseg.tasks.semantic_masks import SemanticMasksTask

WEIGHTING_KEYS = ("class_weights", "inverse_log_offset")
"""Keys of a recipe's section `task` that say how to weigh classes; only a loss needs the result."""


class Scores(Protocol):
    """What accumulates over a data set; the same from one process or many."""

    def update(self, result: Any, target: Any) -> None:
        """Count one image."""

    def compute(self) -> dict[str, float]:
        """Return the scores by name; none of them is NaN."""
        ...

    def per_class(self) -> list[dict[str, Any]]:
        """Return `name` and further numbers (or None) of each class."""
        ...

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return confusion matrices (C, C), rows truth, with the names of their classes."""
        ...


class Task(Protocol):
    """What the loop, the evaluation and the predictor need of a task.

    It is built as `Task(classes, class_weights=None, *, options)`, every option a plain value, so
    that `rebuild` can make it again from a recipe. A task with parameters is an `nn.Module`.
    """

    needs: tuple[str, ...]
    """Label kinds that it reads from a sample."""
    output_type: type
    """Output that a model must return."""

    def target(self, samples: Sequence[Sample]) -> Any:
        """Stack the labels of equally large samples, for training and for evaluation."""

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named, already weighted loss terms of one batch."""
        ...

    def divisors(self, target: Any) -> dict[str, Tensor]:
        """Return what each term was divided by, where that follows from labels: scalars, float32.

        A batch that comes in parts is put together with them. It is called after the training step
        on some part; terms that are left out count alike in all parts.
        """
        ...

    def new_metric(self) -> Any:
        """Return empty `Scores`; a torchmetrics `Metric`, so that processes can add up theirs."""

    def postprocess(
        self, output: Any, meta: Sequence[ImageMeta], *, confidence: bool = False
    ) -> list[Any]:
        """Turn an output into one result per image, at source size."""


TASKS: dict[str, type[Any]] = {
    "classification": ClassificationTask,
    "instance": InstanceTask,
    "panoptic": PanopticTask,
    "road_lane": RoadLaneTask,
    "semantic": SemanticTask,
    "semantic_masks": SemanticMasksTask,
}
"""Every task by name; the options of each are the keys of a recipe's section `task`."""


def rebuild(name: str, classes: Sequence[ClassInfo], options: Mapping[str, Any]) -> Task:
    """Build a task for evaluation and prediction.

    Args:
        name: Key of `TASKS`.
        classes: Classes by id.
        options: Section `task` of the recipe that a checkpoint keeps; what weighs the classes in
            the loss is left out.

    Raises:
        ConfigError: The task or one of its options is unknown.
    """
    if name not in TASKS:
        close = ", ".join(nearest(name, TASKS))
        raise ConfigError(f"task {name!r} is unknown", fix=f"did you mean one of: {close}?")
    left_out = ("name", *WEIGHTING_KEYS)
    rest = {key: value for key, value in options.items() if key not in left_out}
    try:
        task: Task = TASKS[name](classes, **rest)
    except TypeError as error:
        raise ConfigError(
            f"task {name!r} has other options ({error})", fix="update rtseg"
        ) from None
    return task
