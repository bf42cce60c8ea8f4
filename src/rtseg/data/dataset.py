"""What a data set is: a sequence of samples that knows its classes and label kinds, and no task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from rtseg.data.files import LabelReader, Limits
from rtseg.structures import ClassInfo, Sample


@runtime_checkable
class Dataset(Protocol):
    """A sequence of samples with the same classes and label kinds."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The classes of the `semantic` and `panoptic` labels, by id."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The label kinds of every sample, such as `semantic` or `lane`."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Read or draw one sample; safe to call from several threads."""
        ...


@runtime_checkable
class DiskDataset(Dataset, Protocol):
    """A data set of one image and one file per label kind, examined file by file."""

    @property
    def tables(self) -> Mapping[str, LabelReader]:
        """How to read the file of each label kind, in the order of `kinds`."""
        ...

    @property
    def limits(self) -> Limits:
        """The image sizes that the data set allows."""
        ...

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image and then one file for each of `kinds`, whether they exist or not.

        Where the place of the image is its label, that file is the image again.
        """
        ...

    def strays(self) -> tuple[Path, ...]:
        """Return mask files that belong to no sample."""
        ...


@runtime_checkable
class Attributed(Dataset, Protocol):
    """A data set that tells the attributes of a sample, such as its weather, without reading it."""

    def attributes(self, index: int, /) -> Mapping[str, str]:
        """Return what `Sample.attributes` of this sample holds."""
        ...
