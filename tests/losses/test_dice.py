from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtseg.losses.dice import dice_loss


def scene(*, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, classes, 5, 6, generator=generator)
    labels = torch.randint(0, classes, (3, 5, 6), generator=generator)
    labels[:, 0] = 255
    return logits, labels


def plain_dice(logits: Tensor, labels: Tensor, classes: list[int]) -> float:
    """Walk over classes and pixels one by one."""
    losses = []
    for k in classes:
        overlap = predicted = true = 0.0
        for b, row, column in torch.nonzero(labels != 255).tolist():
            p = logits[b, :, row, column].double().softmax(0)[k].item()
            y = float(labels[b, row, column] == k)
            overlap, predicted, true = overlap + p * y, predicted + p, true + y
        losses.append(1 - (2 * overlap + 1) / (predicted + true + 1))
    return sum(losses) / len(losses)


def test_four_pixels_are_worked_out_by_hand() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 255]]])
    # Each p is 1/2. Class 0: 1 - (2 * 1 + 1) / (1.5 + 2 + 1); class 1: 1 - (1 + 1) / (1.5 + 1 + 1).
    assert dice_loss(logits, labels).item() == pytest.approx((1 / 3 + 3 / 7) / 2, rel=1e-6)


def test_only_classes_that_occur_count_unless_all_are_asked_for() -> None:
    logits = torch.zeros(1, 4, 1, 2)
    labels = torch.tensor([[[2, 2]]])
    present = 1 - (2 * 0.5 + 1) / (0.5 + 2 + 1)
    absent = 1 - 1 / (0.5 + 1)
    assert dice_loss(logits, labels).item() == pytest.approx(present, rel=1e-6)
    every = dice_loss(logits, labels, all_classes=True).item()
    assert every == pytest.approx((present + 3 * absent) / 4, rel=1e-6)


@pytest.mark.parametrize("all_classes", [True, False])
def test_equals_a_walk_over_the_pixels(all_classes: bool) -> None:
    logits, labels = scene()
    labels[labels == 3] = 1
    classes = [0, 1, 2, 3] if all_classes else [0, 1, 2]
    expected = plain_dice(logits, labels, classes)
    assert dice_loss(logits, labels, all_classes=all_classes).item() == pytest.approx(expected)


def test_sums_run_over_the_whole_batch() -> None:
    logits, labels = scene()
    apart = [dice_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    joined = dice_loss(logits.transpose(0, 1).flatten(1)[None, ..., None], labels.view(1, -1, 1))
    together = dice_loss(logits, labels)
    torch.testing.assert_close(together, joined)
    assert abs(together - sum(apart) / 3) > 1e-3


def test_right_answers_cost_almost_nothing_and_wrong_ones_almost_everything() -> None:
    labels = torch.arange(2).repeat_interleave(500).view(1, 1, -1)
    right = 40 * torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    assert dice_loss(right, labels).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-right, labels).item() == pytest.approx(1 - 1 / 1001, abs=1e-6)


@pytest.mark.parametrize("all_classes", [True, False])
def test_batch_without_labels_gives_zero_and_finite_gradients(all_classes: bool) -> None:
    logits, labels = scene()
    logits.requires_grad_()
    loss = dice_loss(logits, torch.full_like(labels, 255), all_classes=all_classes)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_pixels_without_label_change_nothing() -> None:
    logits, labels = scene()
    changed = logits.clone()
    changed[:, :, 0] = 30 * torch.randn_like(changed[:, :, 0])
    changed.requires_grad_()
    loss = dice_loss(changed, labels)
    assert loss.item() == dice_loss(logits, labels).item()
    loss.backward()
    assert changed.grad is not None
    assert (changed.grad[:, :, 0] == 0).all()
    assert changed.grad[:, :, 1:].any()


def test_order_of_classes_does_not_matter() -> None:
    logits, labels = scene()
    order = torch.tensor([2, 0, 3, 1])
    moved = torch.where(labels == 255, 255, order.argsort()[labels.clamp(max=3)])
    torch.testing.assert_close(dice_loss(logits[:, order], moved), dice_loss(logits, labels))


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = scene()
    half = logits.bfloat16()
    assert dice_loss(half, labels).dtype == torch.float32
    assert torch.equal(dice_loss(half, labels), dice_loss(half.float(), labels))


def test_gradient_is_that_of_finite_differences() -> None:
    logits, labels = scene()
    logits = logits.requires_grad_()
    dice_loss(logits, labels).backward()
    assert logits.grad is not None
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = 1e-2
        ahead = dice_loss(logits + step * direction, labels)
        behind = dice_loss(logits - step * direction, labels)
    slope = (ahead - behind) / (2 * step)
    torch.testing.assert_close((logits.grad * direction).sum(), slope, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_compiled_loss_equals_eager() -> None:
    logits, labels = scene()
    compiled = torch.compile(dice_loss, fullgraph=True)
    torch.testing.assert_close(compiled(logits, labels), dice_loss(logits, labels))
