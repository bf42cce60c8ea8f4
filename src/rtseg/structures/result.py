"""What the results of all tasks share: checks, files, the frame of their summaries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtseg import visualize
from rtseg.visualize import PictureFile

Palette = tuple[tuple[int, int, int], ...]


class Result(ABC):
    """What was found in one image; read-only.

    Not a dataclass itself, so that each result puts what it found first.

    names, palette: of the classes, by id; colors are RGB, 0-255.
    source: path of the image, "" if it came from memory.
    timing: milliseconds by stage (read, pre, model, post).
    image: the source image, uint8 (H, W, 3) RGB, or None (then `plot` shows what was found alone).
    """

    names: tuple[str, ...]
    palette: Palette
    source: str
    timing: Mapping[str, float]
    image: NDArray[np.uint8] | None
    ENDINGS: ClassVar[Mapping[str, str]] = {"overlay": "_overlay.png"}
    """Of the files that `save` writes, by kind; some kinds may be missing from a result."""

    @abstractmethod
    def plot(self, *, alpha: float = 0.5, legend: bool = False) -> NDArray[np.uint8]:
        """Draw what was found over the image: RGB uint8 (H, W, 3), wider by the key if `legend`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Summarize as JSON-ready values."""

    def maps(self) -> dict[str, PictureFile]:
        """Return what is written besides the overlay, by kind of `ENDINGS`."""
        return {}

    def pictures(self, *, alpha: float = 0.5) -> dict[str, PictureFile]:
        """Return what `save` writes, by kind of `ENDINGS`."""
        overlay = PictureFile(self.plot(alpha=alpha, legend=True))
        return {**self.maps(), "overlay": overlay}

    def save(
        self, directory: str | Path, *, stem: str | None = None, alpha: float = 0.5
    ) -> dict[str, Path]:
        """Write one file per entry of `pictures`, named by the stem and `ENDINGS`.

        Args:
            directory: Made if missing.
            stem: Of the files; by default that of the source, or "image".
            alpha: As for `plot`.

        Returns:
            Paths by kind.

        Raises:
            DataError: A file cannot be written.
        """
        name = stem or Path(self.source).stem or "image"
        return {
            kind: picture.write(Path(directory) / f"{name}{self.ENDINGS[kind]}")
            for kind, picture in self.pictures(alpha=alpha).items()
        }

    # ------------------------------------------------------------ for the results of the tasks
    def _check(self, size: tuple[int, ...] | None) -> None:
        """Raise unless there is one color per class and the image has the size (H, W)."""
        if len(self.names) != len(self.palette):
            raise ValueError(
                f"{len(self.names)} names but {len(self.palette)} colors; give one color per class"
            )
        self._check_map("image", size)

    def _check_map(self, name: str, size: tuple[int, ...] | None) -> None:
        array = getattr(self, name)
        if size is not None and array is not None and array.shape[:2] != size:
            raise ValueError(f"{name} {array.shape} differs in size from the mask {size}")

    def _freeze(self, *names: str) -> None:
        """Make arrays read-only; the caller's own stay writable."""
        for name in names:
            array = getattr(self, name)
            if array is not None:
                frozen = array.view()
                frozen.flags.writeable = False
                object.__setattr__(self, name, frozen)

    def _summary(self, size: tuple[int, ...], **content: Any) -> dict[str, Any]:
        """Return what every summary says around its own content."""
        height, width = size
        return {
            "source": self.source,
            "height": height,
            "width": width,
            **content,
            "timing_ms": dict(self.timing),
        }


def with_key(
    picture: NDArray[np.uint8], entries: list[visualize.KeyEntry], *, legend: bool
) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3), with a key at its right if `legend`."""
    if not legend:
        return picture
    panel = visualize.key_panel(entries, height=picture.shape[0])
    return np.concatenate([picture, panel], axis=1)


def class_shares(counts: Mapping[int, int], names: tuple[str, ...], total: int) -> list[Any]:
    """Return pixels and share of each class that occurs, by id."""
    return [
        {"id": index, "name": name, "pixels": counts[index], "share": counts[index] / total}
        for index, name in enumerate(names)
        if counts.get(index)
    ]
