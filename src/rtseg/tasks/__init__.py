"""What is learnt from the labels: target, loss, metric and result of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from rtseg.structures import Batch, ImageMeta, Sample
from rtseg.tasks.semantic import SemanticTask


class Task(Protocol):
    """What the loop, the evaluation and the predictor need of a task."""

    needs: tuple[str, ...]
    """Label kinds that it reads from a sample."""
    output_type: type
    """Output that a model must return."""

    def target(self, samples: Sequence[Sample]) -> Any:
        """Stack the labels of equally large samples."""

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named, already weighted loss terms of one batch."""

    def new_metric(self) -> Any:
        """Return an empty metric: update(result, target), compute(), per_class()."""

    def postprocess(
        self, output: Any, meta: Sequence[ImageMeta], *, confidence: bool = False
    ) -> list[Any]:
        """Turn an output into one result per image, at source size."""


TASKS = {"semantic": SemanticTask}
