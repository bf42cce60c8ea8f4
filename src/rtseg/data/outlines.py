"""Outlines and image sizes out of label files that hold polygons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Points = list[tuple[float, float]]
"""Corners in pixels: x to the right, y down."""

_FARTHEST = 1 << 20  # pixels; what lies farther out is no outline but a broken number
_MOST_PIXELS = 1 << 28


def read_points(entries: Any) -> Points:
    """Return the points of a list of pairs [x, y].

    Raises:
        ValueError: It is no such list; the message says what the outline has instead.
    """
    if not isinstance(entries, list):
        raise ValueError("has no points")
    points = []
    for entry in entries:
        match entry:
            case [int() | float() as x, int() | float() as y] if _near(x) and _near(y):
                points.append((float(x), float(y)))
            case _:
                raise ValueError(f"has the point {str(entry)[:40]}")
    return points


def _near(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) <= _FARTHEST  # NaN is not


def read_size(document: Mapping[str, Any], *, width: str, height: str) -> tuple[int, int]:
    """Return width and height in pixels, which stand under two keys.

    Raises:
        ValueError: One is no number of pixels, or there are too many to draw.
    """
    sides = []
    for key in (width, height):
        value = document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} is {str(value)[:40]}, not a number of pixels")
        sides.append(value)
    if sides[0] * sides[1] > _MOST_PIXELS:
        raise ValueError(f"image is said to be {sides[1]}x{sides[0]} (H x W)")
    return sides[0], sides[1]
