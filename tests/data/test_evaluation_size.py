"""A size rule for evaluation only: crops keep their size, pictures are scored at another."""

from __future__ import annotations

from typing import Any

import pytest

from rtseg.data.augment import Augment
from rtseg.data.loader import TrainBatches, eval_loader, opened, train_loader
from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError
from rtseg.structures import Batch, ClassInfo
from rtseg.tasks.semantic import SemanticTask

CLASSES = tuple(ClassInfo(str(index), (0, 0, 0)) for index in range(19))


def first_batches(preprocess: Preprocess) -> tuple[Batch, Batch]:
    """Return a training batch of crops 32x48 and an evaluation batch of scenes 64x96."""
    scenes = Synthetic(split="train", size=(64, 96), length=2)
    target = SemanticTask(CLASSES).target
    order = TrainBatches(2, batch_size=2, seed=0)
    augment = Augment(crop=(32, 48))
    train = train_loader(
        scenes, order, augment=augment, preprocess=preprocess, target=target, workers=0
    )
    val = eval_loader(scenes, preprocess=preprocess, target=target, workers=0)
    return next(opened(iter(train))), next(opened(iter(val)))


@pytest.mark.parametrize("rule", [{"size": (40, 56)}, {"short_side": 40, "max_long_side": 56}])
def test_training_crops_keep_their_size_if_only_evaluation_resizes(rule: Any) -> None:
    train, val = first_batches(Preprocess(stride=8, resize="evaluation", **rule))
    assert train.images.shape == (2, 3, 32, 48)
    assert train.target.labels.shape == (2, 32, 48)
    assert val.images.shape[0] == 1
    assert val.meta[0].input_size in {(40, 56), (37, 56)}
    assert val.target[0].labels.shape == (1, 64, 96)


def test_both_are_resized_otherwise() -> None:
    train, val = first_batches(Preprocess(stride=8, size=(40, 56)))
    assert train.images.shape == (2, 3, 40, 56)
    assert train.target.labels.shape == (2, 40, 56)
    assert val.meta[0].input_size == (40, 56)


@pytest.mark.parametrize("options", [{}, {"size": (32, 32), "letterbox": (64, 64)}])
def test_resizing_in_evaluation_only_needs_a_rule_that_can_be_left_out(options: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.preprocess\.resize"):
        Preprocess(resize="evaluation", **options)
