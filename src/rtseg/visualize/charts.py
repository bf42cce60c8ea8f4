"""Charts: lines over steps, bars per class, confusion matrices, discs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtseg.visualize.drawing import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Canvas,
    Color,
    Pixels,
    shorten,
    text_width,
)

Points = Sequence[tuple[float, float]]
_Box = tuple[float, float, float, float]

_TITLE, _TEXT = 20, 15
_RADIUS = 26
"""Of the largest disc, in pixels."""
_HEAT_LOW, _HEAT_HIGH = np.array([247, 250, 255]), np.array([8, 60, 140])
_NOTHING: Color = (243, 244, 246)


def curves(
    series: Mapping[str, Points],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    width: int = 960,
    height: int = 460,
) -> Pixels:
    """Draw lines with axes, round ticks and a key.

    Args:
        series: Points (x, y) by name; points that are not finite are left out. A series of one
            point is a dot, one of none stands in the key alone.
        title: Heading.
        xlabel: Quantity and unit along x.
        ylabel: Quantity and unit along y.
        width: Pixels.
        height: Pixels.

    Returns:
        RGB uint8 (height, width, 3).
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    everything = [point for points in finite.values() for point in points] or [(0.0, 0.0)]
    xticks = ticks(min(x for x, _ in everything), max(x for x, _ in everything), count=8)
    yticks = ticks(min(y for _, y in everything), max(y for _, y in everything), count=6)
    canvas = Canvas(width, height)
    margin = max(text_width(label, _TEXT) for label in _tick_labels(yticks))
    box = (28.0 + margin + 20, 78.0, width - 26.0, height - 66.0)
    _frame(canvas, box, xticks, yticks, title=title, labels=(xlabel, ylabel))
    x = box[0]
    for index, (name, points) in enumerate(finite.items()):
        color = SERIES[index % len(SERIES)]
        _plot(canvas, _place(points, box, xticks, yticks), color)
        if x + 28 + text_width(name, _TEXT) <= width:
            canvas.rectangle((x, 52, x + 18, 56), color, radius=2)
            canvas.text((x + 24, 54), name, size=_TEXT)
        x += 24 + text_width(name, _TEXT) + 22
    return canvas.pixels()


class Bubble(NamedTuple):
    """A named disc at (x, y) with an area, in any units."""

    x: float
    y: float
    area: float
    name: str


def bubble_chart(
    bubbles: Sequence[Bubble],
    line: Points,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    width: int = 960,
    height: int = 600,
) -> Pixels:
    """Draw named discs whose areas are in proportion, and a line through some of the places.

    Args:
        bubbles: At least one; values are finite, areas above 0.
        line: Points (x, y), in order.
        title: Heading.
        xlabel: Quantity and unit along x.
        ylabel: Quantity and unit along y.
        width: Pixels.
        height: Pixels.

    Returns:
        RGB uint8 (height, width, 3).
    """
    xticks = ticks(0.0, max(item.x for item in bubbles) * 1.05, count=8)
    yticks = ticks(min(item.y for item in bubbles), max(item.y for item in bubbles), count=6)
    step = yticks[1] - yticks[0]
    yticks = [yticks[0] - step, *yticks, yticks[-1] + step]  # discs stay inside
    canvas = Canvas(width, height)
    margin = max(text_width(label, _TEXT) for label in _tick_labels(yticks))
    box = (28.0 + margin + 20, 56.0, width - 26.0, height - 66.0)
    _frame(canvas, box, xticks, yticks, title=title, labels=(xlabel, ylabel))
    if len(line) > 1:
        canvas.line(_place(line, box, xticks, yticks), GRID, width=5)
    largest = max(item.area for item in bubbles)
    discs = [
        (x, y, _RADIUS * math.sqrt(item.area / largest))
        for item in bubbles
        for x, y in _place([(item.x, item.y)], box, xticks, yticks)
    ]
    for index in sorted(range(len(discs)), key=lambda index: -discs[index][2]):
        x, y, radius = discs[index]
        canvas.dot(x, y, SERIES[index % len(SERIES)], radius=max(radius, 3.0))
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in discs]
    for (x, y, radius), item in zip(discs, bubbles, strict=True):
        left, middle = _free_place((x, y, radius), text_width(item.name, _TEXT), taken, box)
        canvas.text((left, middle), item.name, size=_TEXT)
    return canvas.pixels()


def _free_place(
    disc: tuple[float, float, float], length: int, taken: list[_Box], box: _Box
) -> tuple[float, float]:
    """Return left and middle of a caption near a disc that covers nothing, if there is a place."""
    x, y, reach, half = disc[0], disc[1], disc[2] + 8, 10.0
    beside = [(x + reach, y), (x - reach - length, y)]
    around = [
        (left, y + sign * (reach + far))
        for far in (6, 24, 42, 60)
        for sign in (-1, 1)
        for left in (x - length / 2, x, x - length)
    ]
    inside = [
        (left, middle, (left, middle - half, left + length, middle + half))
        for left, middle in (*beside, *around)
        if box[0] <= left and left + length <= box[2] and box[1] <= middle - half
    ]
    free = [entry for entry in inside if not any(_overlap(entry[2], other) for other in taken)]
    left, middle, covered = (free or inside or [(x + reach, y, box)])[0]
    taken.append(covered)
    return left, middle


def _overlap(first: _Box, second: _Box) -> bool:
    across = first[0] < second[2] and second[0] < first[2]
    return across and first[1] < second[3] and second[1] < first[3]


def ticks(low: float, high: float, *, count: int) -> list[float]:
    """Return about `count` round values, evenly spaced, that enclose low and high."""
    size = max(abs(low), abs(high))
    if high - low <= 1e-6 * max(size, 1e-9):  # one value: put it in the middle
        half = 0.1 * size if size > 1e-9 else 0.5
        low, high = low - half, high + half
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def bar_chart(
    values: Mapping[str, float | None],
    *,
    title: str,
    colors: Sequence[Color] | None = None,
    width: int = 960,
) -> Pixels:
    """Draw one horizontal bar per name for shares such as the IoU of every class.

    Args:
        values: Shares in [0, 1] by name; None is written "n/a".
        title: Heading.
        colors: RGB color by position; one color for all by default.
        width: Pixels.

    Returns:
        RGB uint8 (h, width, 3); the height follows from the number of bars.
    """
    row, top = 28, 56
    height = top + row * len(values) + 40
    canvas = Canvas(width, height)
    canvas.text((24, 26), shorten(title, _TITLE, width - 48), size=_TITLE)
    left = 24 + min(max((text_width(n, _TEXT) for n in values), default=0), width // 3) + 12
    right = width - 80
    bottom = top + row * len(values)
    for tenth in range(0, 11, 2):
        x = left + (right - left) * tenth / 10
        canvas.line([(x, top), (x, bottom)], GRID, width=1)
        canvas.text((x, bottom + 16), f"{tenth / 10:.1f}", size=13, color=MUTED, anchor="mm")
    for index, (name, value) in enumerate(values.items()):
        middle = top + row * (index + 0.5)
        label = shorten(name, _TEXT, left - 36)
        canvas.text((left - 12, middle), label, size=_TEXT, anchor="rm")
        share = min(max(value or 0.0, 0.0), 1.0)
        end = left + (right - left) * share
        color = colors[index % len(colors)] if colors else SERIES[0]
        canvas.rectangle(
            (left, middle - 9, end, middle + 9), color, radius=min(3, (end - left) / 2)
        )
        written = "n/a" if value is None else f"{value:.3f}"
        ink = MUTED if value is None else INK
        canvas.text((right + 12, middle), written, size=_TEXT, color=ink)
    canvas.line([(left, top), (left, bottom)], MUTED, width=1)
    return canvas.pixels()


def confusion_picture(
    matrix: NDArray[Any], names: Sequence[str], *, title: str = "Confusion matrix"
) -> Pixels:
    """Draw a confusion matrix in percent of each true class.

    Args:
        matrix: Pixel counts (C, C); rows truth, columns prediction.
        names: Class names by id.
        title: Heading.

    Returns:
        RGB uint8 (h, w, 3); cells shrink with C, and numbers are left out above 40 classes.

    Raises:
        ValueError: If the matrix is not (C, C) with one name per class.
    """
    count = len(names)
    if matrix.shape != (count, count):
        raise ValueError(f"matrix {matrix.shape} does not fit {count} class names")
    totals = matrix.sum(axis=1)
    shares = 100 * matrix / np.maximum(totals, 1)[:, None]
    cell = 60 if count <= 12 else 46 if count <= 24 else 34 if count <= 40 else 14
    size = 15 if count <= 40 else 11
    room = min(max(text_width(name, size) for name in names), 220)
    left, top = room + 52, 70 + room + 20
    side = count * cell
    canvas = Canvas(left + side + 90, top + side + 24)
    canvas.text((24, 28), title, size=_TITLE)
    note = "percent of the true pixels of each class; rows truth, columns prediction"
    canvas.text((24, 54), shorten(note, 13, canvas.width - 48), size=13, color=MUTED)
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        label = shorten(name, size, room)
        canvas.text((left - 10, top + middle), label, size=size, anchor="rm")
        canvas.text((left + middle, top - 10), label, size=size, anchor="lm", upright=True)
    _heat_cells(canvas, (left, top, left + side, top + side), shares, totals > 0)
    _heat_scale(canvas, left + side + 26, top, min(side, 240))
    return canvas.pixels()


def _heat_cells(
    canvas: Canvas, box: _Box, shares: NDArray[np.float64], known: NDArray[np.bool_]
) -> None:
    """Fill the cells; classes without truth stay gray and empty."""
    count = len(shares)
    cell = (box[2] - box[0]) / count
    gap = 1 if cell > 20 else 0
    size = round(min(15, cell * 0.38))
    for row in range(count):
        for column in range(count):
            left, top = box[0] + column * cell, box[1] + row * cell
            share = float(shares[row, column])
            fill = _heat(share / 100) if known[row] else _NOTHING
            canvas.rectangle((left, top, left + cell - gap, top + cell - gap), fill)
            if known[row] and share >= 0.05 and count <= 40:
                text = f"{share:.1f}" if cell >= 46 and share < 99.95 else f"{share:.0f}"
                ink = PAPER if share > 45 else INK if share >= 0.95 else MUTED
                middle = (left + (cell - gap) / 2, top + (cell - gap) / 2)
                canvas.text(middle, text, size=size, color=ink, anchor="mm")


def _heat(share: float) -> Color:
    """Return the color of a share in [0, 1]; small shares are spread, as errors are small."""
    mix = share**0.6
    red, green, blue = (round(float(v)) for v in _HEAT_LOW + (_HEAT_HIGH - _HEAT_LOW) * mix)
    return red, green, blue


def _heat_scale(canvas: Canvas, left: float, top: float, height: float) -> None:
    for step in range(100):
        edge = top + height * step / 100
        canvas.rectangle((left, edge, left + 14, edge + height / 100 + 0.4), _heat(1 - step / 100))
    for percent in (0, 25, 50, 75, 100):
        y = top + height * (1 - percent / 100)
        canvas.text((left + 20, y), f"{percent}", size=12, color=MUTED)


def _frame(
    canvas: Canvas,
    box: _Box,
    xticks: Sequence[float],
    yticks: Sequence[float],
    *,
    title: str,
    labels: tuple[str, str],
) -> None:
    """Draw axes, heading, and what the axes show."""
    _axes(canvas, box, xticks, yticks)
    canvas.text((box[0], 26), shorten(title, _TITLE, canvas.width - 60), size=_TITLE)
    across, down = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    options: dict[str, Any] = {"size": _TEXT, "color": MUTED, "anchor": "mm"}
    canvas.text((across, canvas.height - 20), labels[0], **options)
    canvas.text((18, down), labels[1], upright=True, **options)


def _axes(canvas: Canvas, box: _Box, xticks: Sequence[float], yticks: Sequence[float]) -> None:
    """Draw grid lines, tick labels and the two axes."""
    left, top, right, bottom = box
    for value, label in zip(yticks, _tick_labels(yticks), strict=True):
        y = bottom - (bottom - top) * _share(value, yticks)
        canvas.line([(left, y), (right, y)], GRID, width=1)
        canvas.text((left - 10, y), label, size=_TEXT, color=MUTED, anchor="rm")
    for value, label in zip(xticks, _tick_labels(xticks), strict=True):
        x = left + (right - left) * _share(value, xticks)
        canvas.line([(x, bottom), (x, bottom + 5)], MUTED, width=1)
        canvas.text((x, bottom + 18), label, size=_TEXT, color=MUTED, anchor="mm")
    canvas.line([(left, bottom), (right, bottom)], MUTED, width=1)


def _tick_labels(values: Sequence[float]) -> list[str]:
    """Write all ticks with the decimals that their step needs; thousands as k."""
    kilo = all(value % 100 == 0 for value in values) and max(map(abs, values)) >= 10_000
    scaled = [value / 1000 for value in values] if kilo else list(values)
    step = scaled[1] - scaled[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(round(step, decimals), step, rel_tol=1e-6):
        decimals += 1  # a step of 2.5 or 0.25
    if decimals > 6:
        return [f"{value:.3g}" for value in scaled]
    return [f"{value + 0.0:.{decimals}f}{'k' if kilo and value else ''}" for value in scaled]


def _share(value: float, marks: Sequence[float]) -> float:
    return (value - marks[0]) / (marks[-1] - marks[0])


def _place(
    points: Points, box: _Box, xticks: Sequence[float], yticks: Sequence[float]
) -> list[tuple[float, float]]:
    """Map values to pixels."""
    left, top, right, bottom = box
    return [
        (
            left + (right - left) * _share(x, xticks),
            bottom - (bottom - top) * _share(y, yticks),
        )
        for x, y in points
    ]


def _plot(canvas: Canvas, points: Sequence[tuple[float, float]], color: Color) -> None:
    if len(points) > 1:
        canvas.line(points, color, width=2.4)
    if len(points) <= 40:
        for x, y in points:
            canvas.dot(x, y, color, radius=3.2)
