"""Cityscapes with the 19 scored classes, in its published layout (2048x1024, 2,975/500 frames).

```
root/leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png
root/gtFine/<split>/<city>/<frame>_gtFine_labelIds.png        as downloaded: 34 ids
root/gtFine/<split>/<city>/<frame>_gtFine_labelTrainIds.png   made by the authors' scripts: 0..18
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.files import LabelTable, Limits, list_images, read_sample
from rtseg.errors import ConfigError, DataError, nearest
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

# Label ids of the 19 scored classes in train-id order. Source: Cityscapes label definition.
_SCORED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_IDS = 34  # ids 0..33 occur in files; the license plate (-1) is never painted
_IMAGE_END = "_leftImg8bit"
_SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}


class Cityscapes:
    """Frames of Cityscapes with `semantic` labels of 19 classes; all others are `IGNORE_INDEX`.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine`.
        split: Which frames, by city and name; `trainval` is train followed by val. The labels of
            `test` are hidden (its published masks are void), so it is refused.
        masks: Which mask files to read, by the end of their name.

    Raises:
        ConfigError: The split or the kind of mask is unknown.
        DataError: There are no images, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = CITYSCAPES_CLASSES
    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "trainval", "test"],
        masks: Literal["labelIds", "labelTrainIds"] = "labelIds",
    ) -> None:
        if split == "test":
            raise DataError(
                "labels are not published",
                where="cityscapes test",
                fix="score on val, or predict the images and submit the result",
            )
        tables = _tables()
        for what, name, known in (("split", split, _SPLITS), ("masks", masks, tables)):
            if name not in known:
                raise ConfigError(
                    f"{what} {name!r} is unknown",
                    where="cityscapes",
                    fix=f"did you mean {nearest(name, known, count=1)[0]!r}?",
                )
        folder = Path(root)
        self.tables: Mapping[str, LabelTable] = {"semantic": tables[masks]}
        self._pairs: list[tuple[Path, Path]] = []
        self._mask_end = f"_gtFine_{masks}"
        self._mask_folders: set[Path] = set()
        for part in _SPLITS[split]:
            self._add_split(folder, part)

    def _add_split(self, root: Path, split: str) -> None:
        images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
        cities = {path.name for top in (images, masks) if top.is_dir() for path in top.iterdir()}
        found = len(self._pairs)
        for city in sorted(cities):
            self._mask_folders.add(masks / city)
            for image in list_images(images / city):
                if image.stem.endswith(_IMAGE_END):
                    frame = image.stem.removesuffix(_IMAGE_END)
                    self._pairs.append((image, masks / city / f"{frame}{self._mask_end}.png"))
        if len(self._pairs) == found:
            raise DataError(
                f"holds no <city>/<frame>{_IMAGE_END}.png",
                where=str(images),
                fix="set root to the folder that holds leftImg8bit and gtFine",
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, Path]:
        """Return the image and the mask of a frame."""
        return self._pairs[index]

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        wanted = {mask for _, mask in self._pairs}
        found = (path for folder in sorted(self._mask_folders) for path in list_images(folder))
        return tuple(
            path for path in found if path.stem.endswith(self._mask_end) and path not in wanted
        )


def _tables() -> dict[str, LabelTable]:
    """Return how to read each kind of mask, by the end of its name."""
    ids = dict.fromkeys([*range(_NUM_IDS), IGNORE_INDEX], IGNORE_INDEX)
    ids |= {raw: train_id for train_id, raw in enumerate(_SCORED_IDS)}
    train_ids = {index: index for index in [*range(len(_SCORED_IDS)), IGNORE_INDEX]}
    remedy = "use the masks that belong to `masks` (labelIds or labelTrainIds)"
    return {
        "labelIds": LabelTable(ids, remedy=remedy),
        "labelTrainIds": LabelTable(train_ids, remedy=remedy),
    }
