"""Scores of image classification: how often the true class is the first, or among the first five.

Three integers per class are kept, whatever their number, and sums of integers do not depend on the
order of the images or on how they were spread over processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from rtseg.errors import DataError
from rtseg.structures import ClassificationResult, ClassificationTarget

TOP = 5


class ClassificationScores(Metric):
    """Count images by true class, and how high the true class was ranked.

    Args:
        class_names: Names by class id.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    images: Tensor
    first: Tensor
    top: Tensor

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        for name in ("images", "first", "top"):
            zeros = torch.zeros(len(self.class_names), dtype=torch.int64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, result: ClassificationResult, target: ClassificationTarget) -> None:
        """Count one image.

        Args:
            result: Prediction; of equal scores the one of the lower class id ranks higher.
            target: Label (1,).

        Raises:
            DataError: If the label is no class.
        """
        label = int(target.labels)
        if not 0 <= label < len(self.class_names):
            raise DataError(
                f"label {label} is none of the {len(self.class_names)} classes",
                where=result.source,
                fix="use the classes that the network was built for",
            )
        scores = result.scores
        above, equal = scores > scores[label], scores == scores[label]
        rank = int(above.sum() + equal[:label].sum())
        self.images[label] += 1
        self.first[label] += rank == 0
        self.top[label] += rank < TOP

    def compute(self) -> dict[str, float]:
        """Score everything seen so far; 0 if nothing was.

        Returns:
            Shares of the images, in [0, 1]: `accuracy`, the true class ranked first;
            `top5_accuracy`, ranked among the first five.
        """
        total = max(int(self.images.sum()), 1)
        return {
            "accuracy": int(self.first.sum()) / total,
            "top5_accuracy": int(self.top.sum()) / total,
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Score every class; every process must call it.

        Returns:
            By class id: `name`, `accuracy`, `top5_accuracy` (None without images), `images`.
        """
        with self.sync_context():
            counts = torch.stack([self.images, self.first, self.top], dim=1).tolist()
        return [
            {
                "name": name,
                "accuracy": first / images if images else None,
                "top5_accuracy": top / images if images else None,
                "images": images,
            }
            for name, (images, first, top) in zip(self.class_names, counts, strict=True)
        ]

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return none: with a thousand classes it would be larger than all the rest."""
        return {}
