"""The instance task: choice of pairs, masks and scores by hand, sizes, targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.data.synthetic import Synthetic
from rtseg.data.transforms import Preprocess
from rtseg.errors import ConfigError, DataError
from rtseg.structures import (
    Batch,
    ClassInfo,
    ImageMeta,
    InstanceResult,
    MaskOutput,
    Sample,
    Segment,
)
from rtseg.tasks.instance import InstanceTask
from tasks.test_mask_step import Fixed

SKY, CAR, MAN = 0, 1, 2
CLASSES = (
    ClassInfo("sky", (1, 2, 3)),
    ClassInfo("car", (4, 5, 6), thing=True),
    ClassInfo("man", (7, 8, 9), thing=True),
)
SURE = [[0.02, 0.9, 0.03, 0.05], [0.01, 0.04, 0.8, 0.15]]
"""Sky, car, man, nothing: of two queries."""


def whole(size: tuple[int, int]) -> ImageMeta:
    return ImageMeta("a.png", size, size, (0, 0))


def post(shares: Any, masks: Tensor, **options: Any) -> InstanceResult:
    output = MaskOutput(torch.tensor(shares).log()[None], masks.logit()[None])
    task = InstanceTask(CLASSES, **options)
    return task.postprocess(output, [whole((masks.shape[1], masks.shape[2]))])[0]


# ---------------------------------------------------------------- objects
def test_masks_and_scores_are_worked_out_by_hand() -> None:
    masks = torch.tensor([[[0.9, 0.7, 0.2]], [[0.1, 0.3, 0.6]]])
    result = post(SURE, masks, top_k=2)
    assert result.labels.tolist() == [CAR, MAN]
    assert result.masks.tolist() == [[[True, True, False]], [[False, False, True]]]
    assert result.scores.tolist() == pytest.approx([0.9 * 0.8, 0.8 * 0.6], abs=1e-5)
    assert (result.masks.dtype, result.scores.dtype) == (np.bool_, np.float32)
    assert result.labels.dtype == np.int64
    assert (result.names, result.source) == (("sky", "car", "man"), "a.png")


def test_the_order_is_that_of_the_final_scores() -> None:
    masks = torch.tensor([[[0.6, 0.1]], [[0.1, 0.95]]])
    result = post(SURE, masks, top_k=2)
    assert result.labels.tolist() == [MAN, CAR]
    assert result.scores.tolist() == pytest.approx([0.8 * 0.95, 0.9 * 0.6], abs=1e-5)
    assert result.masks.tolist() == [[[False, True]], [[True, False]]]


def test_a_query_may_be_two_objects_of_different_classes() -> None:
    masks = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]])
    result = post(SURE, masks, top_k=4)
    assert result.labels.tolist() == [CAR, MAN, CAR, MAN]
    assert result.scores.tolist() == pytest.approx([0.81, 0.72, 0.036, 0.027], abs=1e-5)
    assert result.masks[:, 0, 0].tolist() == [True, False, False, True]


def test_surfaces_take_places_but_are_no_objects() -> None:
    shares = [[0.95, 0.02, 0.01, 0.02], SURE[1]]
    masks = torch.full((2, 1, 1), 0.9)
    assert post(shares, masks, top_k=1).labels.tolist() == []
    assert post(shares, masks, top_k=2).labels.tolist() == [MAN]


def test_more_pairs_than_there_are_can_be_asked_for() -> None:
    assert len(post(SURE, torch.full((2, 1, 1), 0.9)).labels) == 4


def test_a_share_of_one_half_is_outside_and_masks_without_pixels_are_left_out() -> None:
    masks = torch.tensor([[[0.5, 0.4]], [[0.5, 0.6]]])
    result = post(SURE, masks, top_k=2)
    assert result.labels.tolist() == [MAN]
    assert result.masks.tolist() == [[[False, True]]]
    nothing = post(SURE, torch.full((2, 3, 4), 0.1))
    assert nothing.masks.shape == (0, 3, 4)


def test_with_sigmoids_there_is_no_class_nothing() -> None:
    logits = torch.tensor([[[-9.0, 2.0, -9.0, 9.0]]])
    output = MaskOutput(logits, torch.full((1, 1, 1, 1), 50.0))
    task = InstanceTask(CLASSES, class_loss="bce", top_k=1)
    result = task.postprocess(output, [whole((1, 1))])[0]
    assert result.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2.0))], abs=1e-5)


def test_padding_is_cut_off_and_logits_are_resized() -> None:
    fitted = Preprocess(stride=32).fit(np.zeros((33, 47, 3), np.uint8), path="a.png")
    torch.manual_seed(0)
    masks = 5 * torch.randn(1, 1, 8, 8)
    output = MaskOutput(torch.tensor([[[0.0, 9.0, 0.0, 0.0]]]).bfloat16(), masks)
    result = InstanceTask(CLASSES, top_k=1).postprocess(output, [fitted.meta])[0]
    plain = F.interpolate(masks, size=(64, 64), mode="bilinear", align_corners=False)
    inside = plain[0, 0, :33, :47]
    assert np.array_equal(result.masks[0], (inside > 0).numpy())
    share = float(torch.tensor([0.0, 9.0, 0.0, 0.0]).softmax(0)[1])
    expected = share * float(inside[inside > 0].sigmoid().mean())
    assert result.scores[0] == pytest.approx(expected, rel=1e-4)


def test_images_of_a_batch_are_not_mixed_up() -> None:
    logits = torch.tensor([[[0.0, 9, 0, 0]], [[0, 0, 9.0, 0]]])
    masks = torch.full((2, 1, 2, 2), 3.0)
    metas = [whole((2, 2)), ImageMeta("b", (1, 2), (1, 2), (1, 0))]
    first, second = InstanceTask(CLASSES, top_k=1).postprocess(MaskOutput(logits, masks), metas)
    assert (first.labels.tolist(), first.masks.shape) == ([CAR], (1, 2, 2))
    assert (second.labels.tolist(), second.masks.shape) == ([MAN], (1, 1, 2))
    assert second.source == "b"


# ---------------------------------------------------------------- targets, loss, metric
def sample(*segments: Segment) -> Sample:
    labels = {"panoptic": np.array([[7, 7, 0], [9, 9, 8]], np.int32)}
    return Sample(np.zeros((2, 3, 3), np.uint8), labels, segments, path="b")


def test_things_are_targets_and_surfaces_are_not() -> None:
    task = InstanceTask(CLASSES)
    target = task.target([sample(Segment(7, SKY), Segment(8, MAN), Segment(9, CAR, crowd=True))])
    assert target.labels[0].tolist() == [MAN, CAR]
    assert target.crowd[0].tolist() == [False, True]
    assert target.masks[0].sum((1, 2)).tolist() == [1, 2]
    assert target.ignore.sum() == 1
    with pytest.raises(DataError, match="b: class 3 is none of the 3 classes"):
        task.target([sample(Segment(7, 3))])


def test_options_reach_the_loss() -> None:
    torch.manual_seed(0)
    output = MaskOutput(torch.randn(1, 3, 4), torch.randn(1, 3, 4, 6))
    task = InstanceTask(CLASSES, [1.0, 5.0, 2.0], class_loss="bce", points=8, ignore_void=True,
                        deep_supervision=False)  # fmt: skip
    assert (task.step.class_loss, task.step.points, task.step.ignore_void) == ("bce", 8, True)
    assert task.step.weight.tolist()[:3] == [1.0, 5.0, 2.0]
    assert not task.step.deep_supervision
    target = task.target([sample(Segment(8, MAN))])
    terms = task.training_step(Fixed(output), Batch(torch.zeros(1, 3, 2, 3), target, ()))
    assert set(terms) == {"class", "mask", "dice"}


def test_classes_without_things_and_no_pairs_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of the classes is a thing"):
        InstanceTask(CLASSES[:1])
    with pytest.raises(ConfigError, match=r"task\.top_k: is 0"):
        InstanceTask(CLASSES, top_k=0)


def test_perfect_masks_of_a_scene_score_one() -> None:
    scenes = Synthetic(split="val", size=(48, 96), length=1)
    task = InstanceTask(scenes.classes, top_k=200)
    target = task.target([scenes[0]])
    logits = 10 * F.one_hot(target.labels[0], len(scenes.classes) + 1).float()
    output = MaskOutput(logits[None], (target.masks[0].float() * 20 - 10)[None])
    result = task.postprocess(output, [whole((48, 96))])[0]
    metric = task.new_metric()
    metric.update(result, target)
    assert len(target.labels[0]) > 2
    assert metric.compute()["ap"] == pytest.approx(1.0)
