from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from rtseg.losses.cross_entropy import cross_entropy, ohem_cross_entropy

ALL_PIXELS = functools.partial(ohem_cross_entropy, threshold=1.0, min_kept_fraction=0.0)
BOTH = pytest.mark.parametrize("loss", [cross_entropy, ohem_cross_entropy])


def scene(
    *, batch: int = 2, classes: int = 5, size: tuple[int, int] = (6, 7)
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator)
    labels = torch.randint(0, classes, (batch, *size), generator=generator)
    labels[:, 0] = 255
    return logits, labels, torch.rand(classes, generator=generator) + 0.5


def from_probabilities(probabilities: list[list[float]]) -> Tensor:
    """Turn one list of class probabilities per pixel into logits (1, K, 1, pixels)."""
    return torch.tensor(probabilities).log().T[None, :, None, :]


def test_four_pixels_are_worked_out_by_hand() -> None:
    logits = from_probabilities([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    labels = torch.tensor([[[0, 0, 255, 1]]])
    plain = -(math.log(0.8) + math.log(0.4) + math.log(0.9)) / 3
    assert cross_entropy(logits, labels).item() == pytest.approx(plain, rel=1e-6)
    weighted = -(2 * math.log(0.8) + 2 * math.log(0.4) + 5 * math.log(0.9)) / 9
    weight = torch.tensor([2.0, 5.0])
    assert cross_entropy(logits, labels, weight=weight).item() == pytest.approx(weighted, rel=1e-6)


def test_hardest_of_four_pixels_are_worked_out_by_hand() -> None:
    logits = from_probabilities([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    labels = torch.tensor([[[0, 0, 255, 1]]])
    weight = torch.tensor([2.0, 5.0])
    # q = 0.8, 0.4, 1 (no label), 0.9; only 0.4 is below 0.7.
    hard = ohem_cross_entropy(logits, labels, weight=weight)
    assert hard.item() == pytest.approx(-math.log(0.4), rel=1e-6)
    # Two of four must stay: the second smallest q is 0.8.
    two = ohem_cross_entropy(logits, labels, weight=weight, min_kept_fraction=0.5)
    assert two.item() == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2, rel=1e-6)
    # All four must stay, but only three have a label.
    every = ohem_cross_entropy(logits, labels, weight=weight, min_kept_fraction=1.0)
    assert every.item() == pytest.approx(cross_entropy(logits, labels, weight=weight).item())


def test_share_of_kept_pixels_is_rounded_down() -> None:
    logits = from_probabilities([[0.8, 0.2], [0.75, 0.25], [0.9, 0.1]])
    labels = torch.zeros(1, 1, 3, dtype=torch.int64)
    one = ohem_cross_entropy(logits, labels, threshold=0.1, min_kept_fraction=0.65)
    assert one.item() == pytest.approx(-math.log(0.75), rel=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_torch_loss_where_that_is_defined(weighted: bool) -> None:
    logits, labels, weight = scene()
    factors = weight if weighted else None
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=factors, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, labels, weight=factors), expected)
    torch.testing.assert_close(ALL_PIXELS(logits, labels, weight=factors), expected)


@BOTH
def test_batch_without_labels_gives_zero_and_finite_gradients(loss: object) -> None:
    assert callable(loss)
    logits, labels, weight = scene()
    logits.requires_grad_()
    value = loss(logits, torch.full_like(labels, 255), weight=weight)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@BOTH
def test_pixels_without_label_change_nothing(loss: object) -> None:
    assert callable(loss)
    logits, labels, weight = scene()
    changed = logits.clone()
    changed[:, :, 0] = 50 * torch.randn_like(changed[:, :, 0])
    changed.requires_grad_()
    value = loss(changed, labels, weight=weight)
    assert value.item() == loss(logits, labels, weight=weight).item()
    value.backward()
    assert changed.grad is not None
    assert (changed.grad[:, :, 0] == 0).all()
    assert changed.grad[:, :, 1:].any()


@BOTH
def test_half_precision_is_computed_in_float32(loss: object) -> None:
    assert callable(loss)
    logits, labels, weight = scene()
    half = logits.bfloat16()
    value = loss(half, labels, weight=weight)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(half.float(), labels, weight=weight))


@BOTH
def test_order_of_classes_does_not_matter(loss: object) -> None:
    assert callable(loss)
    logits, labels, weight = scene()
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = torch.where(labels == 255, 255, order.argsort()[labels.clamp(max=4)])
    expected = loss(logits, labels, weight=weight)
    torch.testing.assert_close(loss(logits[:, order], moved, weight=weight[order]), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.5])
def test_uniform_scores_cost_the_same_however_smooth_the_labels(smoothing: float) -> None:
    labels = torch.tensor([[[0, 1], [1, 255]]])
    loss = cross_entropy(torch.zeros(1, 2, 2, 2), labels, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_smoothed_labels_are_worked_out_by_hand() -> None:
    logits = from_probabilities([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    labels = torch.tensor([[[0, 1, 255]]])
    # With e = 0.1 the targets are 0.95 and 0.05.
    first = -0.95 * math.log(0.8) - 0.05 * math.log(0.2)
    second = -0.05 * math.log(0.4) - 0.95 * math.log(0.6)
    smooth = functools.partial(cross_entropy, label_smoothing=0.1)
    assert smooth(logits, labels).item() == pytest.approx((first + second) / 2, rel=1e-6)
    weighted = smooth(logits, labels, weight=torch.tensor([2.0, 5.0])).item()
    assert weighted == pytest.approx((2 * first + 5 * second) / 7, rel=1e-6)


def test_only_hard_pixels_have_gradients() -> None:
    logits = from_probabilities([[0.8, 0.2], [0.4, 0.6]]).requires_grad_()
    ohem_cross_entropy(logits, torch.zeros(1, 1, 2, dtype=torch.int64)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0, :, 0, 1], torch.tensor([-0.6, 0.6]))
    assert (logits.grad[0, :, 0, 0] == 0).all()


@pytest.mark.slow
@BOTH
def test_compiled_loss_equals_eager(loss: object) -> None:
    assert callable(loss)
    logits, labels, weight = scene()
    compiled = torch.compile(loss, fullgraph=True)
    torch.testing.assert_close(
        compiled(logits, labels, weight=weight), loss(logits, labels, weight=weight)
    )
