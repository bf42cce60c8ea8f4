"""Cross-entropy over pixels: class-weighted, and on the hardest pixels only.

Sums are over the whole batch, also where several processes share it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.losses.batch import batch_gather, batch_sum, processes
from rtseg.structures import IGNORE_INDEX


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Average the class-weighted negative log-likelihood over the labelled pixels.

    With y the label of a pixel, the loss is sum(weight[y] * -log p[y]) / sum(weight[y]). It is 0,
    with finite gradients, when no pixel is labelled.

    Args:
        logits: (B, K, H, W), unbounded; half precision is computed in float32.
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        weight: (K,), one positive factor per class; none means equal factors.
        label_smoothing: Share e of the target, in [0, 1), that is spread evenly: -log p[y] becomes
            (1 - e) * -log p[y] + e / K * sum(-log p). Source: BiSegUNet, eq. 26.

    Returns:
        Scalar, float32.
    """
    nll = _negative_log_likelihood(logits, labels, label_smoothing=label_smoothing)
    return _weighted_mean(nll, pixel_weights(labels, weight))


def ohem_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    threshold: float = 0.7,
    min_kept_fraction: float = 1 / 16,
) -> Tensor:
    """Average as `cross_entropy` does, over the pixels that the network finds hardest.

    A labelled pixel is kept when the probability q of its class is at most `threshold`, or at most
    the K-th smallest q of the batch, where K = floor(min_kept_fraction * B * H * W) and unlabelled
    pixels count as q = 1. Fewer labelled pixels than K are all kept. The choice has no gradient.

    Args:
        logits: (B, K, H, W), unbounded; half precision is computed in float32.
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        weight: (K,), one positive factor per class; none means equal factors.
        threshold: Probability in [0, 1] up to which a pixel is hard.
        min_kept_fraction: Share of all pixels, in [0, 1], to keep at least.

    Returns:
        Scalar, float32.
    """
    nll = _negative_log_likelihood(logits, labels)
    with torch.no_grad():
        probability = torch.exp(-nll)
        limit = probability.new_tensor(threshold)
        kept = int(min_kept_fraction * nll.numel() * processes())
        if kept:
            everywhere = batch_gather(probability.flatten())
            limit = torch.maximum(limit, everywhere.kthvalue(kept).values)
        factors = pixel_weights(labels, weight) * (probability <= limit)
    return _weighted_mean(nll, factors)


def _negative_log_likelihood(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return -log p of the label (B, H, W), 0 where there is none."""
    return F.cross_entropy(
        logits.float(),
        labels,
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=label_smoothing,
    )


def pixel_weights(labels: Tensor, weight: Tensor | None) -> Tensor:
    """Return the factor of every pixel (B, H, W), float32, 0 where there is no label.

    `cross_entropy` divides by their sum.

    Args:
        labels: (B, H, W) int64, class ids and `IGNORE_INDEX`.
        weight: (K,), one positive factor per class; none means equal factors.
    """
    labelled = labels != IGNORE_INDEX
    if weight is None:
        return labelled.float()
    return weight.float()[torch.where(labelled, labels, 0)] * labelled


def _weighted_mean(values: Tensor, factors: Tensor) -> Tensor:
    """Return sum(values * factors) / sum(factors), 0 if all factors are 0."""
    cost, total = batch_sum(torch.stack([(values * factors).sum(), factors.sum()]))
    mean: Tensor = cost / torch.where(total > 0, total, 1.0)
    return mean
