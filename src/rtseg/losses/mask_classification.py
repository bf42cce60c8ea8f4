"""Losses of mask classification: match queries with targets, then score classes and masks.

Every query predicts one class distribution and one mask. Queries are matched with the labelled
masks of their image at least cost; those left over learn "no object". Masks are compared at random
points only. Everything is computed in float32, also under autocast.

Source: the paper of BiSeNetFormer, section 4.1 (weights); "Masked-attention Mask Transformer for
Universal Image Segmentation", section 3 (matching, points, supervision of every layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.losses.batch import batch_sum
from rtseg.losses.matching import match
from rtseg.losses.point_sample import sample_points, uncertain_points
from rtseg.structures import MaskOutput

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
"""Of the loss terms and, equally, of the matching costs. Source: the paper, section 4.1."""
NO_OBJECT_WEIGHT = 0.1
"""Weight of the class "no object". Source: Mask2Former."""
ClassLoss = Literal["ce", "bce"]


class Labelled(NamedTuple):
    """The labelled masks of a batch, image after image.

    labels: per image (T,) int64.
    masks: (sum of T, 1, H, W) float of 0 and 1.
    valid: (B, 1, H, W) float, 1 where points count and 0 where they are dropped; or None.
    """

    labels: tuple[Tensor, ...]
    masks: Tensor
    valid: Tensor | None = None


# ---------------------------------------------------------------- terms
def mask_bce(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average the sigmoid cross-entropy of each mask over its points.

    Args:
        logits: (M, P), unbounded.
        targets: (M, P) in [0, 1].
        valid: (M, P), factor of each point, or None for 1.

    Returns:
        (M,).
    """
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if valid is None:
        return loss.mean(1)
    return (loss * valid).sum(1) / valid.sum(1).clamp(min=1)


def mask_dice(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return 1 - (2 sum(p t) + 1) / (sum p + sum t + 1) of each mask, with p = sigmoid(logits).

    Args:
        logits: (M, P), unbounded.
        targets: (M, P) in [0, 1].
        valid: (M, P), factor of each point, or None for 1.

    Returns:
        (M,).
    """
    share = logits.sigmoid()
    if valid is not None:
        share, targets = share * valid, targets * valid
    return 1 - (2 * (share * targets).sum(1) + 1) / (share.sum(1) + targets.sum(1) + 1)


def class_cross_entropy(class_logits: Tensor, assigned: Tensor, weight: Tensor) -> Tensor:
    """Return sum(w * ce) / sum(w) over all queries of the batch, w that of the assigned class.

    Args:
        class_logits: (B, N, K + 1).
        assigned: (B, N) int64 in 0..K; K is "no object".
        weight: (K + 1,).
    """
    flat = assigned.flatten()
    loss = F.cross_entropy(class_logits.flatten(0, 1), flat, weight, reduction="sum")
    loss, total = batch_sum(torch.stack([loss, weight[flat].sum()]))
    mean: Tensor = loss / total
    return mean


def class_binary_cross_entropy(
    class_logits: Tensor, assigned: Tensor, weight: Tensor, num_masks: Tensor
) -> Tensor:
    """Sum the sigmoid cross-entropy over queries and the K real classes, per mask of the batch.

    Args: as `class_cross_entropy`; the logit of "no object" is not used.
        num_masks: Divisor.
    """
    wanted = F.one_hot(assigned, class_logits.shape[-1])[..., :-1].float()
    loss = F.binary_cross_entropy_with_logits(class_logits[..., :-1], wanted, reduction="none")
    return batch_sum((loss * weight[:-1]).sum()) / num_masks


# ---------------------------------------------------------------- matching
def matching_cost(
    class_logits: Tensor,
    labels: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    valid: Tensor | None = None,
    class_loss: ClassLoss = "ce",
) -> Tensor:
    """Cost of giving each target to each query: 5 BCE + 5 Dice - 2 p(class).

    Args:
        class_logits: (N, K + 1).
        labels: (T,) int64.
        logits: Mask logits at points (N, P).
        targets: Target masks at the same points (T, P), in [0, 1].
        valid: (P,), factor of each point, or None for 1.
        class_loss: `ce`: p is a softmax over K + 1; `bce`: a sigmoid.

    Returns:
        (N, T).
    """
    scores = class_logits.softmax(-1) if class_loss == "ce" else class_logits.sigmoid()
    share = logits.sigmoid()
    count: Tensor | float = float(logits.shape[1])
    negative = F.softplus(logits)  # the cross-entropy where the target is 0; minus l where it is 1
    if valid is not None:
        targets, negative, share = targets * valid, negative * valid, share * valid
        count = valid.sum().clamp(min=1)
    bce = (negative.sum(1, keepdim=True) - logits @ targets.T) / count
    overlap = 2 * share @ targets.T + 1
    dice = 1 - overlap / (share.sum(1, keepdim=True) + targets.sum(1) + 1)
    return MASK_WEIGHT * bce + DICE_WEIGHT * dice - CLASS_WEIGHT * scores[:, labels]


@torch.no_grad()
def match_images(
    output: MaskOutput, labelled: Labelled, *, points: int, class_loss: ClassLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """Match the queries of every image with its labelled masks.

    Each image draws its own points, shared by all its masks.

    Args:
        output: `class_logits` (B, N, K + 1) and `mask_logits` (B, N, h, w), float32.
        labelled: What is searched.
        points: Points per image.
        class_loss: As in `matching_cost`.

    Returns:
        Image, query, and number of the mask in `labelled.masks` of every pair, each (M,) int64;
        the last one rises.
    """
    images, queries, numbers = [], [], []
    start = 0
    for image, labels in enumerate(labelled.labels):
        masks = labelled.masks[start : start + len(labels), 0][None]  # (1, T, H, W)
        where = torch.rand(1, points, 2, device=masks.device)
        logits = sample_points(output.mask_logits[image][None], where)[0]
        targets = sample_points(masks, where)[0] if len(labels) else logits[:0]
        valid = None
        if labelled.valid is not None:
            valid = sample_valid(labelled.valid[image][None], where)[0]
        cost = matching_cost(
            output.class_logits[image], labels, logits, targets, valid=valid, class_loss=class_loss
        )
        query, target = match(cost)
        images.append(torch.full_like(query, image))
        queries.append(query)
        numbers.append(target + start)
        start += len(labels)
    return torch.cat(images), torch.cat(queries), torch.cat(numbers)


def sample_valid(valid: Tensor, points: Tensor) -> Tensor:
    """Return 1 for points (B, P, 2) whose pixel of `valid` (B, 1, H, W) is 1, else 0: (B, P)."""
    grid = 2 * points[:, :, None] - 1
    nearest = F.grid_sample(valid, grid, mode="nearest", padding_mode="border", align_corners=False)
    return nearest[:, 0, :, 0]


# ---------------------------------------------------------------- all together
def mask_classification_losses(
    output: MaskOutput,
    labelled: Labelled,
    *,
    weight: Tensor,
    points: int = 12544,
    class_loss: ClassLoss = "ce",
    deep_supervision: bool = True,
) -> dict[str, Tensor]:
    """Score the predictions against the labelled masks.

    Args:
        output: A network's output in training, with the predictions of earlier layers in `aux`.
        labelled: The labelled masks of the batch, at any resolution.
        weight: Of every class and of "no object" (K + 1,).
        points: Points per mask.
        class_loss: Softmax cross-entropy over K + 1 classes, or sigmoid over K.
        deep_supervision: Score the predictions in `aux` too, each matched on its own.

    Returns:
        Weighted terms `class`, `mask` and `dice`, scalars, summed over the predictions. They are
        those of the whole batch, also where several processes share it.
    """
    predictions = (*output.aux, output) if deep_supervision else (output,)
    count = torch.tensor(float(len(labelled.masks)), device=labelled.masks.device)
    num_masks = batch_sum(count).clamp(min=1)
    totals: dict[str, Tensor] = {}
    with torch.autocast(labelled.masks.device.type, enabled=False):
        for item in predictions:
            single = MaskOutput(item.class_logits.float(), item.mask_logits.float())
            terms = _losses_of_one(
                single, labelled, num_masks, weight=weight, points=points, class_loss=class_loss
            )
            for name, value in terms.items():
                totals[name] = totals[name] + value if name in totals else value
    return totals


def _losses_of_one(
    output: MaskOutput,
    labelled: Labelled,
    num_masks: Tensor,
    *,
    weight: Tensor,
    points: int,
    class_loss: ClassLoss,
) -> dict[str, Tensor]:
    """Return the weighted terms of one prediction."""
    image, query, number = match_images(output, labelled, points=points, class_loss=class_loss)
    batch, queries, outputs = output.class_logits.shape
    assigned = torch.full((batch, queries), outputs - 1, device=image.device)
    every_label = torch.cat(labelled.labels)
    assigned[image, query] = every_label[number]
    logits = output.mask_logits[image, query][:, None]  # (M, 1, h, w)
    everything = len(number) == len(labelled.masks)  # else an image has more masks than queries
    masks = labelled.masks if everything else labelled.masks[number]
    where = uncertain_points(logits.detach(), points)
    valid = None
    if labelled.valid is not None:
        valid = sample_valid(labelled.valid[image], where)
    at_points = sample_points(logits, where)[:, 0]
    targets = sample_points(masks, where)[:, 0]
    if class_loss == "ce":
        classes = class_cross_entropy(output.class_logits, assigned, weight)
    else:
        classes = class_binary_cross_entropy(output.class_logits, assigned, weight, num_masks)
    costs = [item(at_points, targets, valid).sum() for item in (mask_bce, mask_dice)]
    bce, dice = batch_sum(torch.stack(costs)) / num_masks
    return {"class": CLASS_WEIGHT * classes, "mask": MASK_WEIGHT * bce, "dice": DICE_WEIGHT * dice}


def collect(
    labels: Sequence[Tensor], masks: Sequence[Tensor], *, valid: Tensor | None = None
) -> Labelled:
    """Put the masks of all images behind each other, as floats.

    Args:
        labels: Per image (T,) int64.
        masks: Per image (T, H, W) bool.
        valid: (B, H, W) bool, where points count, or None for everywhere.
    """
    every = torch.cat(tuple(masks))[:, None].float()
    return Labelled(tuple(labels), every, None if valid is None else valid[:, None].float())
