"""Instance segmentation: things, each with its own mask and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.errors import ConfigError
from rtseg.losses.mask_classification import ClassLoss
from rtseg.structures import (
    Batch,
    ClassInfo,
    ImageMeta,
    InstanceResult,
    MaskOutput,
    MaskTarget,
    Sample,
)
from rtseg.tasks.fit import to_source
from rtseg.tasks.mask_step import MaskStep, class_probabilities, mask_target

if TYPE_CHECKING:
    from rtseg.metrics.instance import InstancePrecision


class InstanceTask:
    """Find all things with a network that predicts masks.

    Classes that are no things keep their outputs, so that a network trained for panoptic
    segmentation can be read as well; they are neither targets nor results.

    Source: Mask2Former, whose inference the paper of BiSeNetFormer follows.

    Args:
        classes: Classes by id; `thing` says which ones are countable.
        class_weights: Weight of each class in the class loss, or None for equal ones.
        class_loss, points, deep_supervision, ignore_void: see `MaskStep`.
        top_k: Pairs of a query and a class, best first, that are looked at.

    Raises:
        ConfigError: The weights do not fit the classes, no class is a thing, or an option is out of
            range.
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
        top_k: int = 100,
    ) -> None:
        self.classes = tuple(classes)
        if not any(item.thing for item in self.classes):
            raise ConfigError(
                "none of the classes is a thing",
                where="task",
                fix="use data with things, or the task panoptic or semantic_masks",
            )
        if top_k < 1:
            raise ConfigError(f"is {top_k}", where="task.top_k", fix="look at 1 pair or more")
        self.step = MaskStep(
            len(self.classes),
            class_weights,
            class_loss=class_loss,
            points=points,
            deep_supervision=deep_supervision,
            ignore_void=ignore_void,
        )
        self.top_k = top_k
        self.is_thing = torch.tensor([item.thing for item in self.classes])

    def target(self, samples: Sequence[Sample]) -> MaskTarget:
        """Return one mask for each thing of an image; crowds are marked.

        Raises:
            DataError: A sample has no panoptic labels, or a segment of no class.
        """
        stuff = {index for index, item in enumerate(self.classes) if not item.thing}
        things = [
            replace(
                sample,
                segments=tuple(item for item in sample.segments if item.class_id not in stuff),
            )
            for sample in samples
        ]
        return mask_target(things, kind="panoptic", num_classes=len(self.classes))

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms `class`, `mask` and `dice`.

        Raises:
            ConfigError: Network and task do not fit together.
        """
        return self.step(model, batch)

    def divisors(self, target: MaskTarget) -> dict[str, Tensor]:
        """Return by what the terms are divided; see `MaskStep.divisors`."""
        return self.step.divisors(target)

    def new_metric(self) -> InstancePrecision:
        """Return an empty average precision.

        Raises:
            MissingError: pycocotools is not installed.
        """
        from rtseg.metrics.instance import InstancePrecision

        return InstancePrecision(self.classes)

    def postprocess(
        self,
        output: MaskOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,  # noqa: ARG002 (every object has its score)
    ) -> list[InstanceResult]:
        """Return the best pairs of a query and a thing class, at source size, best score first.

        The score of an object is the probability of its class times the mean share of its mask.
        decision: masks that show no pixel are left out.

        Args:
            output: Class logits (B, N, K + 1) and mask logits (B, N, h, w).
            meta: One entry per image.
            confidence: Not used.
        """
        names = tuple(item.name for item in self.classes)
        palette = tuple(item.color for item in self.classes)
        results = []
        for logits, masks, item in zip(output.class_logits, output.mask_logits, meta, strict=True):
            queries, labels, scores = self._best_pairs(logits)
            shapes = {query: _shape(masks[query], item) for query in sorted(set(queries))}
            objects = [
                (score * shapes[query].certainty, label, shapes[query].mask)
                for query, label, score in zip(queries, labels, scores, strict=True)
                if shapes[query].mask.any()
            ]
            objects.sort(key=lambda found: -found[0])
            empty = np.zeros((0, *item.source_size), np.bool_)
            results.append(
                InstanceResult(
                    np.stack([mask for *_, mask in objects]) if objects else empty,
                    np.array([label for _, label, _ in objects], np.int64),
                    np.array([score for score, *_ in objects], np.float32),
                    names,
                    palette,
                    source=item.path,
                )
            )
        return results

    def _best_pairs(self, class_logits: Tensor) -> tuple[list[int], list[int], list[float]]:
        """Return query, class and probability of the best pairs of an image, from (N, K + 1)."""
        shares = class_probabilities(class_logits, class_loss=self.step.class_loss)
        scores, places = shares.flatten().topk(min(self.top_k, shares.numel()))
        queries, labels = places // len(self.classes), places % len(self.classes)
        kept = self.is_thing.to(labels.device)[labels]
        return queries[kept].tolist(), labels[kept].tolist(), scores[kept].tolist()


class _Shape(NamedTuple):
    """`mask`: bool (H, W). `certainty`: mean share of its pixels, in [0, 1]."""

    mask: NDArray[np.bool_]
    certainty: float


def _shape(mask_logits: Tensor, meta: ImageMeta) -> _Shape:
    """Bring the mask of one query (h, w) to source size."""
    logits = to_source(mask_logits[None, None], meta)[0, 0]
    mask = logits > 0
    inside = logits[mask].sigmoid()
    certainty = inside.sum() / (inside.numel() + 1e-6)
    return _Shape(mask.cpu().numpy(), float(certainty))
