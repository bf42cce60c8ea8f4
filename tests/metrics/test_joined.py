from __future__ import annotations

import numpy as np
import torch

from rtseg.metrics.boundary import BoundaryIoU
from rtseg.metrics.confusion import SegmentationScores
from rtseg.metrics.joined import Joined
from rtseg.structures import SemanticResult, SemanticTarget


def test_metrics_see_the_same_and_report_side_by_side() -> None:
    alone = SegmentationScores(2, ["a", "b"]), BoundaryIoU(["a", "b"])
    joined = Joined(SegmentationScores(2, ["a", "b"]), BoundaryIoU(["a", "b"]))
    rng = np.random.default_rng(0)
    for _ in range(3):
        mask, truth = rng.integers(0, 2, (2, 9, 12), dtype=np.uint8)
        result = SemanticResult(mask, ("a", "b"), ((0, 0, 0),) * 2)
        target = SemanticTarget(torch.from_numpy(truth.astype(np.int64)))
        for metric in (*alone, joined):
            metric.update(result, target)
    assert joined.compute() == {**alone[0].compute(), **alone[1].compute()}
    rows = zip(alone[0].per_class(), alone[1].per_class(), strict=True)
    assert joined.per_class() == [{**first, **second} for first, second in rows]
    (name,) = joined.matrices()
    assert name == "confusion"
    assert np.array_equal(joined.matrices()[name][0], alone[0].matrix())
    assert joined.per_class()[1]["name"] == "b"
