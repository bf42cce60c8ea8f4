"""Images with polygons drawn in labelme: one JSON file beside each image, drawn as a label map.

```
root/train/<image>  <stem>.json      root/val/...        or all in root: then they are split `train`
root/labels.txt                      one class per line, as labelme reads it, or
root/data.yaml                       `splits` and `classes` as in a native folder
```
In `labels.txt`, `__ignore__` is no class, and `_background_` is the class of what no shape covers;
without it that is ignored. A shape labelled `__ignore__` is ignored, too.

Shapes are drawn in their order, later ones over earlier ones, with their outline, as labelme's own
conversion does it: polygons, rectangles (two corners) and circles (center and a point on it). What
lies outside of the image is cut off. The label of a shape must be a class.

| fault | meaning |
|---|---|
| bad_polygon | a shape of another type, with too few points or NaN, or wholly outside |
| value_outside_map | a label that is no class |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtseg.data.files import FileFaultError, Limits, list_images, read_sample
from rtseg.data.json_file import load_json
from rtseg.data.native import load_description
from rtseg.data.outlines import Points, read_points, read_size
from rtseg.data.palette import spread_color
from rtseg.errors import ConfigError, DataError, nearest
from rtseg.structures import IGNORE_INDEX, ClassInfo, Sample

IGNORED, BACKGROUND = "__ignore__", "_background_"


class Labelme:
    """Images with `semantic` labels, drawn from the shapes of their JSON files.

    Args:
        root: Folder that holds the splits, or the images themselves.
        split: Name of a folder there; `train` for images that lie in `root` itself.
        background: Class of what no shape covers, in place of `_background_`.

    Raises:
        ConfigError: `background` or the split is unknown, or `data.yaml` is wrong.
        DataError: There are no images, no JSON files or no list of classes.
    """

    kinds: tuple[str, ...] = ("semantic",)
    limits: Limits = Limits()

    def __init__(self, root: str | Path, *, split: str, background: str | None = None) -> None:
        top = Path(root)
        self.classes: tuple[ClassInfo, ...] = _load_classes(top)
        ids = {item.name: index for index, item in enumerate(self.classes)}
        if background is not None and background not in ids:
            raise ConfigError(
                f"background {background!r} is no class",
                where="labelme",
                fix=f"did you mean {nearest(background, ids, count=1)[0]!r}?",
            )
        folder = top / split
        if split == "train" and not folder.is_dir():
            folder = top
        self._images = list_images(folder)
        self._labelled = sorted(folder.glob("*.json"))
        if not self._images or not self._labelled:
            what = "JSON files of labelme" if self._images else "images"
            fix = "set root to the folder that holds the splits, or images and their JSON files"
            raise DataError(f"holds no {what}", where=str(folder), fix=fix)
        empty = ids.get(background or BACKGROUND, IGNORE_INDEX)
        self.tables: Mapping[str, ShapeTable] = {
            "semantic": ShapeTable({IGNORED: IGNORE_INDEX, **ids}, background=empty)
        }

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, Path]:
        """Return an image and its JSON file."""
        return self._images[index], self._images[index].with_suffix(".json")

    def strays(self) -> tuple[Path, ...]:
        """Return JSON files without an image."""
        stems = {image.stem for image in self._images}
        return tuple(path for path in self._labelled if path.stem not in stems)


# ---------------------------------------------------------------- classes
def _load_classes(root: Path) -> tuple[ClassInfo, ...]:
    if (root / "data.yaml").is_file():
        return load_description(root / "data.yaml").classes
    file = root / "labels.txt"
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(
            f"cannot read the list of classes ({error.strerror})",
            where=str(file),
            fix="write one class per line there, or a data.yaml with classes",
        ) from None
    names = [line for line in lines if line and line != IGNORED]
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice or not names or len(names) > IGNORE_INDEX:
        what = f"lists {twice[0]!r} twice" if twice else f"lists {len(names)} classes"
        raise DataError(what, where=str(file), fix="list 1 to 255 different classes, one per line")
    first = 0 if BACKGROUND in names else 1  # black is the color of the background alone
    return tuple(ClassInfo(name, spread_color(first + index)) for index, name in enumerate(names))


# ---------------------------------------------------------------- shapes
@dataclass(frozen=True)
class ShapeTable:
    """Draw the shapes of labelme files. labels: by the label of a shape. background: elsewhere."""

    labels: Mapping[str, int]
    background: int = IGNORE_INDEX

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return labels, uint8 (H, W).

        Raises:
            FileFaultError: The file is missing or no such file, or a shape cannot be drawn.
        """
        document = load_json(path)
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            raise _fault("has no list of shapes", path, kind="unreadable")
        try:
            size = read_size(document, width="imageWidth", height="imageHeight")
        except ValueError as error:
            raise _fault(str(error), path, kind="unreadable") from None
        image = Image.new("L", size, self.background)
        for index, shape in enumerate(document["shapes"]):
            if not isinstance(shape, dict):
                raise _fault(f"shape {index} is no mapping", path)
            label = str(shape.get("label"))
            named = f"shape {index} ({label[:40]})"
            if label not in self.labels:
                close = nearest(label, self.labels, count=1)[0]
                what = f"{named} has a label that is no class (the nearest is {close!r})"
                raise _fault(what, path, kind="value_outside_map")
            try:
                draw_shape(image, shape, fill=self.labels[label])
            except ValueError as error:
                raise _fault(f"{named} {error}", path) from None
        return np.array(image, dtype=np.uint8)


def draw_shape(image: Image.Image, shape: Mapping[str, Any], *, fill: int) -> None:
    """Draw a polygon, rectangle or circle with its outline into an image of mode L.

    Raises:
        ValueError: It cannot be drawn; the message says what the shape is or has.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind not in _SHAPES:
        raise ValueError(f"is a {kind}, but only {', '.join(_SHAPES)} can be drawn")
    fewest, most, corners = _SHAPES[kind]
    points = read_points(shape.get("points"))
    different = len(set(points))
    if different < fewest or len(points) > most:
        raise ValueError(f"has {different} different points, which make no {kind}")
    outline = corners(points)
    left, right = (pick(x for x, _ in outline) for pick in (min, max))
    top, bottom = (pick(y for _, y in outline) for pick in (min, max))
    if right < 0 or bottom < 0 or left >= image.width or top >= image.height:
        raise ValueError("lies wholly outside of the image")
    draw = ImageDraw.Draw(image)
    if kind == "polygon":
        draw.polygon(outline, fill=fill, outline=fill)
    elif kind == "rectangle":
        draw.rectangle((left, top, right, bottom), fill=fill, outline=fill)
    else:
        draw.ellipse((left, top, right, bottom), fill=fill, outline=fill)


def _around(points: Points) -> Points:
    """Return two corners of the square around a circle, given by its center and a point on it."""
    (x, y), edge = points
    radius = math.dist((x, y), edge)
    return [(x - radius, y - radius), (x + radius, y + radius)]


_SHAPES: dict[str, tuple[int, float, Callable[[Points], Points]]] = {
    "polygon": (3, math.inf, list),
    "rectangle": (2, 2, list),
    "circle": (2, 2, _around),
}
"""By type: the fewest and the most points, and the corners between which it is drawn."""


def _fault(what: str, path: Path, *, kind: str = "bad_polygon") -> FileFaultError:
    fix = "correct the shape in labelme, or remove image and file"
    return FileFaultError(what, kind=kind, where=str(path), fix=fix)
