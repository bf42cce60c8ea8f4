"""The focal loss against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rtseg.losses.focal import focal_loss

FOUR_SCORES = torch.tensor([2.0, 2.0, -1.0, -1.0])
FOUR_LABELS = torch.tensor([[[0, 0, 0, 1]]])


def two_channels(first: Tensor) -> Tensor:
    """Return logits (1, 2, 1, N): a score and its opposite."""
    return torch.stack([first, -first])[None, :, None, :]


def scene(*, classes: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, classes, 6, 7, generator=generator)
    labels = torch.randint(0, classes, (2, 6, 7), generator=generator)
    labels[:, 0] = 255
    return logits, labels


@pytest.mark.parametrize("foreground", [0, 1, 5, 12])
def test_scores_of_zero_cost_a_quarter_of_ln_2_for_any_labels(foreground: int) -> None:
    labels = (torch.arange(12).view(1, 3, 4) < foreground).long()
    loss = focal_loss(torch.zeros(1, 2, 3, 4), labels)
    assert loss.item() == pytest.approx(math.log(2) / 4, rel=1e-6)


def test_four_pixels_are_worked_out_by_hand() -> None:
    assert focal_loss(two_channels(FOUR_SCORES), FOUR_LABELS).item() == pytest.approx(
        0.1820334, abs=2e-7
    )


def test_sure_and_right_scores_cost_nothing() -> None:
    right = torch.where(FOUR_LABELS[0, 0] == 0, 20.0, -20.0)
    assert focal_loss(two_channels(right), FOUR_LABELS).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.0), (0.25, 0.0)])
def test_equals_the_plain_formula(alpha: float, gamma: float) -> None:
    logits, labels = scene(classes=3)
    total, count = 0.0, 0
    for image, row, column in torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist():
        label = int(labels[image, row, column])
        if label == 255:
            continue
        count += 1
        for index in range(3):
            z = float(logits[image, index, row, column])
            p = 1 / (1 + math.exp(-z)) if label == index else 1 / (1 + math.exp(z))
            factor = alpha if label == index else 1 - alpha
            total += factor * (1 - p) ** gamma * -math.log(p)
    loss = focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_ignored_pixels_change_nothing_and_get_no_gradient() -> None:
    logits, labels = scene()
    changed = logits.clone()
    changed[:, :, 0] = 50 * torch.randn_like(changed[:, :, 0])
    changed.requires_grad_()
    value = focal_loss(changed, labels)
    assert value.item() == focal_loss(logits, labels).item()
    assert value.item() == pytest.approx(focal_loss(logits[:, :, 1:], labels[:, 1:]).item())
    value.backward()
    assert changed.grad is not None
    assert (changed.grad[:, :, 0] == 0).all()
    assert changed.grad[:, :, 1:].all()


def test_a_batch_without_labels_costs_nothing() -> None:
    logits, labels = scene()
    logits.requires_grad_()
    value = focal_loss(logits, torch.full_like(labels, 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = scene()
    half = logits.bfloat16()
    value = focal_loss(half, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, focal_loss(half.float(), labels))


def test_the_defaults_are_the_published_ones() -> None:
    logits, labels = scene(classes=3)  # opposite scores of two classes would not tell the alphas
    value = focal_loss(logits, labels)
    assert value.item() == focal_loss(logits, labels, alpha=0.25, gamma=2.0).item()
    assert value.item() != pytest.approx(focal_loss(logits, labels, alpha=0.75).item(), rel=0.1)
