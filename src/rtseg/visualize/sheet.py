"""Sheets of pictures: a grid with captions, below a heading and a key; void in stripes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg.visualize.drawing import INK, MUTED, Canvas, Color, Pixels, shorten, text_width

_HATCH: tuple[Color, Color] = ((150, 150, 150), (215, 215, 215))
"""decision: void is hatched in gray, since a plain gray is the sky of some palettes."""
_SMALLEST_WIDTH = 640
"""Of a sheet with a heading, so that the heading has room."""


def contact_sheet(
    images: Sequence[Pixels],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    cell_width: int = 360,
) -> Pixels:
    """Lay pictures out in a grid.

    Args:
        images: RGB uint8 (H, W, 3) each; sizes may differ.
        titles: One caption per picture.
        columns: Pictures in a row; by default as many as make the grid about square, 4 at most.
        cell_width: Width of a cell; larger pictures are shrunk to it, much smaller ones are
            enlarged by a whole factor.

    Returns:
        RGB uint8 (h, w, 3) on white.

    Raises:
        ValueError: If there is no picture, or not one title per picture.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one picture")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} pictures")
    columns = min(columns or min(4, int(np.ceil(np.sqrt(len(images))))), len(images))
    cells = [fit_width(image, cell_width) for image in images]
    gap, caption, size = 12, 26 if titles else 0, 15
    width = max(cell.shape[1] for cell in cells)
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    total = sum(heights) + len(rows) * (gap + caption) + gap
    canvas = Canvas(columns * (width + gap) + gap, total, smooth=1)
    top = gap
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        left = gap + column * (width + gap) + (width - cell.shape[1]) // 2
        canvas.photo(left, top + caption, cell)
        if titles:
            text = shorten(titles[index], size, cell.shape[1])
            canvas.text((left, top + caption / 2 - 2), text, size=size)
        if column == columns - 1:
            top += heights[row] + caption + gap
    return canvas.pixels()


def label_sheet(
    pictures: Sequence[Pixels],
    *,
    titles: Sequence[str],
    heading: str,
    note: str = "",
    key: Sequence[tuple[str, Color | None]] = (),
    columns: int = 4,
    cell_width: int = 560,
) -> Pixels:
    """Lay pictures out in a grid, below a heading and a key.

    Args:
        pictures: RGB uint8 (H, W, 3) each; sizes may differ.
        titles: One caption per picture.
        heading: Line above all.
        note: Smaller line below it, "" for none.
        key: As for `key_strip`.
        columns: Pictures in a row.
        cell_width: As for `contact_sheet`.

    Returns:
        RGB uint8 (h, w, 3) on white.

    Raises:
        ValueError: If there is no picture, or not one title per picture.
    """
    grid = contact_sheet(pictures, titles=titles, columns=columns, cell_width=cell_width)
    if grid.shape[1] < _SMALLEST_WIDTH:
        room = np.full((grid.shape[0], _SMALLEST_WIDTH - grid.shape[1], 3), 255, np.uint8)
        grid = np.concatenate([grid, room], axis=1)
    width = grid.shape[1]
    head = Canvas(width, 66 if note else 42, smooth=1)
    head.text((12, 24), shorten(heading, 22, width - 24), size=22)
    head.text((12, 51), shorten(note, 15, width - 24), size=15, color=MUTED)
    parts = [head.pixels(), *([key_strip(key, width)] if key else []), grid]
    return np.concatenate(parts, axis=0)


def key_strip(entries: Sequence[tuple[str, Color | None]], width: int) -> Pixels:
    """Draw a key (h, width, 3) that runs in lines from left to right.

    Args:
        entries: Name and RGB color of each; what has no color is hatched.
        width: Pixels.
    """
    size, box, gap, row_height = 14, 16, 12, 26
    places, x, row = [], gap, 0
    for name, _ in entries:
        step = box + 6 + text_width(name, size) + 18
        if x > gap and x + step > width:
            x, row = gap, row + 1
        places.append((x, row))
        x += step
    canvas = Canvas(width, (row + 1) * row_height + 10)
    for (name, color), (left, line) in zip(entries, places, strict=True):
        middle = line * row_height + row_height / 2
        if color is None:
            canvas.photo(left, round(middle - box / 2), hatch(box, box))
        else:
            square = (left, middle - box / 2, left + box, middle + box / 2)
            canvas.rectangle(square, color, radius=3)
        canvas.text((left + box + 6, middle), name, size=size, color=INK)
    return canvas.pixels()


def hatched(picture: Pixels, where: NDArray[np.bool_], *, alpha: float = 0.6) -> Pixels:
    """Lay gray stripes over a part of a picture, such as what is not labeled.

    Args:
        picture: RGB uint8 (H, W, 3), left as it is.
        where: bool (H, W).
        alpha: Share of the stripes, 0 to 1.

    Returns:
        RGB uint8 (H, W, 3).
    """
    marked = picture.copy()
    mixed = (1 - alpha) * picture[where] + alpha * hatch(*where.shape)[where]
    marked[where] = np.round(mixed).astype(np.uint8)
    return marked


def hatch(height: int, width: int) -> Pixels:
    """Return gray diagonal stripes (height, width, 3), wide enough to survive shrinking."""
    stripe = max(2, width // 120)
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // stripe % 2
    return np.array(_HATCH, dtype=np.uint8).take(diagonal, axis=0)


def fit_width(image: Pixels, width: int) -> Pixels:
    """Shrink pixels (H, W, 3) to a width, or enlarge it by the largest whole factor that fits."""
    height, old = image.shape[:2]
    if old > width:
        size = (width, max(1, round(height * width / old)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.HAMMING))
    factor = max(1, width // old)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
