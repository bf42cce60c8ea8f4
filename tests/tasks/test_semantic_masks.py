"""Semantic segmentation from masks: scores by hand, padding, and the metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.data.transforms import Preprocess
from rtseg.metrics.confusion import SegmentationScores
from rtseg.structures import (
    Batch,
    ImageMeta,
    MaskOutput,
    MaskTarget,
    Sample,
    SemanticResult,
    SemanticTarget,
)
from rtseg.tasks.semantic_masks import SemanticMasksTask, semantic_scores
from tasks.test_mask_step import Fixed
from training.toy import CLASSES

TASK = SemanticMasksTask(CLASSES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def prediction(size: tuple[int, int] = (5, 7), batch: int = 1) -> MaskOutput:
    return MaskOutput(2 * torch.randn(batch, 8, 4), 4 * torch.randn(batch, 8, *size))


def whole(size: tuple[int, int]) -> ImageMeta:
    return ImageMeta("a.png", size, size, (0, 0))


def by_hand(output: MaskOutput) -> Tensor:
    shares = output.class_logits.softmax(-1)[0, :, :-1]
    masks = output.mask_logits.sigmoid()[0]
    return sum(shares[q][:, None, None] * masks[q] for q in range(len(shares)))  # type: ignore[return-value]


def test_scores_of_two_queries_are_worked_out_by_hand() -> None:
    classes = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]).log()
    masks = torch.logit(torch.tensor([[[[0.9, 0.1]], [[0.5, 0.5]]]]))
    scores = semantic_scores(MaskOutput(classes, masks))
    assert scores.shape == (1, 2, 1, 2)
    torch.testing.assert_close(
        scores[0, :, 0], torch.tensor([[0.45 + 0.05, 0.05 + 0.05], [0.27 + 0.05, 0.03 + 0.05]])
    )


def test_scores_equal_the_plain_sum_and_ignore_no_object() -> None:
    output = prediction()
    torch.testing.assert_close(semantic_scores(output)[0], by_hand(output))
    certain = output.class_logits.clone()
    certain[..., -1] = 50.0  # nothing anywhere
    assert semantic_scores(MaskOutput(certain, output.mask_logits)).max() < 1e-12
    sigmoids = semantic_scores(output, class_loss="bce")
    bigger = semantic_scores(MaskOutput(certain, output.mask_logits), class_loss="bce")
    assert torch.equal(sigmoids, bigger)
    assert semantic_scores(MaskOutput(*(t.half() for t in output[:2]))).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(semantic_scores(output)[0], by_hand(output))


def test_resizing_the_sum_equals_adding_up_resized_masks() -> None:
    output = prediction()
    scores = semantic_scores(output)
    resized = F.interpolate(scores, size=(40, 56), mode="bilinear", align_corners=False)
    masks = F.interpolate(
        output.mask_logits.sigmoid(), size=(40, 56), mode="bilinear", align_corners=False
    )
    shares = output.class_logits.softmax(-1)[0, :, :-1]
    expected = torch.einsum("qc,qyx->cyx", shares, masks[0])
    torch.testing.assert_close(resized[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["sigmoid_first", "resize_first"])
@pytest.mark.parametrize("size", [(33, 47), (32, 64), (95, 31)])
def test_padding_is_cut_off_and_the_mask_has_the_source_size(
    size: tuple[int, int], order: Any
) -> None:
    task = SemanticMasksTask(CLASSES, sem_order=order)
    fitted = Preprocess(stride=32).fit(np.zeros((*size, 3), np.uint8), path="a.png")
    height, width = fitted.image.shape[-2:]
    output = prediction((height // 8, width // 8))
    result = task.postprocess(output, [fitted.meta], confidence=True)[0]
    options: dict[str, Any] = {"size": (height, width), "mode": "bilinear", "align_corners": False}
    if order == "sigmoid_first":
        full = F.interpolate(by_hand(output)[None], **options)[0]
    else:
        full = by_hand(output._replace(mask_logits=F.interpolate(output.mask_logits, **options)))
    full = full[:, : size[0], : size[1]]
    assert result.mask.shape == size
    assert (result.mask == full.argmax(0).numpy()).mean() > 0.999
    assert (result.source, result.names) == ("a.png", ("low", "middle", "high"))
    assert result.palette == tuple(item.color for item in CLASSES)
    assert result.mask.dtype == np.uint8
    assert result.confidence is not None
    share = (full.amax(0) / full.sum(0)).numpy()
    assert np.allclose(result.confidence, share, atol=1e-3)
    assert task.postprocess(output, [fitted.meta])[0].confidence is None


def test_orders_differ_by_a_hair_only() -> None:
    output, meta = prediction(), [whole((40, 56))]
    first, second = (
        SemanticMasksTask(CLASSES, sem_order=order).postprocess(output, meta, confidence=True)[0]
        for order in ("sigmoid_first", "resize_first")
    )
    assert not np.array_equal(first.confidence, second.confidence)
    assert (first.mask == second.mask).mean() > 0.8


def test_every_image_of_a_batch_gets_its_own_result() -> None:
    output = prediction(batch=2)
    metas = [whole((10, 14)), whole((20, 28))]
    results = TASK.postprocess(output, metas)
    for index, meta in enumerate(metas):
        alone = MaskOutput(*(t[index : index + 1] for t in output[:2]))
        assert np.array_equal(results[index].mask, TASK.postprocess(alone, [meta])[0].mask)


def test_scores_of_nothing_give_a_finite_confidence() -> None:
    output = MaskOutput(torch.zeros(1, 2, 4), torch.full((1, 2, 4, 4), -200.0))
    result = TASK.postprocess(output, [whole((8, 8))], confidence=True)[0]
    assert result.confidence is not None
    assert np.isfinite(result.confidence).all()


def sample(labels: np.ndarray) -> Sample:
    return Sample(np.zeros((*labels.shape, 3), np.uint8), {"semantic": labels})


def test_target_holds_the_classes_of_each_image_and_the_step_trains_on_them() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(rng.integers(0, 3, (8, 12), dtype=np.uint8)) for _ in range(2)]
    target = TASK.target(samples)
    assert [labels.tolist() for labels in target.labels] == [[0, 1, 2]] * 2
    batch = Batch(torch.zeros(2, 3, 8, 12), target, ())
    task = SemanticMasksTask(CLASSES, [1.0, 1.0, 2.0], points=32)
    terms = task.training_step(Fixed(prediction(batch=2)), batch)
    assert list(terms) == ["class", "mask", "dice"]
    assert task.output_type is MaskOutput
    assert task.needs == ("semantic",)


def test_metric_counts_masks_as_it_counts_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (8, 12), dtype=np.uint8)
    labels[:2] = 255
    result = SemanticResult(
        rng.integers(0, 3, (8, 12), dtype=np.uint8), ("a", "b", "c"), ((0, 0, 0),) * 3
    )
    by_masks, by_labels = TASK.new_metric(), SegmentationScores(3)
    target = TASK.target([sample(labels)])
    assert isinstance(target, MaskTarget)
    by_masks.update(result, target)
    by_labels.update(result, SemanticTarget(torch.from_numpy(labels).long()))
    assert np.array_equal(by_masks.matrix(), by_labels.matrix())
    assert by_masks.matrix().sum() == 6 * 12
    assert by_masks.class_names == ("low", "middle", "high")
    empty = TASK.target([sample(np.full((8, 12), 255, np.uint8))])
    by_masks.update(result, empty)
    assert by_masks.matrix().sum() == 6 * 12


def test_options_are_refused_or_passed_on() -> None:
    task = SemanticMasksTask(
        CLASSES, class_loss="bce", points=77, deep_supervision=False, ignore_void=True
    )
    step = task.step
    found = (step.class_loss, step.points, step.deep_supervision, step.ignore_void)
    assert found == ("bce", 77, False, True)
    output = prediction()
    got = task.postprocess(output, [whole((5, 7))])[0].mask
    expected = semantic_scores(output, class_loss="bce")[0].argmax(0)
    assert np.array_equal(got, expected.numpy())
