"""Panoptic segmentation: every pixel belongs to a surface or to one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.losses.mask_classification import ClassLoss
from rtseg.structures import (
    Batch,
    ClassInfo,
    ImageMeta,
    MaskOutput,
    MaskTarget,
    PanopticResult,
    Sample,
)
from rtseg.tasks.fit import to_source
from rtseg.tasks.mask_step import MaskStep, class_probabilities, mask_target
from rtseg.tasks.panoptic_merge import MergedMasks, merge_masks

if TYPE_CHECKING:
    from rtseg.metrics.panoptic import PanopticQuality


class PanopticTask:
    """Find all things and surfaces with a network that predicts masks.

    Source: Mask2Former, whose inference the paper of BiSeNetFormer follows.

    Args:
        classes: Classes by id; `thing` says which ones are countable.
        class_weights: Weight of each class in the class loss, or None for equal ones.
        class_loss, points, deep_supervision, ignore_void: see `MaskStep`.
        keep_empty_targets: Train segments too of which a crop shows nothing, as Mask2Former does.
        score_threshold: A query counts if the probability of its class is above it.
        overlap_threshold: A mask counts if it keeps at least this share of its area against the
            others.

    Raises:
        ConfigError: The weights do not fit the classes, or an option is out of range.
    """

    needs: tuple[str, ...] = ("panoptic",)
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
        keep_empty_targets: bool = False,
        score_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
    ) -> None:
        thresholds = {"score_threshold": score_threshold, "overlap_threshold": overlap_threshold}
        for name, value in thresholds.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"is {value}", where=f"task.{name}", fix="give a share, 0 to 1")
        self.classes = tuple(classes)
        self.step = MaskStep(
            len(self.classes),
            class_weights,
            class_loss=class_loss,
            points=points,
            deep_supervision=deep_supervision,
            ignore_void=ignore_void,
        )
        self.keep_empty_targets = keep_empty_targets
        self.score_threshold, self.overlap_threshold = score_threshold, overlap_threshold
        self.things = frozenset(index for index, item in enumerate(self.classes) if item.thing)

    def target(self, samples: Sequence[Sample]) -> MaskTarget:
        """Return one mask for each segment of an image; crowds are marked.

        Raises:
            DataError: A sample has no panoptic labels, or a segment of no class.
        """
        return mask_target(
            samples,
            kind="panoptic",
            num_classes=len(self.classes),
            keep_empty=self.keep_empty_targets,
        )

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms `class`, `mask` and `dice`.

        Raises:
            ConfigError: Network and task do not fit together.
        """
        return self.step(model, batch)

    def divisors(self, target: MaskTarget) -> dict[str, Tensor]:
        """Return by what the terms are divided; see `MaskStep.divisors`."""
        return self.step.divisors(target)

    def new_metric(self) -> PanopticQuality:
        """Return empty sums of panoptic quality."""
        from rtseg.metrics.panoptic import PanopticQuality

        return PanopticQuality(self.classes)

    def postprocess(
        self,
        output: MaskOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,  # noqa: ARG002 (every segment has its score)
    ) -> list[PanopticResult]:
        """Merge the masks of the queries that are sure of their class, at source size.

        Args:
            output: Class logits (B, N, K + 1) and mask logits (B, N, h, w).
            meta: One entry per image.
            confidence: Not used.
        """
        names = tuple(item.name for item in self.classes)
        palette = tuple(item.color for item in self.classes)
        results = []
        for logits, masks, item in zip(output.class_logits, output.mask_logits, meta, strict=True):
            merged = self._merge(logits, masks, item)
            results.append(
                PanopticResult(
                    merged.ids.cpu().numpy().astype(np.int32, copy=False),
                    merged.segments,
                    merged.scores,
                    names,
                    palette,
                    things=self.things,
                    source=item.path,
                )
            )
        return results

    def _merge(self, class_logits: Tensor, mask_logits: Tensor, meta: ImageMeta) -> MergedMasks:
        """Merge the masks of one image: class logits (N, K + 1), mask logits (N, h, w)."""
        class_loss = self.step.class_loss
        scores, labels = class_probabilities(class_logits, class_loss=class_loss).max(-1)
        sure = scores > self.score_threshold
        if class_loss == "ce":
            sure &= class_logits.argmax(-1) < len(self.classes)
        kept = sure.nonzero()[:, 0]
        # decision: one resize, straight to source pixels. Mask2Former resizes to the input size
        # first, which is the same where images are not resized.
        masks = (to_source(mask[None, None], meta)[0, 0].sigmoid() for mask in mask_logits[kept])
        return merge_masks(
            masks,
            scores=scores[kept],
            labels=labels[kept],
            size=meta.source_size,
            things=self.things,
            overlap_threshold=self.overlap_threshold,
        )
