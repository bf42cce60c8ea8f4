"""Accuracy of whole images against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtseg.errors import DataError
from rtseg.metrics.classification import ClassificationScores
from rtseg.structures import ClassificationResult, ClassificationTarget

NAMES = tuple("abcdefg")


def result(*scores: float) -> ClassificationResult:
    array = np.array(scores, np.float32)
    return ClassificationResult(int(array.argmax()), array, NAMES[: len(scores)])


def target(label: int) -> ClassificationTarget:
    return ClassificationTarget(torch.tensor([label]))


SEVEN = (0.30, 0.05, 0.20, 0.15, 0.10, 0.02, 0.18)  # ranks 0, 5, 1, 3, 4, 6, 2


def test_ranks_decide() -> None:
    metric = ClassificationScores(NAMES)
    for label in (0, 0, 1, 2, 4, 5):
        metric.update(result(*SEVEN), target(label))
    # first: the two of class 0; among five: those, class 2 and class 4 (rank 4), not 1 and 5
    assert metric.compute() == {"accuracy": 2 / 6, "top5_accuracy": 4 / 6}
    rows = metric.per_class()
    assert rows[0] == {"name": "a", "accuracy": 1.0, "top5_accuracy": 1.0, "images": 2}
    assert rows[1] == {"name": "b", "accuracy": 0.0, "top5_accuracy": 0.0, "images": 1}
    assert rows[4] == {"name": "e", "accuracy": 0.0, "top5_accuracy": 1.0, "images": 1}
    assert rows[3] == {"name": "d", "accuracy": None, "top5_accuracy": None, "images": 0}
    assert metric.matrices() == {}


def test_of_equal_scores_the_lower_id_ranks_higher() -> None:
    metric = ClassificationScores(NAMES)
    for label in range(7):
        metric.update(result(*[1 / 7] * 7), target(label))
    assert metric.compute() == {"accuracy": 1 / 7, "top5_accuracy": 5 / 7}


def test_up_to_five_classes_are_all_among_the_first_five() -> None:
    metric = ClassificationScores(NAMES[:3])
    metric.update(result(0.1, 0.2, 0.7), target(0))
    assert metric.compute() == {"accuracy": 0.0, "top5_accuracy": 1.0}


def test_nothing_seen_scores_0() -> None:
    assert set(ClassificationScores(NAMES).compute().values()) == {0.0}


def test_sums_do_not_depend_on_who_counted() -> None:
    rng = np.random.default_rng(0)
    pairs = [(result(*rng.dirichlet(np.ones(7))), target(int(rng.integers(7)))) for _ in range(20)]
    whole, parts = ClassificationScores(NAMES), [ClassificationScores(NAMES) for _ in range(3)]
    for index, pair in enumerate(pairs):
        whole.update(*pair)
        parts[index % 3].update(*pair)
    for name in ("images", "first", "top"):
        total = sum(getattr(part, name) for part in parts)
        assert torch.equal(getattr(whole, name), total)
    whole.reset()
    assert whole.images.sum() == 0


@pytest.mark.parametrize("label", [-1, 7, 255])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} is none of the 7 classes"):
        ClassificationScores(NAMES).update(result(*SEVEN), target(label))
