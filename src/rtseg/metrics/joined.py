"""Several metrics of the same classes, counted and reported as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torchmetrics import Metric


class Joined(nn.Module):
    """Show each image to all metrics; their scores and columns stand side by side.

    Args:
        metrics: Of the same classes in the same order; the first one decides about names.
    """

    def __init__(self, *metrics: Metric) -> None:
        super().__init__()
        self.metrics = nn.ModuleList(metrics)

    def update(self, result: Any, target: Any) -> None:
        """Count one image."""
        for metric in self.metrics:
            metric.update(result, target)  # type: ignore[operator]

    def compute(self) -> dict[str, float]:
        """Return all scores; every process must call it."""
        return {
            name: value
            for metric in self.metrics
            for name, value in metric.compute().items()  # type: ignore[operator]
        }

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row per class with the columns of all; every process must call it."""
        tables = [metric.per_class() for metric in self.metrics]  # type: ignore[operator]
        return [
            {key: value for row in rows for key, value in row.items()}
            for rows in zip(*tables, strict=True)
        ]

    def matrices(self) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return all confusion matrices; every process must call it."""
        found: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
        for metric in self.metrics:
            found |= metric.matrices()  # type: ignore[operator]
        return found
