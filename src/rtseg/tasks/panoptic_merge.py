"""Turn overlapping masks into a map in which every pixel has at most one segment."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from rtseg.structures import Segment

INSIDE = 0.5
"""Share from which on a pixel belongs to a mask. Source: Mask2Former."""


class MergedMasks(NamedTuple):
    """`ids`: (H, W) int32, 0 = void. `segments`, `scores`: of the ids 1, 2, ..., in their order."""

    ids: Tensor
    segments: tuple[Segment, ...]
    scores: tuple[float, ...]


class _Owners(NamedTuple):
    """Which query each pixel belongs to.

    `codes`: (H, W) int16, twice the query, plus 1 where the pixel is inside of its mask. By query:
    `owned`, its pixels; `kept`, those inside; `covered`, all pixels inside of its mask.
    """

    codes: Tensor
    owned: list[int]
    kept: list[int]
    covered: list[int]


def merge_masks(
    masks: Iterable[Tensor],
    *,
    scores: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    things: Collection[int],
    overlap_threshold: float,
) -> MergedMasks:
    """Give each pixel to the mask with the highest score times share there, and number the rest.

    A mask that lost more than `1 - overlap_threshold` of its area to others is dropped; its pixels
    become void. Stuff of one class is one segment, with the best score of its masks.

    Source: Mask2Former, panoptic inference.

    Args:
        masks: M shares in [0, 1], each (H, W), read one after the other. decision: full-size maps
            of all queries never exist at once, so memory does not depend on M.
        scores: (M,), in [0, 1].
        labels: (M,), class ids.
        size: (H, W).
        things: Class ids of countable things, whose masks stay apart.
        overlap_threshold: In [0, 1].
    """
    owners = _find_owners(masks, scores, size)
    numbers = [0] * len(scores)
    stuff: dict[int, int] = {}
    segments: list[Segment] = []
    best: list[float] = []
    for query, (class_id, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        owned, covered = owners.owned[query], owners.covered[query]
        if not owners.kept[query] or owned < overlap_threshold * covered:
            continue
        if class_id in stuff:
            numbers[query] = stuff[class_id]
            best[numbers[query] - 1] = max(best[numbers[query] - 1], score)
            continue
        numbers[query] = len(segments) + 1
        segments.append(Segment(numbers[query], class_id))
        best.append(score)
        if class_id not in things:
            stuff[class_id] = numbers[query]
    table = [value for number in numbers for value in (0, number)] or [0]
    number_of = torch.tensor(table, dtype=torch.int32, device=scores.device)
    ids = number_of.index_select(0, owners.codes.flatten().int()).view(size)
    return MergedMasks(ids, tuple(segments), tuple(best))


def _find_owners(masks: Iterable[Tensor], scores: Tensor, size: tuple[int, int]) -> _Owners:
    best = torch.full(size, -1.0, device=scores.device)
    codes = torch.zeros(size, dtype=torch.int16, device=scores.device)
    covered = []
    for query, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        value, inside = mask * score, mask >= INSIDE
        codes = torch.where(value > best, inside.short() + 2 * query, codes)  # a tie: the first one
        torch.maximum(best, value, out=best)
        covered.append(int(inside.count_nonzero()))
    pixels = torch.bincount(codes.flatten(), minlength=2 * max(len(scores), 1)).view(-1, 2)
    return _Owners(codes, pixels.sum(1).tolist(), pixels[:, 1].tolist(), covered)
