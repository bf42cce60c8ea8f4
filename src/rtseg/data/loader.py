"""Batches for training and evaluation, the same for a seed in any process, from any step on.

The order of epoch e is a permutation drawn from (seed, e); the augmentation of an image from (seed,
e, index). Nothing reads a global random state, so a run that starts again at step k sees exactly
the batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from rtseg.data.counters import AUGMENTATION, ORDER, counter_rng
from rtseg.data.dataset import Dataset
from rtseg.data.mixture import Mixture
from rtseg.data.pixels import Size, to_tensor
from rtseg.data.transforms import Augmentation, Preprocess
from rtseg.errors import ConfigError, DataError, RtsegError
from rtseg.structures import Batch, ImageMeta, Sample

T = TypeVar("T")
TargetFunction = Callable[[Sequence[Sample]], Any]

MAX_REPLACEMENTS = 20


class TrainBatches(Sampler[list[tuple[int, int]]]):
    """Yield batches of (epoch, index) without end, starting at any batch.

    Args:
        source: The number of images in the data set, or a mixture, whose keys stand for the index:
            an image that an epoch draws twice has two keys, so that it is augmented in two ways.
        batch_size: Images per batch over all processes together.
        seed: Seed of the order.
        start: Batches of the whole run that are left out at the beginning.
        parts: Pieces into which each batch is split, one after the other (gradient accumulation).
        rank: Number of this process; it gets every `world`-th image of each batch.
        world: Number of processes.

    Raises:
        ConfigError: The batch is larger than the data set or does not divide among the processes.
    """

    def __init__(
        self,
        source: int | Mixture,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.mixture = None if isinstance(source, int) else source
        length = source if isinstance(source, int) else source.draws
        if length < batch_size:
            raise ConfigError(
                f"{batch_size} is larger than the training set ({length} images)",
                where="train.batch_size",
                fix=f"set train.batch_size to at most {length}",
            )
        if batch_size % (world * parts):
            raise ConfigError(
                f"{batch_size} does not divide among {world} processes with {parts} parts each",
                where="train.batch_size",
                fix=f"set it to a multiple of {world * parts}",
            )
        self.parts = parts
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.rank, self.world = rank, world

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the data; the rest of an epoch is dropped."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, batch = divmod(self.start, self.batches_per_epoch)
        while True:
            keys = self.length if self.mixture is None else self.mixture.keys(self.seed, epoch)
            order = counter_rng(ORDER, self.seed, epoch).permutation(keys)
            for number in range(batch, self.batches_per_epoch):
                chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
                for part in np.split(chosen[self.rank :: self.world], self.parts):
                    yield [(epoch, int(index)) for index in part]
            epoch, batch = epoch + 1, 0


@dataclass(frozen=True)
class TrainItem:
    """One augmented sample, and the names of unreadable ones that it stands in for."""

    sample: Sample
    faults: tuple[str, ...] = ()


class TrainView(torch.utils.data.Dataset[TrainItem | RtsegError]):
    """A data set indexed by (epoch, index); what cannot be read is replaced by the next image."""

    def __init__(
        self, dataset: Dataset, augment: Augmentation, preprocess: Preprocess, *, seed: int
    ) -> None:
        self.dataset, self.augment, self.preprocess, self.seed = dataset, augment, preprocess, seed

    def __getitem__(self, key: tuple[int, int]) -> TrainItem | RtsegError:
        epoch, index = key
        faults: list[str] = []
        for offset in range(MAX_REPLACEMENTS):
            position = (index + offset) % len(self.dataset)
            try:
                sample = self.dataset[position]
            except DataError as error:
                faults.append(str(error))
                continue
            except RtsegError as error:
                return error
            rng = counter_rng(AUGMENTATION, self.seed, epoch, index)
            color = self.preprocess.padding_color
            try:
                return TrainItem(self.augment(sample, rng, padding_color=color), tuple(faults))
            except RtsegError as error:
                return error
        return DataError(
            f"{MAX_REPLACEMENTS} images in a row cannot be read, the last one: {faults[-1]}",
            fix="run `rtseg data check`",
        )


@dataclass(frozen=True)
class TrainCollate:
    """Fit augmented samples and their labels to the network and stack them.

    preprocess: Size rule, normalization and padding. target: Makes the labels of the task.
    """

    preprocess: Preprocess
    target: TargetFunction

    def __call__(self, items: Sequence[TrainItem | RtsegError]) -> Batch | RtsegError:
        """Return a batch with images (B, 3, H, W) and one target for all of them."""
        try:
            samples = [item.sample for item in readable(items)]
            sizes = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
            metas, target = self.labels(samples, sizes)
        except RtsegError as error:
            return error
        images = [
            self.preprocess.fit_tensor(to_tensor(sample.image), meta)
            for sample, meta in zip(samples, metas, strict=True)
        ]
        return Batch(torch.stack(images), target, metas, faults_of(items))

    def labels(
        self, samples: Sequence[Sample], sizes: Sequence[Size]
    ) -> tuple[tuple[ImageMeta, ...], Any]:
        """Return how the images of samples are fitted, and the target of their fitted labels.

        Args:
            samples: Augmented samples; their images are not looked at.
            sizes: (H, W) of each image.

        Raises:
            RtsegError: Images would differ in size, or labels do not fit the task.
        """
        preprocess = self.preprocess.for_training()
        metas = tuple(
            preprocess.measure(size, path=sample.path)
            for sample, size in zip(samples, sizes, strict=True)
        )
        _require_one_size([_padded(meta) for meta in metas], fix="set data.augment.crop")
        fitted = [
            replace(sample, labels=preprocess.fit_labels(sample.labels, meta))
            for sample, meta in zip(samples, metas, strict=True)
        ]
        return metas, self.target(fitted)


EvalItem = tuple[Sample, torch.Tensor, ImageMeta]


class EvalView(torch.utils.data.Dataset[EvalItem | RtsegError]):
    """Samples with their network input, unaugmented, labels at the size that is scored."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess, indices: Sequence[int]) -> None:
        self.dataset, self.preprocess, self.indices = dataset, preprocess, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> EvalItem | RtsegError:
        try:
            sample = self.dataset[self.indices[position]]
        except RtsegError as error:
            return error
        image, meta = self.preprocess.fit(sample.image, path=sample.path)
        sample, meta = self.preprocess.scored(sample, meta)
        return sample, image, meta


@dataclass(frozen=True)
class EvalCollate:
    """Stack the inputs of equally large images; the target stays one per image, of its own size."""

    target: TargetFunction

    def __call__(self, items: Sequence[EvalItem | RtsegError]) -> Batch | RtsegError:
        """Return a batch with images (B, 3, H, W) and a tuple of B targets."""
        try:
            samples, images, metas = zip(*readable(items), strict=True)
            targets = tuple(self.target([sample]) for sample in samples)
            _require_one_size([_padded(meta) for meta in metas], fix="score them one by one")
        except RtsegError as error:
            return error
        return Batch(torch.stack(images), targets, tuple(metas))


def _padded(meta: ImageMeta) -> Size:
    return meta.input_size[0] + meta.padding[0], meta.input_size[1] + meta.padding[1]


def _require_one_size(sizes: Sequence[Size], *, fix: str) -> None:
    """Raise unless all images of a batch have one size; `fix` says what helps."""
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"images of one batch differ in size: {sorted(set(sizes))}",
            where="train.batch_size",
            fix=f"{fix} (or set a batch size of 1)",
        )


def readable(items: Sequence[T | RtsegError]) -> list[T]:
    """Return the items, or raise the first error among them."""
    for item in items:
        if isinstance(item, RtsegError):
            raise item
    return [item for item in items if not isinstance(item, RtsegError)]


def faults_of(items: Sequence[TrainItem | RtsegError]) -> tuple[str, ...]:
    """Return the names of all images that could not be read."""
    return tuple(fault for item in items if isinstance(item, TrainItem) for fault in item.faults)


def opened(batches: Iterable[T | RtsegError]) -> Iterator[T]:
    """Yield batches; raise an error that a reading process has sent instead of one.

    Errors travel as values because a loader would bury their one sentence in a traceback.
    """
    for batch in batches:
        if isinstance(batch, RtsegError):
            raise batch
        yield batch


def train_loader(
    dataset: Dataset,
    batches: TrainBatches,
    *,
    augment: Augmentation,
    preprocess: Preprocess,
    target: TargetFunction,
    workers: int,
    collate: Callable[[Preprocess, TargetFunction], Callable[..., Any]] = TrainCollate,
) -> DataLoader[Any]:
    """Return the endless loader of training batches (close its iterator to end the workers)."""
    return DataLoader(
        TrainView(dataset, augment, preprocess, seed=batches.seed),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate(preprocess, target),
        pin_memory=torch.cuda.is_available(),
        # A loader draws a number on creation; it must not come from the run's random state.
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=4 if workers else None,
    )


def eval_loader(
    dataset: Dataset,
    *,
    preprocess: Preprocess,
    target: TargetFunction,
    batch_size: int = 1,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Batch | RtsegError]:
    """Return the loader that yields every image once; ranks share them, none is padded or dropped.

    Args:
        dataset: Any data set.
        preprocess: Size rule and normalization.
        target: Makes the target of one sample.
        batch_size: Images per batch; above 1 all images must have one size after preprocessing.
        workers: Reading processes.
        rank: Number of this process.
        world: Number of processes.
    """
    indices = range(rank, len(dataset), world)
    return DataLoader(
        EvalView(dataset, preprocess, indices),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=False,
        num_workers=workers,
        collate_fn=EvalCollate(target),
        generator=torch.Generator().manual_seed(0),
    )
