"""Focal loss over pixels, one class against the rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.losses.batch import batch_sum
from rtseg.structures import IGNORE_INDEX


def focal_loss(
    logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum over the classes the mean focal loss of telling each from the rest by a sigmoid.

    With z the score of a class, t 1 on its pixels and 0 elsewhere, b the binary cross-entropy of
    (z, t) and p = exp(-b) the probability given to t, a pixel costs
    (alpha t + (1 - alpha) (1 - t)) (1 - p)^gamma b. The mean is over the labelled pixels of the
    batch, over all processes; without any the loss is 0, with finite gradients.

    Source: TwinMixing's released code, which sums over background and foreground instead of
    averaging them and gives alpha to each class in turn. The loss is that of "Focal Loss for Dense
    Object Detection".

    Args:
        logits: (B, K, H, W), unbounded; half precision is computed in float32.
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        alpha: Weight, in [0, 1], of the pixels of a class; 1 - alpha of all others.
        gamma: How strongly easy pixels are played down.

    Returns:
        Scalar, float32.
    """
    logits = logits.float()
    valid = (labels != IGNORE_INDEX).unsqueeze(1)
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    positive = (labels.unsqueeze(1) == classes).float()  # (B, K, H, W)
    bce = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    cost = weight * (1 - torch.exp(-bce)) ** gamma * bce
    total = torch.where(valid, cost, 0.0).sum()
    total, pixels = batch_sum(torch.stack([total, valid.sum().float()]))
    loss: Tensor = total / pixels.clamp(min=1)
    return loss
