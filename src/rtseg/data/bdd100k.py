"""BDD100K with drivable area and lane lines (1280x720, 70,000/10,000 frames), in either layout.

```
root/<split>/images/<frame>.jpg                 as TwinMixing's released code reads it
root/<split>/segment/<frame>.png                drivable area: 0, 127 inside, 191 its outline
root/<split>/lane/<frame>.png                   lane lines: 0, 255

root/images/<split>/<frame>.jpg                 as YOLOP and its successors read it
root/drivable_are_annotations/<split>/...png    or da_seg_annotations, segments, bdd_seg_gt
root/lane_line_annotations/<split>/...png       or ll_seg_annotations, lane, bdd_lane_gt
```
Masks are RGBA, RGB or gray files of gray pixels. Lane lines are about 9 pixels wide in train and 3
in val, which is how they are published: a network that learns from the former gets a low IoU on the
latter at best, and nothing here draws them anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rtseg.data.files import LabelTable, Limits, read_sample
from rtseg.data.layout import Frames, first_folder, require_images, require_split
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Sample

_SPLITS = ("train", "val")
_RELEASED = {"drivable": "segment", "lane": "lane"}
_FOLDERS = {
    "drivable": ("drivable_are_annotations", "da_seg_annotations", "segments", "bdd_seg_gt"),
    "lane": ("lane_line_annotations", "ll_seg_annotations", "lane", "bdd_lane_gt"),
}
_ROOT = "set root to the folder that holds train/images, or images/train"


class Bdd100k:
    """Frames of BDD100K with `drivable` and `lane` labels; there are no classes.

    Args:
        root: Folder of one of the two layouts above.
        split: `train` or `val`; the labels of `test` are not published.

    Raises:
        ConfigError: The split is unknown.
        DataError: There are no images or no folder of masks, or the split is `test`.
    """

    classes: tuple[ClassInfo, ...] = ()
    kinds: tuple[str, ...] = ("drivable", "lane")
    limits: Limits = Limits()

    def __init__(self, root: str | Path, *, split: Literal["train", "val", "test"]) -> None:
        require_split(split, _SPLITS, reader="bdd100k")
        images, folders = _find(Path(root), split)
        self._frames = Frames(require_images(images, fix=_ROOT), folders)
        remedy = (
            "use the masks of the published layouts; the official ones (0, 1, 2 or bit fields) "
            "have other meanings"
        )
        self.tables: Mapping[str, LabelTable] = {
            "drivable": LabelTable({0: 0, 127: 1, 191: 1, 255: 1}, gray_rgb=True, remedy=remedy),
            "lane": LabelTable({0: 0, 255: 1}, gray_rgb=True, remedy=remedy),
        }

    def __len__(self) -> int:
        return len(self._frames.images)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, ...]:
        """Return the image of a frame and its two masks."""
        return self._frames.files(index)

    def strays(self) -> tuple[Path, ...]:
        """Return masks whose image is not there."""
        return self._frames.strays()


def _find(root: Path, split: str) -> tuple[Path, dict[str, Path]]:
    """Return the folder of the images and that of each kind of mask."""
    released, other = root / split / "images", root / "images" / split
    if released.is_dir() or not other.is_dir():
        images = released
        candidates = {kind: [root / split / name] for kind, name in _RELEASED.items()}
    else:
        images = other
        candidates = {kind: [root / name / split for name in _FOLDERS[kind]] for kind in _FOLDERS}
    folders = {}
    for kind, places in candidates.items():
        folder = first_folder(places)
        if folder is None:
            named = " or ".join(str(place.relative_to(root)) for place in places)
            what = f"there is no folder {named} with the {kind} masks"
            raise DataError(what, where=str(images), fix=_ROOT)
        folders[kind] = folder
    return images, folders
