"""Losses that pull a student network towards a teacher; no gradient reaches the teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.losses.batch import batch_sum, processes
from rtseg.structures import IGNORE_INDEX


def match_statistics(student: Tensor, teacher: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Give each channel of the student the mean and the deviation that the teacher's has.

    Both are taken over the whole batch and space, the deviation without bias; gradients flow
    through those of the student.

    Args:
        student: (B, C, H, W).
        teacher: (B, C, h, w); its size may be another one.
        eps: Added to the student's deviation.

    Returns:
        (B, C, H, W), float32.

    Source: BSDNet, section 3.3 (in words); the form is that of SCTNet's public code.
    """
    student, teacher = student.float(), teacher.detach().float()
    std, mean = _std_mean(student)
    wanted_std, wanted_mean = _std_mean(teacher)
    return (student - mean) / (std + eps) * wanted_std + wanted_mean


def _std_mean(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return deviation and mean (1, C, 1, 1) over the whole batch; no gradient where all agree."""
    over, values = (0, 2, 3), processes() * maps[:, 0].numel()
    mean = batch_sum(maps.sum(over, keepdim=True)) / values
    squares = batch_sum((maps - mean).square().sum(over, keepdim=True))
    variance = (squares / (values - 1)).clamp(min=torch.finfo(torch.float32).tiny)
    return variance.sqrt(), mean


def channel_wise_distillation(
    student: Tensor, teacher: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Compare where each channel is active: divergence of distributions over space.

    With phi the softmax of a channel over its pixels at temperature tau, the loss is
    tau^2 / (B C) * sum over images and channels of KL(phi(teacher) || phi(student)).

    Args:
        student: (B, C, H, W), features or scores.
        teacher: (B, C, H, W).
        temperature: Of both softmaxes; higher ones let weaker pixels count.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: The shapes differ.

    Source: BSDNet, eqs. 4 and 5; "Channel-wise Knowledge Distillation for Dense Prediction".
    """
    _check_shapes(student, teacher)
    log_student = (student.float().flatten(2) / temperature).log_softmax(dim=2)
    log_teacher = (teacher.detach().float().flatten(2) / temperature).log_softmax(dim=2)
    divergence = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return temperature**2 * divergence / (student.shape[0] * student.shape[1])


def ofa_distillation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    theta: float = 1.5,
    temperature: float = 1.0,
    nontarget_power: bool = False,
) -> Tensor:
    """Learn the teacher's class probabilities, the more so where it is sure of the true class.

    With p and q the softmax of student and teacher at a pixel of class y, its loss is
    -((1 + q[y])^theta - 1) log p[y] - sum over c != y of q[c] log p[c], averaged over the labelled
    pixels. The cross-entropy -log p[y] that eq. 7 contains as well is left out: a task adds it
    already. 0, with finite gradients, when no pixel is labelled.

    Args:
        student: Logits (B, K, H, W).
        teacher: Logits (B, K, H, W).
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        theta: Exponent of the term of the true class; 1 is the plain soft cross-entropy.
        temperature: Of both softmaxes.
        nontarget_power: Raise the teacher's other probabilities to `theta` too, as the public code
            of OFA-KD does; the paper does not.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: The shapes differ.

    Source: BSDNet, eqs. 6 and 7 (which calls the true class the predicted one, and the other way
    round); "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
    Distillation".
    """
    _check_shapes(student, teacher)
    log_p = (student.float() / temperature).log_softmax(dim=1)
    q = (teacher.detach().float() / temperature).softmax(dim=1)
    labelled = labels != IGNORE_INDEX
    target = torch.where(labelled, labels, 0)[:, None]
    q_target, log_p_target = q.gather(1, target), log_p.gather(1, target)
    others = q**theta if nontarget_power else q
    soft = (others * log_p).sum(dim=1, keepdim=True) - others.gather(1, target) * log_p_target
    loss = -((1 + q_target) ** theta - 1) * log_p_target - soft
    total, pixels = batch_sum(torch.stack([(loss[:, 0] * labelled).sum(), labelled.sum().float()]))
    mean: Tensor = total / pixels.clamp(min=1)
    return mean


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in shape; "
            "project and resize the student first"
        )
