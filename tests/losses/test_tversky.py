"""The Tversky loss against values worked out by hand, and what its two weights ask for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from losses.test_focal import FOUR_LABELS, FOUR_SCORES, scene, two_channels
from rtseg.losses.tversky import tversky_loss


def loss(logits: Tensor, labels: Tensor, alpha: float, **options: Any) -> float:
    value = tversky_loss(
        logits, labels, false_positive_weight=alpha, false_negative_weight=1 - alpha, **options
    )
    assert value.dtype == torch.float32
    return value.item()


@pytest.mark.parametrize(("alpha", "expected"), [(0.7, 0.4255206), (0.9, 0.4088303)])
def test_scores_of_zero_are_worked_out_by_hand(alpha: float, expected: float) -> None:
    assert loss(torch.zeros(1, 2, 1, 4), FOUR_LABELS, alpha) == pytest.approx(expected, abs=2e-7)


def test_scores_of_zero_follow_the_formula_step_by_step() -> None:
    # background: TP 1.5, FP 0.5, FN 1.5; foreground: TP 0.5, FP 1.5, FN 0.5
    background = 1.5 / (1.5 + 0.7 * 0.5 + 0.3 * 1.5)
    foreground = 0.5 / (0.5 + 0.7 * 1.5 + 0.3 * 0.5)
    mean = ((1 - background) + (1 - foreground)) / 2
    zeros = torch.zeros(1, 2, 1, 4)
    assert loss(zeros, FOUR_LABELS, 0.7) == pytest.approx(mean ** (4 / 3), rel=1e-6)
    assert loss(zeros, FOUR_LABELS, 0.7, gamma=1.0) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(("alpha", "expected"), [(0.7, 0.0561734), (0.9, 0.0162219)])
def test_an_absent_class_adds_nothing_but_counts_in_the_mean(alpha: float, expected: float) -> None:
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    assert loss(torch.zeros(1, 2, 1, 4), labels, alpha) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(("alpha", "expected"), [(0.7, 0.1926524), (0.9, 0.1895023)])
def test_four_pixels_are_worked_out_by_hand(alpha: float, expected: float) -> None:
    value = loss(two_channels(FOUR_SCORES), FOUR_LABELS, alpha)
    assert value == pytest.approx(expected, abs=2e-7)


def band(predicted: int) -> tuple[Tensor, Tensor]:
    """A line 4 pixels wide in 64x64, predicted surely as `predicted` wide about its middle."""
    rows = torch.arange(64).view(1, 64, 1).expand(1, 64, 64)
    truth = ((rows >= 30) & (rows < 34)).long()
    found = (rows >= 32 - predicted // 2) & (rows < 32 + predicted // 2)
    score = torch.where(found, 20.0, -20.0)
    return torch.stack([-score, score], dim=1), truth


def test_a_weight_on_false_positives_prefers_the_thin_line_and_on_misses_the_wide_one() -> None:
    wide, thin = band(6), band(2)
    assert loss(*wide, 0.9) == pytest.approx(0.0846, abs=5e-5)
    assert loss(*thin, 0.9) == pytest.approx(0.0235, abs=5e-5)
    assert loss(*wide, 0.1) == pytest.approx(0.0132, abs=5e-5)
    assert loss(*thin, 0.1) == pytest.approx(0.1479, abs=5e-5)


def test_sums_run_over_the_whole_batch() -> None:
    logits, labels = scene()
    joined = [torch.cat(list(item), dim=-2)[None] for item in (logits, labels)]
    assert loss(logits, labels, 0.7) == pytest.approx(loss(*joined, 0.7), rel=1e-5)
    each = [loss(logits[i : i + 1], labels[i : i + 1], 0.7) for i in range(2)]
    assert abs(loss(logits, labels, 0.7) - sum(each) / 2) > 1e-4


def test_ignored_pixels_change_nothing_and_get_no_gradient() -> None:
    logits, labels = scene()
    changed = logits.clone()
    changed[:, :, 0] = 50 * torch.randn_like(changed[:, :, 0])
    changed.requires_grad_()
    value = tversky_loss(changed, labels, false_positive_weight=0.9, false_negative_weight=0.1)
    assert value.item() == loss(logits, labels, 0.9)
    assert value.item() == pytest.approx(loss(logits[:, :, 1:], labels[:, 1:], 0.9), rel=1e-6)
    value.backward()
    assert changed.grad is not None
    assert (changed.grad[:, :, 0] == 0).all()
    assert changed.grad[:, :, 1:].any()


def test_a_batch_without_labels_costs_nothing() -> None:
    logits, labels = scene()
    logits.requires_grad_()
    void = torch.full_like(labels, 255)
    value = tversky_loss(logits, void, false_positive_weight=0.7, false_negative_weight=0.3)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = scene()
    assert loss(logits.half(), labels, 0.7) == loss(logits.half().float(), labels, 0.7)


def test_huge_batches_do_not_overflow_half_precision() -> None:
    logits = torch.zeros(1, 2, 600, 600, dtype=torch.float16)
    labels = (torch.arange(600 * 600).view(1, 600, 600) % 4 == 3).long()
    assert loss(logits, labels, 0.7) == pytest.approx(0.4255206, abs=1e-6)
