"""Read the images of a data set for an evaluation, each with all views of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from rtseg.data.dataset import Dataset
from rtseg.data.loader import TargetFunction, opened
from rtseg.data.preprocess import Preprocess
from rtseg.data.views import View, Views
from rtseg.errors import RtsegError
from rtseg.evaluation.processes import place


class Example(NamedTuple):
    """One image, ready to be scored: its place in the set, its views, labels and attributes."""

    number: int
    views: tuple[View, ...]
    target: Any
    attributes: Mapping[str, str]


class _Reader(torch.utils.data.Dataset[Example | RtsegError]):
    """Examples by number; errors travel as values, so that they keep their one sentence."""

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        views: Views,
        target: TargetFunction,
        indices: Sequence[int],
    ) -> None:
        self.dataset, self.preprocess, self.views = dataset, preprocess, views
        self.target, self.indices = target, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Example | RtsegError:
        index = self.indices[position]
        try:
            sample = self.dataset[index]
            views = self.views.fit(self.preprocess, sample.image, path=sample.path)
            scored, meta = self.preprocess.scored(sample, views[0].meta)
            size = meta.source_size  # of the labels
            fitted = tuple(
                view._replace(meta=view.meta._replace(source_size=size)) for view in views
            )
            target = self.target([scored])
        except RtsegError as error:
            return error
        return Example(index, fitted, target, sample.attributes)


def examples(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    views: Views,
    target: TargetFunction,
    workers: int = 0,
) -> Iterator[Example]:
    """Yield the images that this process scores: every n-th of n processes, none twice.

    Args:
        dataset: Any data set.
        preprocess: Size rule and normalization.
        views: The looks at each image.
        target: Makes the target of one sample.
        workers: Reading processes.

    Raises:
        RtsegError: An image or its labels cannot be used.
    """
    rank, world = place()
    reader = _Reader(dataset, preprocess, views, target, range(rank, len(dataset), world))
    loader: DataLoader[Example | RtsegError] = DataLoader(
        reader,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),
    )
    yield from opened(loader)


def _as_it_is(item: Any) -> Any:
    return item
