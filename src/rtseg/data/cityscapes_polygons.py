"""Cityscapes labels as polygons: the objects of one image, drawn over each other in file order.

```
{"imgHeight": 1024, "imgWidth": 2048, "objects": [{"label": "road", "polygon": [[x, y], ...]}, ...]}
```
As in the scripts of the benchmark: what no object covers is unlabeled, outlines belong to their
object, parts outside of the image are cut off, `deleted` objects and license plates are left out,
and `cargroup` is a group of cars that were not told apart. Which pixels an outline touches is up to
Pillow, whose rule has changed over the years, so that a pixel here and there differs from the
published masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtseg.data.cityscapes_labels import (
    COUNTED_IDS,
    GROUP,
    LABEL_NAMES,
    UNPAINTED,
    label_ids,
    scored,
)
from rtseg.data.files import FileFaultError, LabelTable
from rtseg.data.json_file import load_json
from rtseg.data.outlines import Points, read_points, read_size
from rtseg.errors import nearest

_GROUP_END = "group"


@dataclass(frozen=True)
class SemanticPolygons:
    """Read a file of polygons as `semantic` labels. table: what each label id means."""

    table: LabelTable

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Return labels, uint8 (H, W).

        Raises:
            FileFaultError: The file cannot be read, or an object of it cannot be drawn.
        """
        ids = label_ids(draw_polygons(path)).astype(np.uint8)
        return self.table.apply(ids, where=str(path))


@dataclass(frozen=True)
class InstancePolygons:
    """Read a file of polygons as segment ids, numbered as in `_instanceIds` files."""

    def read(self, path: Path) -> NDArray[np.int32]:
        """Return segment ids, int32 (H, W); what is not scored is 0.

        Raises:
            FileFaultError: The file cannot be read, or an object of it cannot be drawn.
        """
        return scored(draw_polygons(path))


def draw_polygons(path: Path) -> NDArray[np.int32]:
    """Return the instance id of every pixel, int32 (H, W), 0 = unlabeled.

    Raises:
        FileFaultError: The file is missing or no such file, or an object of it cannot be drawn.
    """
    document = load_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        raise _fault("has no list of objects", path, kind="unreadable")
    try:
        size = read_size(document, width="imgWidth", height="imgHeight")
    except ValueError as error:
        raise _fault(str(error), path, kind="unreadable") from None
    image = Image.new("I", size, 0)
    draw = ImageDraw.Draw(image)
    for number, points in _objects(document["objects"], path):
        draw.polygon(points, fill=number)
    return np.array(image, dtype=np.int32)


def _objects(entries: list[Any], path: Path) -> Iterator[tuple[int, Points]]:
    """Yield instance id and outline of every object that is drawn, in file order."""
    seen: Counter[int] = Counter()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _fault(f"object {index} is no mapping", path)
        if entry.get("deleted"):
            continue
        label, grouped = _label(entry.get("label"), index, path)
        points = _outline(entry.get("polygon"), f"object {index} ({label})", path)
        if label == UNPAINTED:
            continue
        number = LABEL_NAMES.index(label)
        if number in COUNTED_IDS and not grouped:
            seen[number] += 1
            number = number * GROUP + seen[number] - 1
        yield number, points


def _label(label: Any, index: int, path: Path) -> tuple[str, bool]:
    """Return the label of an object and whether it is a group."""
    known = (*LABEL_NAMES, UNPAINTED)
    text = str(label)
    if text in known:
        return text, False
    single = text.removesuffix(_GROUP_END)
    if single != text and single in known:
        return single, True
    close = nearest(text, known, count=1)[0]
    raise _fault(
        f"object {index} has the unknown label {text[:40]!r} (the nearest is {close!r})",
        path,
        kind="value_outside_map",
    )


def _outline(polygon: Any, named: str, path: Path) -> Points:
    try:
        points = read_points(polygon)
    except ValueError as error:
        raise _fault(f"{named} {error}", path) from None
    if len(points) < 3:
        raise _fault(f"{named} has {len(points)} points, which make no polygon", path)
    return points


def _fault(what: str, path: Path, *, kind: str = "bad_polygon") -> FileFaultError:
    fix = "use the file as it is published, or correct that object"
    return FileFaultError(what, kind=kind, where=str(path), fix=fix)
