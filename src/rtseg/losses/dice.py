"""Dice loss: how badly predicted and labelled regions overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from rtseg.losses.batch import batch_sum
from rtseg.structures import IGNORE_INDEX


def dice_loss(logits: Tensor, labels: Tensor, *, all_classes: bool = False) -> Tensor:
    """Average 1 - Dice over the classes, with probabilities in place of decisions.

    With p the softmax of a class, y = 1 at its labelled pixels and 0 at others, and sums over the
    labelled pixels of the whole batch (of all processes), the loss of a class is
    1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1). It is 0, with finite gradients, when no pixel is
    labelled.

    decision: the ones in the ratio keep it defined for a class that nobody sees; the mean is over
    classes that occur, since of an absent one only the absence could be learnt.

    Args:
        logits: (B, K, H, W), unbounded; half precision is computed in float32.
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        all_classes: Average over all K classes instead of those that occur in `labels`.

    Returns:
        Scalar in [0, 1), float32.

    Source: BiSegUNet, eq. 19.
    """
    labelled = (labels != IGNORE_INDEX)[:, None]
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    truth = labels[:, None] == classes  # (B, K, H, W)
    probability = logits.float().softmax(dim=1) * labelled
    over_pixels = (0, 2, 3)
    overlap, share, pixels = batch_sum(
        torch.stack(
            [
                (probability * truth).sum(over_pixels),
                probability.sum(over_pixels),
                truth.sum(over_pixels).float(),
            ]
        )
    )  # (K,) each
    loss = 1 - (2 * overlap + 1) / (share + pixels + 1)
    counted = torch.ones_like(pixels) if all_classes else (pixels > 0).to(pixels.dtype)
    mean: Tensor = (loss * counted).sum() / counted.sum().clamp(min=1)
    return mean
