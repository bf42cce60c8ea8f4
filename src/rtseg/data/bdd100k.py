"""BDD100K with drivable area and lane lines (1280x720, 70,000/10,000 frames), in three layouts.

```
root/<split>/images/<frame>.jpg                 as TwinMixing's released code reads it
root/<split>/segment/<frame>.png                drivable area: 0, 127 inside, 191 its outline
root/<split>/lane/<frame>.png                   lane lines: 0, 255

root/images/<split>/<frame>.jpg                 as YOLOP and its successors read it
root/drivable_are_annotations/<split>/...png    or da_seg_annotations, segments, bdd_seg_gt
root/lane_line_annotations/<split>/...png       or ll_seg_annotations, lane, bdd_lane_gt

root/images/100k/<split>/<frame>.jpg            as downloaded
root/labels/drivable/masks/<split>/...png       0 = own lane, 1 = other lanes, 2 = neither
root/labels/lane/masks/<split>/...png           bit 3 unset = line; other bits: which kind of line
```
Masks of the first two are RGBA, RGB or gray files of gray pixels. Their lane lines are about 9
pixels wide in train and 3 in val, which is how they are published: a network that learns from the
former gets a low IoU on the latter at best, and nothing here draws them anew. The masks as
downloaded show both edges of a line instead, so scores on them compare with no published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rtseg.data.bdd100k_attributes import NO_FACTS, Facts, choose_frames, read_attributes
from rtseg.data.files import LabelTable, Limits, read_sample
from rtseg.data.layout import Frames, choose_kinds, first_folder, require_images, require_split
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Sample

_SPLITS = ("train", "val")
_RELEASED = {"drivable": "segment", "lane": "lane"}
_FOLDERS = {
    "drivable": ("drivable_are_annotations", "da_seg_annotations", "segments", "bdd_seg_gt"),
    "lane": ("lane_line_annotations", "ll_seg_annotations", "lane", "bdd_lane_gt"),
}
_ROOT = "set root to the folder that holds train/images, images/train or images/100k"
_NO_LINE = 8  # bit 3 of a lane mask as downloaded; bits 0-2 category, 4 style, 5 direction


class Bdd100k:
    """Frames of BDD100K with `drivable` and `lane` labels; there are no classes.

    Args:
        root: Folder of one of the three layouts above.
        split: `train` or `val`; the labels of `test` are not published.
        kinds: Labels to read; only their masks have to be there.
        attributes: Also give `weather`, `scene` and `timeofday` of each frame, from one of the
            files that `bdd100k_attributes.py` lists.
        where: Only frames with these attributes: `{weather: rainy, timeofday: [night, dawn/dusk]}`.

    Raises:
        ConfigError: The split, a label kind, an attribute or a value of one is unknown.
        DataError: There are no images or no folder of masks, the split is `test`, attributes are
            asked for and not there, or no frame is as `where` wants it.
    """

    classes: tuple[ClassInfo, ...] = ()
    limits: Limits = Limits()
    marks: tuple[str, ...] = ("images/100k", "train/segment", "val/segment", *_FOLDERS["drivable"])

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "val", "test"],
        kinds: Sequence[Literal["drivable", "lane"]] = ("drivable", "lane"),
        attributes: bool = False,
        where: Mapping[str, str | list[str]] | None = None,
    ) -> None:
        require_split(split, _SPLITS, reader="bdd100k")
        top = Path(root)
        images, places, tables = _layout(top, split)
        self.tables: Mapping[str, LabelTable] = choose_kinds(tables, kinds, reader="bdd100k")
        self.kinds: tuple[str, ...] = tuple(self.tables)
        folders = {kind: _mask_folder(kind, top, places[kind], images) for kind in self.kinds}
        self._frames = Frames(require_images(images, fix=_ROOT), folders)
        self._facts: Sequence[Facts] = ()
        self._chosen: Sequence[int] = range(len(self._frames.images))
        if attributes or where:
            known = read_attributes(top, split)
            self._facts = [known.get(path.stem, NO_FACTS) for path in self._frames.images]
        if where:
            self._chosen = choose_frames(self._facts, where)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int, /) -> Sample:
        sample = read_sample(self.files(index), self.tables)
        return replace(sample, attributes=self.attributes(index))

    def attributes(self, index: int, /) -> Mapping[str, str]:
        """Return weather, scene and time of day of a frame, or nothing if they were not read."""
        return self._facts[self._chosen[index]] if self._facts else {}

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image of a frame and its masks."""
        return self._frames.files(self._chosen[index])

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        return self._frames.strays()


def _gray_tables() -> dict[str, LabelTable]:
    """Return what the gray values of the first two layouts mean, by label kind."""
    remedy = (
        "use the masks of the published layouts; those of the download (0, 1, 2 or bit fields) "
        "have other meanings and belong into labels/drivable/masks and labels/lane/masks"
    )
    return {
        "drivable": LabelTable({0: 0, 127: 1, 191: 1, 255: 1}, gray_rgb=True, remedy=remedy),
        "lane": LabelTable({0: 0, 255: 1}, gray_rgb=True, remedy=remedy),
    }


def _downloaded_tables() -> dict[str, LabelTable]:
    """Return what the values of masks as downloaded mean, by label kind.

    Source: label format of the BDD100K documentation and its lane evaluation; 255 is what its masks
    hold where there is no line.
    """
    lines = {value: int(not value & _NO_LINE) for value in range(64)}
    return {
        "drivable": LabelTable({0: 1, 1: 1, 2: 0}, remedy="use masks/, not colormaps/"),
        "lane": LabelTable({**lines, 255: 0}, remedy="use masks/, not colormaps/"),
    }


def _layout(root: Path, split: str) -> tuple[Path, dict[str, list[str]], dict[str, LabelTable]]:
    """Return the folder of the images, where below root masks may lie, and what values mean."""
    downloaded = root / "images" / "100k" / split
    released, other = root / split / "images", root / "images" / split
    if downloaded.is_dir():
        places = {kind: [f"labels/{kind}/masks/{split}"] for kind in _FOLDERS}
        return downloaded, places, _downloaded_tables()
    if released.is_dir() or not other.is_dir():
        places = {kind: [f"{split}/{name}"] for kind, name in _RELEASED.items()}
        return released, places, _gray_tables()
    places = {kind: [f"{name}/{split}" for name in names] for kind, names in _FOLDERS.items()}
    return other, places, _gray_tables()


def _mask_folder(kind: str, root: Path, places: Sequence[str], images: Path) -> Path:
    """Return the first of some folders that is there, or raise an error that names the images."""
    folder = first_folder([root / place for place in places])
    if folder is None:
        what = f"there is no folder {' or '.join(places)} with the {kind} masks"
        raise DataError(what, where=str(images), fix=_ROOT)
    return folder
