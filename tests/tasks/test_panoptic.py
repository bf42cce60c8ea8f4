"""The panoptic task: merging worked out by hand, a slow reference, sizes, targets."""

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
    MaskOutput,
    PanopticResult,
    Sample,
    Segment,
)
from rtseg.tasks.panoptic import PanopticTask
from rtseg.tasks.panoptic_merge import merge_masks
from tasks.test_mask_step import Fixed

STUFF, THING = 0, 1
CLASSES = (ClassInfo("sky", (1, 2, 3)), ClassInfo("car", (4, 5, 6), thing=True))
TASK = PanopticTask(CLASSES)


def whole(size: tuple[int, int]) -> ImageMeta:
    return ImageMeta("a.png", size, size, (0, 0))


def post(task: PanopticTask, shares: Any, masks: Tensor) -> PanopticResult:
    """Turn probabilities (N, K + 1) and shares (N, H, W) into a result of the same size."""
    output = MaskOutput(torch.tensor(shares).log()[None], masks.logit()[None])
    return task.postprocess(output, [whole((masks.shape[1], masks.shape[2]))])[0]


def hand_case() -> tuple[list[list[float]], Tensor]:
    """Six queries on 2x5 pixels; two are not sure of a class."""
    shares = [
        [0.95, 0.03, 0.02],
        [0.90, 0.05, 0.05],
        [0.05, 0.90, 0.05],
        [0.05, 0.85, 0.10],
        [0.30, 0.60, 0.10],
        [0.02, 0.03, 0.95],
    ]
    masks = torch.full((6, 2, 5), 0.01)
    masks[0, :, :2] = 0.9
    masks[1, :, 4] = 0.9
    masks[2, :, 2:4] = 0.8
    masks[3, :, 2:4] = 0.6
    masks[3, 0, 3] = 0.95
    masks[4:] = 0.99
    return shares, masks


# ---------------------------------------------------------------- merging
def test_two_stuff_masks_become_one_segment_and_a_mask_that_lost_too_much_is_dropped() -> None:
    result = post(TASK, *hand_case())
    assert result.ids.dtype == np.int32
    assert result.ids.tolist() == [[1, 1, 0, 0, 1]] * 2
    assert result.segments == (Segment(1, STUFF),)
    assert result.scores == (pytest.approx(0.95),)
    assert result.things == {THING}
    assert (result.names, result.source) == (("sky", "car"), "a.png")


def test_a_lower_overlap_keeps_a_mask_with_three_of_its_four_pixels() -> None:
    result = post(PanopticTask(CLASSES, overlap_threshold=0.7), *hand_case())
    assert result.ids.tolist() == [[1, 1, 2, 0, 1], [1, 1, 2, 2, 1]]
    assert result.segments == (Segment(1, STUFF), Segment(2, THING))
    assert result.scores == pytest.approx((0.95, 0.90))


def test_a_lower_score_lets_more_queries_compete() -> None:
    result = post(PanopticTask(CLASSES, score_threshold=0.5), *hand_case())
    # q4 (car, 0.6 * 0.99) beats q3 but where that has 0.95, and loses to the others; 2 of 10 pixels
    assert result.ids.tolist() == [[1, 1, 0, 0, 1]] * 2


def test_the_score_of_joined_stuff_is_that_of_its_best_mask() -> None:
    shares, masks = hand_case()
    result = post(TASK, [shares[1], shares[0], *shares[2:]], masks)
    assert result.scores == (pytest.approx(0.95),)


def test_things_of_one_class_stay_apart() -> None:
    masks = torch.tensor([[[0.9, 0.1, 0.1]], [[0.1, 0.9, 0.1]]])
    result = post(TASK, [[0.05, 0.9, 0.05]] * 2, masks)
    assert result.ids.tolist() == [[1, 2, 0]]
    assert result.segments == (Segment(1, THING), Segment(2, THING))


def test_a_mask_may_win_pixels_below_one_half_but_does_not_get_them() -> None:
    masks = torch.tensor([[[0.9, 0.4, 0.5]]])
    assert post(TASK, [[0.05, 0.9, 0.05]], masks).ids.tolist() == [[1, 0, 1]]


def test_pixels_won_below_one_half_count_against_those_that_were_lost() -> None:
    masks = torch.tensor([[[0.9, 0.9, 0.9, 0.9, 0.4]], [[0.1, 0.1, 0.1, 0.95, 0.1]]])
    result = post(TASK, [[0.05, 0.9, 0.05], [0.04, 0.92, 0.04]], masks)
    # the first one owns 4 pixels (3 of its mask, 1 beside it), and its mask has 4
    assert result.ids.tolist() == [[1, 1, 1, 2, 0]]


def test_a_mask_without_pixels_of_its_own_is_no_segment() -> None:
    masks = torch.tensor([[[0.9, 0.9]], [[0.8, 0.8]], [[0.2, 0.2]]])
    result = post(PanopticTask(CLASSES, overlap_threshold=0.0), [[0.05, 0.9, 0.05]] * 3, masks)
    assert result.ids.tolist() == [[1, 1]]
    assert len(result.segments) == 1


def test_the_first_query_wins_a_tie() -> None:
    masks = torch.tensor([[[0.9, 0.2]], [[0.9, 0.9]]])
    result = post(PanopticTask(CLASSES, overlap_threshold=0.5), [[0.05, 0.9, 0.05]] * 2, masks)
    assert result.ids.tolist() == [[1, 2]]


def slow_merge(masks: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Any:
    """Follow the published steps on all maps at once."""
    owner = (scores[:, None, None] * masks).argmax(0)
    ids = torch.zeros(masks.shape[1:], dtype=torch.int32)
    records: list[tuple[int, int]] = []
    for query in range(len(masks)):
        own, high = owner == query, masks[query] >= 0.5
        both = own & high
        if not own.any() or not high.any() or not both.any():
            continue
        if own.sum() / high.sum() < threshold:
            continue
        label = int(labels[query])
        known = [number for number, other in records if other == label and label != THING]
        if known:
            ids[both] = known[0]
        else:
            records.append((len(records) + 1, label))
            ids[both] = len(records)
    return ids, records


@pytest.mark.parametrize("seed", range(20))
def test_merging_equals_the_published_steps(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = seed % 7 + 1
    masks = F.interpolate(
        torch.randn(1, count, 3, 4, generator=generator) * 6, size=(9, 11), mode="bilinear"
    )[0].sigmoid()
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    threshold = [0.0, 0.5, 0.8, 1.0][seed % 4]
    merged = merge_masks(
        iter(masks), scores=scores, labels=labels, size=(9, 11), things={THING},
        overlap_threshold=threshold,
    )  # fmt: skip
    ids, records = slow_merge(masks, scores, labels, threshold)
    assert torch.equal(merged.ids, ids)
    assert [(item.id, item.class_id) for item in merged.segments] == records
    assert len(merged.scores) == len(records)


# ---------------------------------------------------------------- which queries count
def test_without_a_sure_query_everything_is_void_at_source_size() -> None:
    output = MaskOutput(torch.zeros(1, 4, 3), torch.ones(1, 4, 2, 3))
    result = TASK.postprocess(output, [ImageMeta("a", (9, 12), (4, 6), (0, 0))])[0]
    assert result.ids.shape == (9, 12)
    assert not result.ids.any()
    assert (result.segments, result.scores) == ((), ())


def test_a_score_equal_to_the_threshold_does_not_count() -> None:
    output = MaskOutput(torch.zeros(1, 1, 2), torch.ones(1, 1, 2, 2))  # sky and nothing: 1/2 each
    sizes = {}
    for threshold in (0.5, 0.49, 0.0):
        task = PanopticTask(CLASSES[:1], score_threshold=threshold)
        sizes[threshold] = len(task.postprocess(output, [whole((2, 2))])[0].segments)
    assert sizes == {0.5: 0, 0.49: 1, 0.0: 1}


def test_a_query_that_sees_nothing_does_not_count_however_low_the_threshold() -> None:
    task = PanopticTask(CLASSES, score_threshold=0.0)
    masks = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]])
    result = post(task, [[0.3, 0.3, 0.4], [0.3, 0.4, 0.3]], masks)
    assert result.ids.tolist() == [[0, 1]]
    assert result.segments == (Segment(1, THING),)
    assert result.scores == (pytest.approx(0.4),)


def test_with_sigmoids_there_is_no_class_nothing() -> None:
    logits = torch.tensor([[[-5.0, 3.0, 9.0], [-5.0, 1.0, -9.0]]])
    output = MaskOutput(logits, torch.ones(1, 2, 2, 2))
    task = PanopticTask(CLASSES, class_loss="bce")
    result = task.postprocess(output, [whole((2, 2))])[0]
    assert result.segments == (Segment(1, THING),)
    assert result.scores == (pytest.approx(1 / (1 + np.exp(-3.0))),)


# ---------------------------------------------------------------- sizes
@pytest.mark.parametrize("size", [(33, 47), (32, 64), (95, 31)])
def test_padding_is_cut_off_and_logits_are_resized_before_the_sigmoid(size: Any) -> None:
    fitted = Preprocess(stride=32).fit(np.zeros((*size, 3), np.uint8), path="a.png")
    height, width = fitted.image.shape[-2:]
    torch.manual_seed(0)
    masks = 5 * torch.randn(1, 3, height // 8, width // 8)
    logits = torch.tensor([[[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]]])
    result = TASK.postprocess(MaskOutput(logits, masks), [fitted.meta])[0]
    plain = F.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)
    scores, labels = logits[0].softmax(-1).max(-1)
    cut = plain[0, :, : size[0], : size[1]].sigmoid()
    expected, records = slow_merge(cut, scores, labels, 0.8)
    assert np.array_equal(result.ids, expected.numpy())
    assert len(result.segments) == len(records)


def test_images_of_a_batch_are_not_mixed_up() -> None:
    logits = torch.tensor([[[9.0, 0, 0]], [[0, 9.0, 0]]])
    masks = torch.ones(2, 1, 4, 4)
    masks[1, 0, :, 2:] = -1
    metas = [ImageMeta("a", (4, 4), (4, 4), (0, 0)), ImageMeta("b", (2, 4), (2, 4), (2, 0))]
    first, second = TASK.postprocess(MaskOutput(logits, masks), metas)
    assert (first.source, first.segments) == ("a", (Segment(1, STUFF),))
    assert (second.source, second.segments) == ("b", (Segment(1, THING),))
    assert first.ids.tolist() == [[1] * 4] * 4
    assert second.ids.tolist() == [[1, 1, 0, 0]] * 2


def test_half_precision_outputs_are_read() -> None:
    shares, masks = hand_case()
    output = MaskOutput(torch.tensor(shares).log()[None].bfloat16(), masks.logit()[None].bfloat16())
    result = TASK.postprocess(output, [whole((2, 5))])[0]
    assert result.ids.tolist() == [[1, 1, 0, 0, 1]] * 2


# ---------------------------------------------------------------- targets, loss, metric
def sample(rows: list[list[int]], *segments: Segment) -> Sample:
    labels = {"panoptic": np.array(rows, np.int32)}
    return Sample(np.zeros((2, 3, 3), np.uint8), labels, segments, path="b")


def test_every_segment_is_a_target_and_empty_ones_on_request() -> None:
    item = sample([[7, 7, 0], [9, 9, 8]], Segment(7, 0), Segment(8, 1), Segment(9, 1, crowd=True),
                  Segment(5, 1))  # fmt: skip
    target = TASK.target([item])
    assert target.labels[0].tolist() == [0, 1, 1]
    assert target.crowd[0].tolist() == [False, False, True]
    assert target.ignore.tolist() == [[[False, False, True], [False] * 3]]
    kept = PanopticTask(CLASSES, keep_empty_targets=True).target([item])
    assert kept.labels[0].tolist() == [0, 1, 1, 1]


def test_missing_labels_are_named() -> None:
    semantic = Sample(np.zeros((1, 1, 3), np.uint8), {"semantic": np.zeros((1, 1))}, path="c")
    with pytest.raises(DataError, match="c: has no panoptic labels"):
        TASK.target([semantic])


def test_options_reach_the_loss_and_crowds_are_left_out() -> None:
    torch.manual_seed(0)
    output = MaskOutput(torch.randn(1, 3, 3), torch.randn(1, 3, 4, 6))
    plain = sample([[7, 7, 0], [9, 9, 8]], Segment(7, 0), Segment(8, 1))
    crowded = sample([[7, 7, 0], [9, 9, 8]], Segment(7, 0), Segment(8, 1), Segment(9, 1, True))
    task = PanopticTask(CLASSES, [1.0, 5.0], class_loss="bce", points=8, ignore_void=True,
                        deep_supervision=False)  # fmt: skip
    assert (task.step.class_loss, task.step.points, task.step.ignore_void) == ("bce", 8, True)
    assert task.step.weight.tolist()[:2] == [1.0, 5.0]
    assert not task.step.deep_supervision
    losses = []
    for item in (plain, crowded):
        torch.manual_seed(1)
        batch = Batch(torch.zeros(1, 3, 2, 3), TASK.target([item]), ())
        losses.append(TASK.training_step(Fixed(output), batch))
    assert set(losses[0]) == {"class", "mask", "dice"}
    assert losses[0] == losses[1]


def test_thresholds_are_shares() -> None:
    for name in ("score_threshold", "overlap_threshold"):
        for value in (-0.1, 1.1):
            with pytest.raises(ConfigError, match=rf"task\.{name}: is {value}"):
                PanopticTask(CLASSES, **{name: value})


def test_perfect_masks_of_a_scene_score_one() -> None:
    scenes = Synthetic(split="val", size=(48, 96), length=1)
    task = PanopticTask(scenes.classes)
    target = task.target([scenes[0]])
    masks = target.masks[0].float() * 20 - 10
    logits = 10 * F.one_hot(target.labels[0], len(scenes.classes) + 1).float()
    output = MaskOutput(logits[None], masks[None])
    result = task.postprocess(output, [whole((48, 96))])[0]
    metric = task.new_metric()
    metric.update(result, target)
    assert len(result.segments) > 5
    assert metric.compute()["pq"] == 1.0
    assert metric.compute()["pq_things"] == 1.0
