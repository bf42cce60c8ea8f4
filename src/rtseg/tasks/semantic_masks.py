"""Semantic segmentation by mask classification: the classes of all masks, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rtseg.losses.mask_classification import ClassLoss
from rtseg.ops.resize import resize_argmax, resize_logits
from rtseg.structures import (
    Batch,
    ClassInfo,
    ClassMapOutput,
    ImageMeta,
    MaskOutput,
    MaskTarget,
    Sample,
    SemanticResult,
)
from rtseg.tasks.fit import padded_source_size, refuse_confidence, source_window, to_source
from rtseg.tasks.mask_step import MaskStep, class_probabilities, mask_target
from rtseg.tasks.semantic import class_map_results

if TYPE_CHECKING:
    from rtseg.metrics.confusion import SegmentationScores


def semantic_scores(output: MaskOutput, *, class_loss: ClassLoss = "ce") -> Tensor:
    """Add up the class probabilities of all queries, weighted with their masks.

    S[c] = sum over q of p(c | q) sigmoid(M_q). Resizing is linear, so resizing these K maps gives
    what resizing the N sigmoids first would.

    Returns:
        (B, K, h, w) float32, also under autocast; 0 or more, no distribution.
    """
    probabilities = class_probabilities(output.class_logits, class_loss=class_loss)
    masks = output.mask_logits.float().sigmoid()
    with torch.autocast(masks.device.type, enabled=False):
        scores = probabilities.transpose(1, 2) @ masks.flatten(2)
    return scores.view(*scores.shape[:2], *masks.shape[-2:])


class SemanticMasksTask:
    """Assign a class to every pixel with a network that predicts masks.

    Args:
        classes: Classes by id.
        class_weights: Weight of each class in the class loss, or None for equal ones.
        class_loss, points, deep_supervision, ignore_void: see `MaskStep`.
        sem_order: `sigmoid_first` adds up the masks at the network's resolution and resizes the
            classes, as the authors do; `resize_first` resizes the logits of every mask, as
            Mask2Former does: slower, and other by a hair.

    Raises:
        ConfigError: The weights do not fit the classes, or an option is out of range.
    """

    needs: tuple[str, ...] = ("semantic",)
    output_type: type = MaskOutput

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        class_weights: Sequence[float] | None = None,
        *,
        class_loss: ClassLoss = "ce",
        points: int = 12544,
        deep_supervision: bool = True,
        ignore_void: bool = False,
        sem_order: Literal["sigmoid_first", "resize_first"] = "sigmoid_first",
    ) -> None:
        self.classes = tuple(classes)
        self.step = MaskStep(
            len(self.classes),
            class_weights,
            class_loss=class_loss,
            points=points,
            deep_supervision=deep_supervision,
            ignore_void=ignore_void,
        )
        self.sem_order = sem_order

    def target(self, samples: Sequence[Sample]) -> MaskTarget:
        """Return one mask for each class that an image shows.

        Raises:
            DataError: A sample has no semantic labels, or a label that is no class.
        """
        return mask_target(samples, kind="semantic", num_classes=len(self.classes))

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms `class`, `mask` and `dice`.

        Raises:
            ConfigError: Network and task do not fit together.
        """
        return self.step(model, batch)

    def divisors(self, target: MaskTarget) -> dict[str, Tensor]:
        """Return by what the terms are divided; see `MaskStep.divisors`."""
        return self.step.divisors(target)

    def new_metric(self) -> SegmentationScores:
        """Return an empty confusion matrix with its scores."""
        from rtseg.metrics.confusion import SegmentationScores

        return SegmentationScores(len(self.classes), [item.name for item in self.classes])

    def postprocess(
        self,
        output: MaskOutput | ClassMapOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,
    ) -> list[SemanticResult]:
        """Add up the masks, bring the scores to source size, take the best class of each pixel.

        Args:
            output: Class logits (B, N, K + 1) and mask logits (B, N, h, w), or classes (B, h, w)
                that a file has chosen.
            meta: One entry per image.
            confidence: Also return the share of the chosen class in the scores of all.

        Raises:
            ConfigError: The confidence of chosen classes is asked for.
        """
        if isinstance(output, ClassMapOutput):
            refuse_confidence(asked=confidence)
            return class_map_results(output, meta, self.classes)
        names = tuple(item.name for item in self.classes)
        palette = tuple(item.color for item in self.classes)
        dtype = np.uint8 if len(names) <= 255 else np.uint16
        results = []
        for index, item in enumerate(meta):
            scores = self._scores(output, index, item)
            share = None
            size, window = padded_source_size(item), source_window(item)
            mask = resize_argmax(scores, size, window=window)[0]
            if confidence:
                full = to_source(scores, item)[0]
                best = full.amax(0) / full.sum(0).clamp(min=torch.finfo(full.dtype).tiny)
                share = best.cpu().numpy().astype(np.float16)
            array = np.ascontiguousarray(mask.cpu().numpy().astype(dtype, copy=False))
            results.append(SemanticResult(array, names, palette, item.path, confidence=share))
        return results

    def _scores(self, output: MaskOutput, index: int, meta: ImageMeta) -> Tensor:
        """Return the scores (1, K, h, w) of one image, at any resolution of the padded input."""
        one = slice(index, index + 1)
        single = MaskOutput(output.class_logits[one], output.mask_logits[one])
        if self.sem_order == "resize_first":
            masks = resize_logits(single.mask_logits, padded_source_size(meta))
            single = MaskOutput(single.class_logits, masks)
        return semantic_scores(single, class_loss=self.step.class_loss)
