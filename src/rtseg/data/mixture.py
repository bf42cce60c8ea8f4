"""Several data sets drawn from as one, some of them more often than others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rtseg.data.counters import CHOICE, counter_rng
from rtseg.data.dataset import Dataset
from rtseg.data.weights import ClassStatistics, class_names, class_statistics
from rtseg.errors import ConfigError
from rtseg.structures import ClassInfo, Sample

CLASS_KINDS = ("semantic", "panoptic", "class")
"""Label kinds that hold class ids or refer to them."""


class Mixture:
    """The samples of several data sets, one set after the other.

    An epoch draws round(weight * length) samples of each set. With weight 1 everywhere that is
    every sample once, as if the sets were one; with 2 it is each twice, and each time differently
    augmented; with 0.5 it is one half, and in the next epoch the other half.

    decision: a set is an endless row of its permutations, each drawn from (seed, set, number of the
    permutation), and every epoch takes the next samples of the row. So, whatever the weight, two
    samples of a set have at no time been drawn more than once apart; and what an epoch draws can be
    told without the epochs before it.

    Args:
        parts: The data sets. A sample has the label kinds of its own set; tasks take those that it
            lacks for void.
        weights: How often a sample of each set is drawn per epoch.

    Raises:
        ConfigError: The numbers of sets and weights differ, a weight draws nothing, or sets with
            class ids have other classes.
    """

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float]) -> None:
        if not parts or len(parts) != len(weights):
            raise ConfigError(
                f"{len(weights)} weights for {len(parts)} data sets",
                where="data.train",
                fix="list at least one data set, each with one weight",
            )
        self.parts, self.weights = tuple(parts), tuple(weights)
        self.lengths = tuple(len(part) for part in parts)
        self.drawn = tuple(map(_drawn, range(len(parts)), self.lengths, weights))
        self.starts = tuple(sum(self.lengths[:number]) for number in range(len(parts)))
        self.classes = _common_classes(self.parts)
        self.kinds = tuple(dict.fromkeys(kind for part in parts for kind in part.kinds))

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, index: int, /) -> Sample:
        """Read sample `index` of all sets in their order.

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        part = max(number for number, start in enumerate(self.starts) if start <= index)
        return self.parts[part][index - self.starts[part]]

    @property
    def draws(self) -> int:
        """Samples that an epoch draws, all sets together."""
        return sum(self.drawn)

    def keys(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return what an epoch draws, rising within each set, int64 (draws,).

        A key is the index of a sample, plus the number of samples as often as the epoch has drawn
        it before: no two keys are equal, and with weight 1 everywhere they are 0, 1, 2 and so on.
        """
        return np.concatenate(
            [self._keys(part, seed, epoch) for part in range(len(self.parts))], dtype=np.int64
        )

    def _keys(self, part: int, seed: int, epoch: int) -> NDArray[np.int64]:
        length, drawn = self.lengths[part], self.drawn[part]
        first, last = epoch * drawn, (epoch + 1) * drawn
        row = [
            counter_rng(CHOICE, seed, number, part).permutation(length)
            for number in range(first // length, (last - 1) // length + 1)
        ]
        begin = first % length
        chosen = np.sort(np.concatenate(row)[begin : begin + drawn])
        before = np.arange(drawn) - np.searchsorted(chosen, chosen)
        keys: NDArray[np.int64] = self.starts[part] + chosen + len(self) * before
        return keys


def mixed_statistics(mixture: Mixture, *, kind: str = "semantic") -> ClassStatistics:
    """Count the pixels of each class as an epoch draws them: those of a set times its weight.

    Args:
        mixture: Sets without labels of the kind count as 0.
        kind: As in `class_statistics`.

    Raises:
        ConfigError: No set offers the kind, or its values are not class ids.
        FileFaultError: A mask cannot be read or holds a value without a label.
    """
    chosen = [part for part in range(len(mixture.parts)) if kind in mixture.parts[part].kinds]
    if not chosen:
        return class_statistics(mixture, kind=kind)  # says which kinds there are
    counts = [
        (class_statistics(mixture.parts[part], kind=kind), mixture.weights[part]) for part in chosen
    ]

    def summed(field: str) -> tuple[int, ...]:
        columns = [np.atleast_1d(getattr(item, field)) * weight for item, weight in counts]
        return tuple(round(value) for value in np.sum(columns, axis=0).tolist())

    return ClassStatistics(
        names=class_names(mixture, kind),
        pixels=summed("pixels"),
        void=summed("void")[0],
        frames=summed("frames"),
        frame_pixels=summed("frame_pixels"),
        images=summed("images")[0],
    )


def sets_of(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the sets of a mixture, or the data set itself."""
    yield from dataset.parts if isinstance(dataset, Mixture) else (dataset,)


def _drawn(number: int, length: int, weight: float) -> int:
    """Return how many samples an epoch draws of a set."""
    drawn = round(weight * length) if math.isfinite(weight) else 0
    if drawn < 1:
        raise ConfigError(
            f"{weight:g} draws none of {length} samples",
            where=f"data.train.{number}.weight",
            fix="use a positive number, 1 to draw each sample once per epoch; or remove the set",
        )
    return drawn


def _common_classes(parts: Sequence[Dataset]) -> tuple[ClassInfo, ...]:
    """Return the classes of all sets whose labels are class ids; of the first set if none are."""
    labelled = [
        (number, part) for number, part in enumerate(parts) if set(CLASS_KINDS) & set(part.kinds)
    ]
    if not labelled:
        return tuple(parts[0].classes)
    first, reference = labelled[0]
    for number, part in labelled[1:]:
        things = "panoptic" in reference.kinds and "panoptic" in part.kinds
        difference = _difference(reference.classes, part.classes, things=things)
        if difference:
            raise ConfigError(
                f"classes differ from those of data.train.{first}: {difference}",
                where=f"data.train.{number}",
                fix="mix sets with the same classes in the same order, or read only label kinds "
                "without classes from one of them",
            )
    return tuple(reference.classes)


def _difference(expected: Sequence[ClassInfo], found: Sequence[ClassInfo], *, things: bool) -> str:
    """Say in what two lists of classes differ: names and, if asked for, which are things."""
    if len(expected) != len(found):
        return f"{len(found)} instead of {len(expected)}"
    for index, (one, two) in enumerate(zip(expected, found, strict=True)):
        if one.name != two.name:
            return f"class {index} is {two.name!r} instead of {one.name!r}"
        if things and one.thing != two.thing:
            return f"class {index}, {one.name!r}, is a thing in only one of them"
    return ""
