"""Classification: one class for the whole image, to train backbones on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.losses.cross_entropy import cross_entropy
from rtseg.structures import (
    Batch,
    ClassificationOutput,
    ClassificationResult,
    ClassificationTarget,
    ClassInfo,
    ImageMeta,
    Sample,
)

if TYPE_CHECKING:
    from rtseg.metrics.classification import ClassificationScores


class ClassificationTask:
    """Assign a class to every image.

    Args:
        classes: Classes by id.
        class_weights: Must be None; images are not weighted.
        label_smoothing: Share of each target, in [0, 1), that is spread evenly over the classes.

    Raises:
        ConfigError: Class weights are given, or the share is out of range.
    """

    needs: tuple[str, ...] = ("class",)
    output_type: type = ClassificationOutput

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        class_weights: Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        if class_weights is not None:
            raise ConfigError(
                "images are not weighted", where="task.class_weights", fix="leave it out"
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"{label_smoothing} is outside [0, 1)", where="task.label_smoothing", fix="try 0.1"
            )
        self.classes = tuple(classes)
        self.label_smoothing = label_smoothing

    def target(self, samples: Sequence[Sample]) -> ClassificationTarget:
        """Stack `class` labels: (B,) int64.

        Raises:
            DataError: A sample has no such label.
        """
        for sample in samples:
            if "class" not in sample.labels:
                raise DataError(
                    f"has no class (it has: {', '.join(sample.labels) or 'none'})",
                    where=sample.path,
                    fix="use a data set of the kind image_folder, or another task",
                )
        labels = [int(sample.labels["class"]) for sample in samples]
        return ClassificationTarget(torch.tensor(labels, dtype=torch.int64))

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits.

        Raises:
            ConfigError: The network returns something else, or not one score per class.
        """
        logits = self._checked(model(batch.images)).logits
        labels = batch.target.labels
        return {"loss": cross_entropy(logits, labels, label_smoothing=self.label_smoothing)}

    def divisors(self, target: ClassificationTarget) -> dict[str, Tensor]:
        """Return the number of images that the loss is divided by."""
        return {"loss": torch.tensor(float(len(target.labels)))}

    def _checked(self, output: Any) -> ClassificationOutput:
        if not isinstance(output, ClassificationOutput):
            raise ConfigError(
                f"the network returns {type(output).__name__}",
                where="model",
                fix="return rtseg.structures.ClassificationOutput(logits) from its forward",
            )
        if output.logits.shape[1:] != (len(self.classes),):
            raise ConfigError(
                f"the network returns logits {tuple(output.logits.shape)} for "
                f"{len(self.classes)} classes",
                where="model",
                fix="build it with one output per class of the data set",
            )
        return output

    def new_metric(self) -> ClassificationScores:
        """Return empty counts with their scores."""
        from rtseg.metrics.classification import ClassificationScores

        return ClassificationScores([item.name for item in self.classes])

    def postprocess(
        self,
        output: ClassificationOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,  # noqa: ARG002 (its scores are always there)
    ) -> list[ClassificationResult]:
        """Turn logits (B, K) into distributions, one for each image."""
        shares = output.logits.float().softmax(1).cpu().numpy()
        names = tuple(item.name for item in self.classes)
        palette = tuple(item.color for item in self.classes)
        return [
            ClassificationResult(
                label=int(np.argmax(row)),
                scores=row,
                names=names,
                palette=palette,
                source=item.path,
            )
            for row, item in zip(shares, meta, strict=True)
        ]
