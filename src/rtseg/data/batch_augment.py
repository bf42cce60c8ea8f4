"""Augment the images of a batch on the device that trains.

The reading processes draw every number and change the labels, which is cheap: only pixels that are
kept are looked up. Images leave them as they were read, in bytes instead of floats of four times
the size, and are scaled, recolored, cut, mirrored, normalized and padded where the network runs.

The result is that of `Augment` and `Preprocess` in the reading process: labels are equal and, on
the CPU, so are images, bit for bit. Another device resizes bytes with other roundings: there a
pixel may differ by one of 255 before its colors are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rtseg.data.augment import Augment, Change
from rtseg.data.loader import TargetFunction, TrainCollate, TrainItem, faults_of, readable
from rtseg.data.pixels import Color, to_tensor
from rtseg.data.preprocess import Preprocess
from rtseg.data.transforms import Augmentation
from rtseg.errors import ConfigError, RtsegError
from rtseg.structures import Batch, ImageMeta, Sample


@dataclass(frozen=True)
class PendingSample(Sample):
    """A sample whose labels have undergone a change, and whose image is as read.

    change: what its image has yet to undergo. size: (H, W) that it will have.
    """

    change: Change = field(kw_only=True)
    size: tuple[int, int] = field(kw_only=True)


class PendingBatch(NamedTuple):
    """A batch whose images are as read.

    images: uint8 (3, H, W) each, of any size. changes: what each has yet to undergo.
    target, meta, faults: as in `Batch`; `source_size` is that after the change.
    """

    images: tuple[Tensor, ...]
    changes: tuple[Change, ...]
    target: Any
    meta: tuple[ImageMeta, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelAugment:
    """Draw the change of a sample, and apply it to the labels only."""

    augment: Augment

    def __call__(
        self,
        sample: Sample,
        rng: np.random.Generator,
        *,
        padding_color: Color,  # noqa: ARG002 - images are padded later
    ) -> PendingSample:
        """Return the sample with its labels changed.

        Args:
            sample: As read.
            rng: Source of every random number.
            padding_color: Not used.
        """
        change, labels = self.augment.draw(sample, rng)
        return PendingSample(
            sample.image, labels, sample.segments, sample.path, sample.attributes,
            change=change, size=self.augment.crop or change.size,
        )  # fmt: skip


@dataclass(frozen=True)
class PendingCollate:
    """Make the target of a batch, and keep its images as they are.

    preprocess: Size rule, normalization and padding. target: Makes the labels of the task.
    """

    preprocess: Preprocess
    target: TargetFunction

    def __call__(self, items: Sequence[TrainItem | RtsegError]) -> PendingBatch | RtsegError:
        """Return a batch for `BatchAugment`."""
        collate = TrainCollate(self.preprocess, self.target)
        try:
            samples = [cast(PendingSample, item.sample) for item in readable(items)]
            metas, target = collate.labels(samples, [sample.size for sample in samples])
        except RtsegError as error:
            return error
        images = tuple(to_tensor(sample.image) for sample in samples)
        changes = tuple(sample.change for sample in samples)
        return PendingBatch(images, changes, target, metas, faults_of(items))


class BatchAugment:
    """Change the images of batches on a device, and fit them to the network.

    Args:
        augment: What has drawn the changes.
        preprocess: Size rule, normalization and padding.
        device: Where to.
    """

    def __init__(self, augment: Augment, preprocess: Preprocess, device: torch.device) -> None:
        self.augment, self.preprocess, self.device = augment, preprocess, device

    def __call__(self, pending: PendingBatch) -> Batch:
        """Return the batch with images (B, 3, H, W) on the device."""
        color = self.preprocess.padding_color
        images = []
        for image, change, meta in zip(pending.images, pending.changes, pending.meta, strict=True):
            moved = image.to(self.device, non_blocking=True)
            picture = self.augment.picture(moved, change, padding_color=color)
            images.append(self.preprocess.fit_tensor(picture, meta))
        return Batch(torch.stack(images), pending.target, pending.meta, pending.faults)


class Way(NamedTuple):
    """How batches come about.

    augment, collate: for `train_loader`. finish: makes a `Batch` of what the loader yields.
    """

    augment: Augmentation
    collate: Callable[[Preprocess, TargetFunction], Callable[..., Any]]
    finish: Callable[[Any], Batch]


def way_to(
    augment: Augmentation,
    preprocess: Preprocess,
    *,
    on: Literal["loader", "device"],
    device: torch.device,
) -> Way:
    """Return how batches come about when images are augmented in the loader, or on the device.

    Raises:
        ConfigError: The device cannot do what the augmentation does.
    """
    if on == "loader":
        return Way(augment, TrainCollate, _as_it_is)
    if not isinstance(augment, Augment):
        raise ConfigError(
            f"the device cannot do what {type(augment).__name__} does",
            where="data.augment_on",
            fix="use augment_on=loader, or the augmentation `crop`",
        )
    return Way(LabelAugment(augment), PendingCollate, BatchAugment(augment, preprocess, device))


def _as_it_is(batch: Batch) -> Batch:
    return batch
