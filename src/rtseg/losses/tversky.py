"""Tversky loss: one minus an overlap that weighs false positives and misses differently."""

from __future__ import annotations

import torch
from torch import Tensor

from rtseg.losses.batch import batch_sum
from rtseg.structures import IGNORE_INDEX


def tversky_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    false_positive_weight: float,
    false_negative_weight: float,
    gamma: float = 4 / 3,
) -> Tensor:
    """Average 1 - T over the classes and raise the mean to `gamma`.

    With p the softmax of the scores and sums over all labelled pixels of the batch (of all
    processes), the index of a class is T = TP / (TP + false_positive_weight FP +
    false_negative_weight FN), where TP sums p on the pixels of the class, FP sums p elsewhere and
    FN sums 1 - p on them. A class without a pixel in the batch adds 0, but still counts in the
    mean.

    Source: TwinMixing, section 3.4, and its released code for the exponent, which the paper does
    not have (`gamma=1` is its formula).

    Args:
        logits: (B, K, H, W), unbounded; half precision is computed in float32.
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        false_positive_weight: A large one asks for precision.
        false_negative_weight: A large one asks for recall.
        gamma: Exponent of the mean, at least 1.

    Returns:
        Scalar, float32.
    """
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = (labels.unsqueeze(1) == classes).float()  # (B, K, H, W)
    valid = (labels != IGNORE_INDEX).unsqueeze(1)
    share = torch.where(valid, logits.float().softmax(dim=1), 0.0)
    over_pixels = (0, 2, 3)
    hits, false_positives, misses, pixels = batch_sum(
        torch.stack(
            [
                (share * truth).sum(over_pixels),
                (share * (1 - truth)).sum(over_pixels),
                ((1 - share) * truth).sum(over_pixels),
                truth.sum(over_pixels),
            ]
        )
    )  # (K,) each
    whole = hits + false_positive_weight * false_positives + false_negative_weight * misses
    index = hits / whole.clamp(min=1e-7)
    return torch.where(pixels > 0, 1 - index, 0.0).mean() ** gamma
