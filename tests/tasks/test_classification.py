"""The classification task: targets, loss and results worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.structures import (
    Batch,
    ClassificationOutput,
    ClassificationTarget,
    ImageMeta,
    Sample,
    SemanticOutput,
)
from rtseg.tasks.classification import ClassificationTask
from training.toy import CLASSES

META = ImageMeta("a.png", (40, 60), (20, 30), (4, 2))
LOGITS = torch.tensor([[0.0, math.log(2), math.log(5)], [math.log(3), 0.0, 0.0]])


class Fixed(nn.Module):
    """Return a given output whatever the image."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Any:
        return self.output


def sample(**labels: Any) -> Sample:
    return Sample(np.zeros((2, 2, 3), np.uint8), labels, path="a.png")


def step(task: ClassificationTask, output: Any, labels: list[int]) -> Tensor:
    target = ClassificationTarget(torch.tensor(labels))
    terms = task.training_step(Fixed(output), Batch(torch.zeros(2, 3, 4, 4), target, ()))
    assert list(terms) == ["loss"]
    return terms["loss"]


def test_labels_are_stacked() -> None:
    task = ClassificationTask(CLASSES)
    samples = [sample(**{"class": np.array(index, np.int64)}) for index in (2, 0)]
    labels = task.target(samples).labels
    assert labels.tolist() == [2, 0]
    assert labels.dtype == torch.int64
    with pytest.raises(DataError, match=r"a\.png: has no class \(it has: semantic\)"):
        task.target([sample(semantic=np.zeros((2, 2)))])


def test_the_loss_is_the_mean_cross_entropy() -> None:
    # probabilities of the true classes are 5/8 and 1/5
    loss = step(ClassificationTask(CLASSES), ClassificationOutput(LOGITS), [2, 1])
    assert loss.item() == pytest.approx((math.log(8 / 5) + math.log(5)) / 2)


def test_smoothing_spreads_a_share_of_the_target() -> None:
    task = ClassificationTask(CLASSES, label_smoothing=0.3)
    loss = step(task, ClassificationOutput(LOGITS), [2, 1])
    first = 0.8 * math.log(8 / 5) + 0.1 * math.log(8 / 2) + 0.1 * math.log(8)
    second = 0.8 * math.log(5) + 0.1 * math.log(5) + 0.1 * math.log(5 / 3)
    assert loss.item() == pytest.approx((first + second) / 2)


def test_scores_are_a_distribution_in_half_precision_too() -> None:
    task = ClassificationTask(CLASSES)
    for logits in (LOGITS, LOGITS.half()):
        metas = [META, META._replace(path="b")]
        first, second = task.postprocess(ClassificationOutput(logits), metas)
        assert np.allclose(first.scores, [1 / 8, 2 / 8, 5 / 8], atol=1e-3)
        assert np.allclose(second.scores, [3 / 5, 1 / 5, 1 / 5], atol=1e-3)
        assert first.scores.dtype == np.float32
        assert (first.label, second.label) == (2, 0)
        assert (first.source, second.source) == ("a.png", "b")
        assert first.names == ("low", "middle", "high")
        assert first.palette[1] == (4, 5, 6)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (SemanticOutput(torch.zeros(2, 3, 4, 4)), "the network returns SemanticOutput"),
        (ClassificationOutput(torch.zeros(2, 4)), r"logits \(2, 4\) for 3 classes"),
        (ClassificationOutput(torch.zeros(2, 3, 1, 1)), r"logits \(2, 3, 1, 1\)"),
    ],
)
def test_a_network_that_does_not_fit_is_named(output: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        step(ClassificationTask(CLASSES), output, [0, 1])


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_options_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="outside"):
        ClassificationTask(CLASSES, label_smoothing=share)
    with pytest.raises(ConfigError, match="not weighted"):
        ClassificationTask(CLASSES, [1.0, 2.0, 3.0])
