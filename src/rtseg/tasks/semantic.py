"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.losses.cross_entropy import cross_entropy, ohem_cross_entropy, pixel_weights
from rtseg.losses.dice import dice_loss
from rtseg.ops.resize import resize_argmax, resize_logits
from rtseg.structures import (
    IGNORE_INDEX,
    Batch,
    ClassInfo,
    ClassMapOutput,
    ImageMeta,
    Sample,
    SemanticOutput,
    SemanticResult,
    SemanticTarget,
)
from rtseg.tasks.fit import (
    map_to_source,
    padded_source_size,
    refuse_confidence,
    source_window,
    to_source,
)

if TYPE_CHECKING:
    from rtseg.metrics.confusion import SegmentationScores

LOSSES: dict[str, Callable[..., Tensor]] = {"ce": cross_entropy, "ohem": ohem_cross_entropy}


class SemanticTask:
    """Assign a class to every pixel.

    Args:
        classes: Classes by id.
        class_weights: Weight of each class in the loss, or None for equal ones.
        loss: `ce`, cross-entropy over all valid pixels, or `ohem`, over the hard ones only (online
            hard example mining).
        label_smoothing: Share of each target, in [0, 1), that `ce` spreads evenly over the classes.
        dice_weight: Factor of a Dice loss beside it; 0 leaves it out.
        dice_classes: Whether Dice is averaged over the classes in the labels of a batch, or all.
        aux_weight: Factor of the same loss of each auxiliary output; 0 leaves them out, so that a
            network needs none.

    Raises:
        ConfigError: The weights do not fit the classes, or an option is out of range.
    """

    needs: tuple[str, ...] = ("semantic",)
    output_type: type = SemanticOutput

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        class_weights: Sequence[float] | None = None,
        *,
        loss: Literal["ce", "ohem"] = "ce",
        label_smoothing: float = 0.0,
        dice_weight: float = 0.0,
        dice_classes: Literal["present", "all"] = "present",
        aux_weight: float = 0.0,
    ) -> None:
        self.classes = tuple(classes)
        self.loss = LOSSES[loss]
        self.smoothing = _smoothing(loss, label_smoothing)
        for name, factor in (("dice_weight", dice_weight), ("aux_weight", aux_weight)):
            if factor < 0:
                raise ConfigError(
                    f"{factor} is negative", where=f"task.{name}", fix="use 0 or more"
                )
        self.aux_weight = aux_weight
        self.dice_weight = dice_weight
        self.dice_classes = dice_classes
        self.weight: Tensor | None = None
        if class_weights is not None:
            if len(class_weights) != len(self.classes):
                raise ConfigError(
                    f"{len(class_weights)} weights for {len(self.classes)} classes",
                    where="task.class_weights",
                    fix="give one number per class",
                )
            self.weight = torch.tensor(class_weights, dtype=torch.float32)

    def target(self, samples: Sequence[Sample]) -> SemanticTarget:
        """Stack `semantic` labels: (B, H, W) int64.

        Raises:
            DataError: A sample has no semantic labels, or a label that is no class.
        """
        maps = [torch.from_numpy(_semantic(sample, len(self.classes))) for sample in samples]
        return SemanticTarget(torch.stack(maps).to(torch.int64))

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the logits, brought to label size; `dice` and `aux` apart, if any.

        Raises:
            ConfigError: The network returns something else, not one channel per class, or none of
                the auxiliary outputs that the loss needs.
        """
        output = self._checked(model(batch.images))
        labels = batch.target.labels
        logits = resize_logits(output.logits, labels.shape[-2:])
        weight = None if self.weight is None else self.weight.to(logits.device)
        terms = {"loss": self.loss(logits, labels, weight=weight, **self.smoothing)}
        if self.dice_weight:
            dice = dice_loss(logits, labels, all_classes=self.dice_classes == "all")
            terms["dice"] = self.dice_weight * dice
        if self.aux_weight:
            terms["aux"] = self.aux_weight * self._auxiliary_loss(output.aux, labels, weight)
        return terms

    def divisors(self, target: SemanticTarget) -> dict[str, Tensor]:
        """Return the weight of all labelled pixels, by which cross-entropies are divided.

        `dice`, and the pixels that are hard, are those of each part of a batch.
        """
        if self.loss is not cross_entropy:
            return {}
        weight = None if self.weight is None else self.weight.to(target.labels.device)
        return dict.fromkeys(("loss", "aux"), pixel_weights(target.labels, weight).sum())

    def _auxiliary_loss(
        self, aux: tuple[Tensor, ...], labels: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Sum the losses of auxiliary logits (B, K, h', w'), each brought to label size."""
        if not aux:
            raise ConfigError(
                "the network has no auxiliary outputs", where="task.aux_weight", fix="set it to 0"
            )
        size = (labels.shape[-2], labels.shape[-1])
        losses = [
            self.loss(resize_logits(logits, size), labels, weight=weight, **self.smoothing)
            for logits in aux
        ]
        return torch.stack(losses).sum()

    def _checked(self, output: Any) -> SemanticOutput:
        if not isinstance(output, SemanticOutput):
            raise ConfigError(
                f"the network returns {type(output).__name__}",
                where="model",
                fix="return rtseg.structures.SemanticOutput(logits) from its forward",
            )
        if output.logits.shape[1] != len(self.classes):
            raise ConfigError(
                f"the network has {output.logits.shape[1]} outputs for {len(self.classes)} classes",
                where="model",
                fix="build it with one output per class of the data set",
            )
        return output

    def new_metric(self) -> SegmentationScores:
        """Return an empty confusion matrix with its scores."""
        from rtseg.metrics.confusion import SegmentationScores

        return SegmentationScores(len(self.classes), [item.name for item in self.classes])

    def postprocess(
        self,
        output: SemanticOutput | ClassMapOutput,
        meta: Sequence[ImageMeta],
        *,
        confidence: bool = False,
    ) -> list[SemanticResult]:
        """Resize the logits to the source size, cut off padding, take the best class of each pixel.

        Args:
            output: Logits (B, K, h, w), or classes (B, h, w) that a file has chosen.
            meta: One entry per image.
            confidence: Also return the softmax share of the chosen class.

        Raises:
            ConfigError: The confidence of chosen classes is asked for.
        """
        if isinstance(output, ClassMapOutput):
            refuse_confidence(asked=confidence)
            return class_map_results(output, meta, self.classes)
        make = functools.partial(
            SemanticResult,
            names=tuple(item.name for item in self.classes),
            palette=tuple(item.color for item in self.classes),
        )
        results = []
        for logits, item in zip(torch.split(output.logits, 1), meta, strict=True):
            share = None
            # not to_source: the classes of a map are a fraction of its scores
            size, window = padded_source_size(item), source_window(item)
            mask = resize_argmax(logits, size, window=window)[0]
            if confidence:
                full = to_source(logits, item)[0]
                share = full.softmax(0).amax(0).cpu().numpy().astype(np.float16)
            dtype = np.uint8 if len(self.classes) <= 255 else np.uint16
            array = np.ascontiguousarray(mask.cpu().numpy().astype(dtype, copy=False))
            results.append(make(array, source=item.path, confidence=share))
        return results


def class_map_results(
    output: ClassMapOutput, meta: Sequence[ImageMeta], classes: Sequence[ClassInfo]
) -> list[SemanticResult]:
    """Return chosen classes (B, h, w) at the size of their source images."""
    names = tuple(item.name for item in classes)
    palette = tuple(item.color for item in classes)
    maps = (map_to_source(*pair) for pair in zip(output.classes, meta, strict=True))
    return [
        SemanticResult(np.ascontiguousarray(found.cpu().numpy()), names, palette, item.path)
        for found, item in zip(maps, meta, strict=True)
    ]


def _smoothing(loss: str, share: float) -> dict[str, float]:
    """Return the keyword of the loss for label smoothing; none without any.

    Raises:
        ConfigError: The share is out of range, or the loss has no such keyword.
    """
    if not 0 <= share < 1:
        raise ConfigError(
            f"{share} is outside [0, 1)", where="task.label_smoothing", fix="0.05 is usual"
        )
    if share and loss != "ce":
        raise ConfigError(
            f"loss {loss!r} has no smooth labels", where="task.label_smoothing", fix="use loss=ce"
        )
    return {"label_smoothing": share} if share else {}


def _semantic(sample: Sample, num_classes: int) -> NDArray[Any]:
    if "semantic" not in sample.labels:
        has = ", ".join(sample.labels) or "none"
        raise DataError(
            f"has no semantic labels (it has: {has})",
            where=sample.path,
            fix="use a data set that offers them, or another task",
        )
    labels = sample.labels["semantic"]
    wrong = labels[(labels >= num_classes) & (labels != IGNORE_INDEX)]
    if wrong.size:
        raise DataError(
            f"label {int(wrong[0])} is none of the {num_classes} classes and not {IGNORE_INDEX}",
            where=sample.path,
            fix="map it in data.yaml (label_map) or correct the mask",
        )
    return labels
