"""Images in one folder per class, as classifiers are trained on (ImageNet's layout).

```
root/train/<class>/<image>     root/val/<class>/<image>
```
Class ids count the folders of `train` by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtseg.data.files import Limits, list_images, read_sample
from rtseg.data.palette import spread_color
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Sample


@dataclass(frozen=True)
class FolderTable:
    """Read the class of an image off the folder that it lies in; ids by name of the folder."""

    ids: Mapping[str, int]

    def read(self, path: Path) -> NDArray[np.int64]:
        """Return the class id of an image, int64 of shape ()."""
        return np.array(self.ids[path.parent.name], dtype=np.int64)


class ImageFolder:
    """Images with a `class` label each.

    Args:
        root: Folder that holds the splits.
        split: Name of a folder there.

    Raises:
        DataError: The split has no images, or a class that `train` lacks.
    """

    kinds: tuple[str, ...] = ("class",)
    limits: Limits = Limits()

    def __init__(self, root: str | Path, *, split: str) -> None:
        folder, train = Path(root) / split, Path(root) / "train"
        found = _class_folders(folder)
        names = [place.name for place in _class_folders(train)] or [place.name for place in found]
        unknown = [place for place in found if place.name not in names]
        if unknown:
            raise DataError(
                f"is a class that {train} does not have",
                where=str(unknown[0]),
                fix="add it there or remove it here",
            )
        self._images = [path for place in found for path in list_images(place)]
        if not self._images:
            raise DataError(
                "holds no <class>/<image>",
                where=str(folder),
                fix="set root to the folder that holds the splits",
            )
        self.classes: tuple[ClassInfo, ...] = tuple(
            ClassInfo(name, spread_color(index)) for index, name in enumerate(names)
        )
        self.tables: Mapping[str, FolderTable] = {
            "class": FolderTable({name: index for index, name in enumerate(names)})
        }

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, Path]:
        """Return the image twice: its place is its label."""
        return self._images[index], self._images[index]

    def strays(self) -> tuple[Path, ...]:
        """Return nothing: there are no masks."""
        return ()


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
