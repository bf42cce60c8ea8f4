"""Distillation losses against values worked out by hand and slow versions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rtseg.losses.cross_entropy import cross_entropy
from rtseg.losses.distillation import (
    channel_wise_distillation,
    match_statistics,
    ofa_distillation,
)

LN2, LN3 = math.log(2), math.log(3)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def one_channel(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def one_pixel(*logits: float) -> Tensor:
    return torch.tensor(logits).view(1, -1, 1, 1)


# ---------------------------------------------------------------- channel-wise distillation
@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([0.0, 0.0], [4.0, 0.0], 1.775106),
        ([4.0, 0.0], [0.0, 0.0], 1.921831),
        ([0.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0], 1.887887),
        ([1.0, -2.0], [1.0, -2.0], 0.0),
    ],
)
def test_channels_of_few_pixels_are_worked_out_by_hand(
    student: list[float], teacher: list[float], expected: float
) -> None:
    loss = channel_wise_distillation(one_channel(*student), one_channel(*teacher))
    assert loss.item() == pytest.approx(expected, abs=2e-6)


def test_channel_wise_loss_equals_a_slow_version() -> None:
    student, teacher = torch.randn(3, 2, 4, 5), 3 * torch.randn(3, 2, 4, 5)
    total = 0.0
    for image in range(3):
        for channel in range(2):
            s, t = ((x[image, channel] / 2).flatten().double() for x in (student, teacher))
            s, t = s.exp() / s.exp().sum(), t.exp() / t.exp().sum()
            total += float((t * (t / s).log()).sum())
    loss = channel_wise_distillation(student, teacher, temperature=2.0)
    assert loss.item() == pytest.approx(4 * total / 6, rel=1e-5)


def test_a_constant_added_to_a_channel_changes_nothing() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    loss = channel_wise_distillation(student, teacher)
    shift = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(channel_wise_distillation(student + shift, teacher), loss)
    torch.testing.assert_close(channel_wise_distillation(student, teacher + shift), loss)


# ---------------------------------------------------------------- logits: OFA
@pytest.mark.parametrize(
    ("label", "theta", "power", "expected"),
    [
        (0, 1.5, False, 0.807853),
        (1, 1.5, False, 0.740844),
        (0, 1.0, False, 0.578752),
        (1, 1.0, False, 0.578752),
        (0, 1.5, True, 0.670526),
        (1, 1.5, True, 0.700102),
    ],
)
def test_a_pixel_of_two_classes_is_worked_out_by_hand(
    label: int, theta: float, power: bool, expected: float
) -> None:
    student, teacher = one_pixel(LN2, 0.0), one_pixel(LN3, 0.0)
    labels = torch.tensor([[[label]]])
    loss = ofa_distillation(student, teacher, labels, theta=theta, nontarget_power=power)
    assert loss.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("label", "expected"), [(0, 1.213318), (1, 1.839456)])
def test_with_cross_entropy_it_is_the_published_equation(label: int, expected: float) -> None:
    student, teacher = one_pixel(LN2, 0.0), one_pixel(LN3, 0.0)
    labels = torch.tensor([[[label]]])
    total = ofa_distillation(student, teacher, labels) + cross_entropy(student, labels)
    assert total.item() == pytest.approx(expected, abs=2e-6)


def test_theta_two_adds_the_published_terms() -> None:
    student, teacher = one_pixel(0.3, -0.8, 0.1), one_pixel(1.0, 0.2, -0.5)
    labels = torch.tensor([[[1]]])
    one, two = (ofa_distillation(student, teacher, labels, theta=theta) for theta in (1.0, 2.0))
    log_p, q = student.log_softmax(1)[0, 1, 0, 0], teacher.softmax(1)[0, 1, 0, 0]
    torch.testing.assert_close(two - one, -(q**2) * log_p - q * log_p)


def test_ofa_equals_a_slow_version_over_labelled_pixels() -> None:
    student, teacher = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, 0] = 255
    losses = []
    for b, y, x in (labels != 255).nonzero().tolist():
        p, q = ((z[b, :, y, x] / 2).softmax(0) for z in (student, teacher))
        true = int(labels[b, y, x])
        loss = -((1 + q[true]) ** 1.3 - 1) * p[true].log()
        for c in range(4):
            if c != true:
                loss -= q[c] * p[c].log()
        losses.append(loss)
    assert len(losses) == 25
    got = ofa_distillation(student, teacher, labels, theta=1.3, temperature=2.0)
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_unlabelled_pixels_contribute_nothing() -> None:
    student, teacher = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 4)
    labels = torch.randint(0, 3, (1, 2, 4))
    labels[:, 0] = 255
    changed = student.clone()
    changed[:, :, 0] = 30 * torch.randn(1, 3, 4)
    changed.requires_grad_()
    loss = ofa_distillation(changed, teacher, labels)
    torch.testing.assert_close(loss, ofa_distillation(student, teacher, labels))
    loss.backward()
    assert changed.grad is not None
    assert (changed.grad[:, :, 0] == 0).all()
    assert changed.grad[:, :, 1].any()


def test_a_batch_without_labels_gives_zero_and_a_finite_gradient() -> None:
    student = torch.randn(1, 3, 2, 4, requires_grad=True)
    labels = torch.full((1, 2, 4), 255)
    loss = ofa_distillation(student, torch.randn(1, 3, 2, 4), labels)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


# ---------------------------------------------------------------- statistics
def test_matched_channels_have_the_statistics_of_the_teacher() -> None:
    student = 5 * torch.randn(3, 4, 6, 7) + 2
    teacher = torch.randn(3, 4, 5, 3) * torch.tensor([0.5, 1.0, 2.0, 3.0]).view(4, 1, 1) - 1
    matched = match_statistics(student, teacher)
    for channel in range(4):
        got, wanted = matched[:, channel], teacher[:, channel]
        assert got.mean().item() == pytest.approx(wanted.mean().item(), abs=1e-5)
        assert got.std().item() == pytest.approx(wanted.std().item(), abs=1e-5)


def test_deviations_are_unbiased_and_eps_is_added_to_the_students() -> None:
    matched = match_statistics(one_channel(0.0, 2.0), one_channel(0.0, 3.0, 6.0), eps=0.5)
    std = math.sqrt(2) + 0.5
    expected = one_channel(3 - 3 / std, 3 + 3 / std)
    torch.testing.assert_close(matched, expected)


def test_affine_changes_of_the_student_change_nothing() -> None:
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    factor = torch.tensor([0.5, 2.0, 7.0]).view(3, 1, 1)
    changed = match_statistics(student * factor - 3, teacher)
    torch.testing.assert_close(changed, match_statistics(student, teacher), rtol=0, atol=1e-4)


def test_gradients_flow_through_the_statistics_of_the_student() -> None:
    student = torch.randn(2, 3, 4, 5, requires_grad=True)
    matched = match_statistics(student, torch.randn(2, 3, 4, 5))
    matched.sum().backward()
    # Whatever the student is, the sum is that of the teacher.
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-4


# ---------------------------------------------------------------- all of them
def ofa(student: Tensor, teacher: Tensor) -> Tensor:
    return ofa_distillation(student, teacher, torch.zeros(2, 4, 5, dtype=torch.int64))


@pytest.mark.parametrize("loss", [channel_wise_distillation, ofa, match_statistics])
def test_only_the_student_gets_a_gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    loss(student, teacher).square().sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.any()


@pytest.mark.parametrize("loss", [channel_wise_distillation, ofa, match_statistics])
def test_half_precision_is_computed_in_float32(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (torch.randn(2, 3, 4, 5).bfloat16() for _ in range(2))
    result = loss(student, teacher)
    assert result.dtype == torch.float32
    assert torch.equal(result, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", [channel_wise_distillation, ofa])
def test_shapes_that_differ_are_refused(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="project and resize the student first"):
        loss(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5))
