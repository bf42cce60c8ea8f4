"""What networks return: one tuple per kind of output, the same fields in training and evaluation.

K is the number of classes, N of queries; (h, w) is the network's own resolution.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SemanticOutput(NamedTuple):
    """Per-pixel class scores.

    `logits`: (B, K, h, w), unbounded, at the model's own resolution.
    `aux`: tuple of (B, K, h', w'); empty in evaluation.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


class RoadLaneOutput(NamedTuple):
    """Scores of two binary maps; channel 0 is background, channel 1 the area.

    `drivable`, `lane`: (B, 2, h, w), unbounded; None where a single-task model has no such head.
    """

    drivable: Tensor | None
    lane: Tensor | None


class MaskOutput(NamedTuple):
    """N pairs of a class distribution and a binary mask.

    `class_logits`: (B, N, K + 1), unbounded; index K is "no object".
    `mask_logits`: (B, N, h, w), unbounded.
    `aux`: earlier predictions of the decoder, in order; empty in evaluation.
    """

    class_logits: Tensor
    mask_logits: Tensor
    aux: tuple[MaskOutput, ...] = ()


class ClassificationOutput(NamedTuple):
    """Scores of whole images. `logits`: (B, K), unbounded."""

    logits: Tensor


class ClassMapOutput(NamedTuple):
    """The chosen class of every pixel, from an exported file that chooses itself.

    `classes`: (B, H, W) uint8, at the size of the network's input.
    """

    classes: Tensor


class RoadLaneMapOutput(NamedTuple):
    """Two binary maps, from an exported file that chooses itself.

    `drivable`, `lane`: (B, H, W) uint8, 0 or 1, at the size of the network's input; None where a
    single-task model has no such head.
    """

    drivable: Tensor | None
    lane: Tensor | None
