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

import json
from collections import Counter
from collections.abc import Iterator, Mapping
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
from rtseg.errors import nearest

_GROUP_END = "group"
_FARTHEST = 1 << 20  # pixels; what lies farther out is no outline but a broken number
_MOST_PIXELS = 1 << 28
_REMEDY = "use the file as it is published, or correct that object"
Points = list[tuple[float, float]]


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
    document = _load(path)
    width, height = (_side(document, key, path) for key in ("imgWidth", "imgHeight"))
    if width * height > _MOST_PIXELS:
        raise _fault(f"image is said to be {height}x{width} (H x W)", path, kind="too_large")
    image = Image.new("I", (width, height), 0)
    draw = ImageDraw.Draw(image)
    for number, points in _objects(document, path):
        draw.polygon(points, fill=number)
    return np.array(image, dtype=np.int32)


def _objects(document: Mapping[str, Any], path: Path) -> Iterator[tuple[int, Points]]:
    """Yield instance id and outline of every object that is drawn, in file order."""
    entries = document.get("objects")
    if not isinstance(entries, list):
        raise _fault("has no list of objects", path, kind="unreadable")
    seen: Counter[int] = Counter()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _fault(f"object {index} is no mapping", path)
        if entry.get("deleted"):
            continue
        label, grouped = _label(entry.get("label"), index, path)
        points = _points(entry.get("polygon"), index, label, path)
        if label == UNPAINTED:
            continue
        label_id = LABEL_NAMES.index(label)
        number = label_id
        if label_id in COUNTED_IDS and not grouped:
            number = label_id * GROUP + seen[label_id]
            seen[label_id] += 1
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


def _points(polygon: Any, index: int, label: str, path: Path) -> Points:
    """Return the corners of an object: x to the right, y down, in pixels."""
    named = f"object {index} ({label})"
    if not isinstance(polygon, list) or len(polygon) < 3:
        raise _fault(f"{named} has no polygon of 3 or more corners", path)
    points = []
    for corner in polygon:
        match corner:
            case [int() | float() as x, int() | float() as y] if _near(x) and _near(y):
                points.append((x, y))
            case _:
                raise _fault(f"{named} has the corner {str(corner)[:40]}", path)
    return points


def _near(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) <= _FARTHEST  # NaN is not


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fix = "add the file, or remove its image"
        raise FileFaultError(
            "file is missing", kind="missing_mask", where=str(path), fix=fix
        ) from None
    except OSError as error:
        raise _fault(f"cannot be read ({error.strerror})", path, kind="unreadable") from None
    except (ValueError, RecursionError) as error:
        raise _fault(f"is no valid JSON ({error})", path, kind="unreadable") from None
    if not isinstance(document, dict):
        raise _fault("is no mapping of size and objects", path, kind="unreadable")
    return document


def _side(document: Mapping[str, Any], key: str, path: Path) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _fault(f"{key} is {str(value)[:40]}, not a number of pixels", path, kind="unreadable")
    return value


def _fault(what: str, path: Path, *, kind: str = "bad_polygon") -> FileFaultError:
    return FileFaultError(what, kind=kind, where=str(path), fix=_REMEDY)
