"""What the tasks on masks share: targets from labels, and the training step.

Semantic, panoptic and instance segmentation train the same network with the same losses; they
differ in which regions are targets and in what becomes of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtseg.errors import ConfigError, DataError
from rtseg.losses.mask_classification import (
    NO_OBJECT_WEIGHT,
    ClassLoss,
    collect,
    mask_classification_losses,
)
from rtseg.structures import IGNORE_INDEX, Batch, MaskOutput, MaskTarget, Sample, Segment

VOID_ID = 0
"""Of panoptic maps: pixels that belong to no segment."""


# ---------------------------------------------------------------- targets
def mask_target(
    samples: Sequence[Sample],
    *,
    kind: Literal["semantic", "panoptic"],
    num_classes: int,
    keep_empty: bool = False,
) -> MaskTarget:
    """Turn the labels of equally large samples into masks.

    Args:
        samples: With `semantic` labels, or `panoptic` ones and their segments.
        kind: `semantic`: one mask for each class that occurs. `panoptic`: one for each segment, in
            the order of the sample; crowds are marked.
        num_classes: Classes K; every label must be one of them.
        keep_empty: Keep segments of which no pixel is left (cropped away). decision: off, since a
            query would learn a class from a mask that shows nothing.

    Raises:
        DataError: A sample lacks the labels, or holds a class that does not exist.
    """
    labels, masks, crowds, ignored = [], [], [], []
    for sample in samples:
        label_map = _label_map(sample, kind)
        if kind == "semantic":
            classes, mask, crowd, ignore = _semantic_masks(label_map)
        else:
            classes, mask, crowd, ignore = _panoptic_masks(
                label_map, sample.segments, keep_empty=keep_empty
            )
        wrong = classes[(classes < 0) | (classes >= num_classes)]
        if wrong.size:
            raise DataError(
                f"class {int(wrong[0])} is none of the {num_classes} classes",
                where=sample.path,
                fix="map it in data.yaml (label_map) or correct the labels",
            )
        labels.append(torch.from_numpy(classes))
        masks.append(torch.from_numpy(mask))
        crowds.append(torch.from_numpy(crowd))
        ignored.append(torch.from_numpy(ignore))
    return MaskTarget(tuple(labels), tuple(masks), tuple(crowds), torch.stack(ignored))


Regions = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]
"""Classes (T,), masks (T, H, W), crowd (T,) and ignored pixels (H, W)."""


def _label_map(sample: Sample, kind: str) -> NDArray[Any]:
    if kind not in sample.labels:
        has = ", ".join(sample.labels) or "none"
        raise DataError(
            f"has no {kind} labels (it has: {has})",
            where=sample.path,
            fix="use a data set that offers them, or another task",
        )
    return sample.labels[kind]


def _semantic_masks(label_map: NDArray[Any]) -> Regions:
    ignore = label_map == IGNORE_INDEX
    present = np.unique(label_map)
    classes = present[present != IGNORE_INDEX].astype(np.int64)
    masks = label_map[None] == classes[:, None, None]
    return classes, masks, np.zeros(len(classes), np.bool_), ignore


def _panoptic_masks(
    label_map: NDArray[Any], segments: Sequence[Segment], *, keep_empty: bool
) -> Regions:
    present = set(np.unique(label_map).tolist())
    kept = [item for item in segments if keep_empty or item.id in present]
    ids = np.array([item.id for item in kept], label_map.dtype)
    classes = np.array([item.class_id for item in kept], np.int64)
    crowd = np.array([item.crowd for item in kept], np.bool_)
    return classes, label_map[None] == ids[:, None, None], crowd, label_map == VOID_ID


# ---------------------------------------------------------------- training
class MaskStep:
    """Compute the loss terms of one batch with masks as targets.

    Args:
        num_classes: Classes K.
        class_weights: Weight of each class in the class loss, or None for 1.
        class_loss: `ce`, softmax over the classes and "no object"; `bce`, a sigmoid per class.
        points: Points at which each mask is compared. Source: Mask2Former.
        deep_supervision: Train the predictions of every decoder layer.
        ignore_void: Leave out points on pixels of which nothing is known; otherwise they count as
            outside of every mask, as in Mask2Former.

    Raises:
        ConfigError: The weights do not fit the classes.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        *,
        class_loss: ClassLoss = "ce",
        points: int = 12544,
        deep_supervision: bool = True,
        ignore_void: bool = False,
    ) -> None:
        weights = [1.0] * num_classes if class_weights is None else list(class_weights)
        if len(weights) != num_classes:
            raise ConfigError(
                f"{len(weights)} weights for {num_classes} classes",
                where="task.class_weights",
                fix="give one number per class",
            )
        if points < 4:
            raise ConfigError(
                f"{points} is too small", where="task.points", fix="the papers use 12544"
            )
        self.num_classes = num_classes
        self.weight = torch.tensor([*weights, NO_OBJECT_WEIGHT])
        self.class_loss: ClassLoss = class_loss
        self.points = points
        self.deep_supervision = deep_supervision
        self.ignore_void = ignore_void
        self.queries = 0  # of the network, known once it has run

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms `class`, `mask` and `dice`; crowd segments are left out.

        Raises:
            ConfigError: The network returns something else, or not one output per class and one
                for "no object"; or its batch norm cannot work with a single image.
        """
        output = self.checked(_run(model, batch.images))
        terms: dict[str, Tensor] = self._losses(output, batch.target)
        return terms

    # Not compiled: the number of masks changes from step to step, and scipy matches them.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _losses(self, output: MaskOutput, target: MaskTarget) -> dict[str, Tensor]:
        self.queries = output.class_logits.shape[1]
        kept = [~crowd for crowd in target.crowd]
        labelled = collect(
            _searched(target),
            [masks[keep] for masks, keep in zip(target.masks, kept, strict=True)],
            valid=~target.ignore if self.ignore_void else None,
        )
        return mask_classification_losses(
            output,
            labelled,
            weight=self.weight.to(output.class_logits.device),
            points=self.points,
            class_loss=self.class_loss,
            deep_supervision=self.deep_supervision,
        )

    def divisors(self, target: MaskTarget) -> dict[str, Tensor]:
        """Return the number of masks, and for `class` what the loss of the classes is divided by.

        With `ce` that is the weight of the classes given to all queries. It follows from the labels
        unless an image has more masks than the network has queries; then it is near.
        """
        labels = _searched(target)
        masks = torch.tensor(float(sum(map(len, labels))))
        if self.class_loss == "bce":
            return dict.fromkeys(("class", "mask", "dice"), masks)
        found = (self.weight[torch.cat(labels).cpu()] - NO_OBJECT_WEIGHT).sum()
        every = found + NO_OBJECT_WEIGHT * len(labels) * self.queries
        return {"class": every, "mask": masks, "dice": masks}

    def checked(self, output: Any) -> MaskOutput:
        """Return the output if it fits the task.

        Raises:
            ConfigError: It does not.
        """
        if not isinstance(output, MaskOutput):
            raise ConfigError(
                f"the network returns {type(output).__name__}",
                where="model",
                fix="return rtseg.structures.MaskOutput from its forward",
            )
        found = output.class_logits.shape[-1]
        if found != self.num_classes + 1:
            raise ConfigError(
                f"the network has {found} class outputs for {self.num_classes} classes",
                where="model",
                fix='build it with one output per class and one for "no object"',
            )
        return output


def _searched(target: MaskTarget) -> list[Tensor]:
    """Return the classes (T,) of the masks of each image that queries are matched with."""
    return [labels[~crowd] for labels, crowd in zip(target.labels, target.crowd, strict=True)]


def _run(model: nn.Module, images: Tensor) -> Any:
    try:
        return model(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "the network normalises maps of one pixel over the batch, which one image per process "
            "does not allow",
            where="train.batch_size",
            fix="give every process and part of a batch (train.accumulate) 2 images or more",
        ) from None


# ---------------------------------------------------------------- reading predictions
def class_probabilities(class_logits: Tensor, *, class_loss: ClassLoss) -> Tensor:
    """Return the probabilities (B, N, K) of the real classes from logits (B, N, K + 1).

    With `ce` they are the softmax over all K + 1 without its last column, with `bce` sigmoids.
    """
    logits = class_logits.float()
    scores = logits.softmax(-1) if class_loss == "ce" else logits.sigmoid()
    return scores[..., :-1]
