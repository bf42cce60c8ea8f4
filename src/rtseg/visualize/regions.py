"""Regions over photographs: objects and surfaces with colors of their own, outlines and tags."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtseg.visualize.drawing import INK, PAPER, Color, Pixels, font, text_width

_GOLDEN = 0.618034
"""decision: steps of the golden ratio spread any number of hues evenly."""
_HUE_SPREAD, _LIGHT_SPREAD = 0.14, 0.34
_LIGHT_RANGE = (0.27, 0.78)
_OUTLINE_WHITE = 0.6
"""Share of white in an outline: it stays apart from its own region and from the street."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


class Region(NamedTuple):
    """Pixels that belong together.

    `mask`: bool (H, W). `color`: RGB, 0-255. `label`: text of its tag, "" for none.
    """

    mask: NDArray[np.bool_]
    color: Color
    outlined: bool = True
    label: str = ""


def vary_color(color: Color, number: int) -> Color:
    """Return the color of the `number`-th object of a class: the class's own for 0, then others.

    Hue and lightness move around those of the class, so that neighbors differ and the class can
    still be told.
    """
    if number == 0:
        return color
    hue, light, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    hue += _HUE_SPREAD * (number * _GOLDEN % 1 - 0.5)
    light = float(np.clip(light, *_LIGHT_RANGE)) + _LIGHT_SPREAD * (number * _GOLDEN**2 % 1 - 0.5)
    mixed = colorsys.hls_to_rgb(hue % 1, float(np.clip(light, *_LIGHT_RANGE)), saturation)
    red, green, blue = (round(255 * value) for value in mixed)
    return red, green, blue


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box around the true pixels of (H, W), or None if there is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def paint_regions(
    image: Pixels | None, size: tuple[int, int], regions: Sequence[Region], *, alpha: float = 0.5
) -> Pixels:
    """Paint regions over a photograph, later ones over earlier ones, then outlines, then tags.

    Args:
        image: RGB uint8 (H, W, 3), or None for the colors alone (unpainted pixels are black).
        size: (H, W) of the picture.
        regions: What to paint.
        alpha: Share of the color inside a region, 0 to 1; outlines and tags are always opaque.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: If `alpha` is out of range.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; it must be 0 to 1")
    share = 1.0 if image is None else alpha
    painted = np.zeros((*size, 3), np.uint8) if image is None else image.copy()
    boxes = [bounding_box(region.mask) for region in regions]
    found = [(region, box) for region, box in zip(regions, boxes, strict=True) if box is not None]
    for region, (left, top, right, bottom) in found:
        part, inside = painted[top:bottom, left:right], region.mask[top:bottom, left:right]
        mixed = (1 - share) * part[inside] + share * np.array(region.color)
        part[inside] = np.round(mixed).astype(np.uint8)
    width = max(1, round(min(size) / 400))
    for region, (left, top, right, bottom) in found:
        if region.outlined:
            edge = inner_edge(region.mask[top:bottom, left:right], width=width)
            painted[top:bottom, left:right][edge] = _mix(region.color, PAPER, _OUTLINE_WHITE)
    return _tagged(painted, [(region, box) for region, box in found if region.label])


def inner_edge(mask: NDArray[np.bool_], *, width: int = 1) -> NDArray[np.bool_]:
    """Return the pixels of a mask (H, W) that lie at most `width` steps from what is outside it.

    Outside the array nothing belongs to the mask.
    """
    core = mask
    for _ in range(width):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def _mix(color: Color, other: Color, share: float) -> list[int]:
    pairs = zip(color, other, strict=True)
    return [round((1 - share) * value + share * target) for value, target in pairs]


def _tagged(pixels: Pixels, tagged: Sequence[tuple[Region, Box]]) -> Pixels:
    """Write tags at the boxes, the last region first; one without a free place is left out."""
    height, width = pixels.shape[:2]
    size = int(np.clip(min(height, width) / 32, 10, 26))
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    taken: list[Box] = []
    for region, box in reversed(tagged):
        extent = (text_width(region.label, size) + size // 2, round(1.35 * size))
        place = _free_place(box, extent, (width, height), taken)
        if place is None:
            continue
        taken.append(place)
        left, top, right, bottom = place
        draw.rounded_rectangle((left, top, right - 1, bottom - 1), size / 5, fill=region.color)
        ink = INK if _is_light(region.color) else PAPER
        middle = ((left + right) / 2, (top + bottom) / 2)
        draw.text(middle, region.label, fill=ink, font=font(size), anchor="mm")
    return np.asarray(picture)


def _free_place(
    box: Box, extent: tuple[int, int], size: tuple[int, int], taken: Sequence[Box]
) -> Box | None:
    """Find a place above, inside or below a box that meets no other tag."""
    left, top, _, bottom = box
    for y in (top - extent[1], top, bottom):
        x0 = min(max(left, 0), max(size[0] - extent[0], 0))
        y0 = min(max(y, 0), max(size[1] - extent[1], 0))
        place = (x0, y0, x0 + extent[0], y0 + extent[1])
        if not any(_meet(place, other) for other in taken):
            return place
    return None


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_light(color: Color) -> bool:
    """Tell whether dark text reads better on a color (luma of ITU-R BT.601)."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
