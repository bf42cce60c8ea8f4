"""The canvas of all pictures: anti-aliased shapes, crisp text, one set of colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Pixels = NDArray[np.uint8]

PAPER: Color = (255, 255, 255)
INK: Color = (31, 41, 55)
MUTED: Color = (107, 114, 128)
GRID: Color = (229, 231, 235)
NEUTRAL: Color = (148, 163, 184)
"""Of what has no color of its own."""
SERIES: tuple[Color, ...] = (
    (37, 99, 235),
    (234, 88, 12),
    (5, 150, 105),
    (190, 24, 93),
    (124, 58, 237),
    (202, 138, 4),
    (8, 145, 178),
    (75, 85, 99),
)
"""decision: line colours that stay apart on white, in print and for most color-blind readers."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the built-in font at `size` pixels; nothing has to be installed."""
    return ImageFont.load_default(size=size)


def text_width(text: str, size: int) -> int:
    """Return the width of one line of text in pixels, rounded up."""
    return int(np.ceil(font(size).getlength(text)))


def shorten(text: str, size: int, width: int) -> str:
    """Cut `text` so that it fits into `width` pixels; an ellipsis marks the cut."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}...", size) > width:
        text = text[:-1]
    return f"{text}..."


class _Text(NamedTuple):
    position: tuple[float, float]
    text: str
    size: int
    color: Color
    anchor: str
    upright: bool


class Canvas:
    """Collect shapes at a multiple of the final size, shrink them once, and write text on top.

    Coordinates are pixels of the final picture; x grows to the right, y down.

    Args:
        width: Pixels.
        height: Pixels.
        smooth: Oversampling of shapes; 1 for sheets of photographs, which need none.
        background: RGB, 0-255.
    """

    def __init__(
        self, width: int, height: int, *, smooth: int = 4, background: Color = PAPER
    ) -> None:
        self.width, self.height = width, height
        self._smooth = smooth
        self._image = Image.new("RGB", (width * smooth, height * smooth), background)
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[_Text] = []
        self._photos: list[tuple[int, int, Pixels]] = []

    def rectangle(
        self, box: tuple[float, float, float, float], fill: Color, *, radius: float = 0.0
    ) -> None:
        """Fill from (left, top) up to but without (right, bottom)."""
        left, top, right, bottom = (round(value * self._smooth) for value in box)
        if right > left and bottom > top:
            self._draw.rounded_rectangle(
                (left, top, right - 1, bottom - 1), radius * self._smooth, fill=fill
            )

    def line(
        self, points: Sequence[tuple[float, float]], color: Color, *, width: float = 2.0
    ) -> None:
        """Connect the points with round joints and round ends."""
        scaled = [(x * self._smooth, y * self._smooth) for x, y in points]
        self._draw.line(
            scaled, fill=color, width=max(1, round(width * self._smooth)), joint="curve"
        )
        for x, y in (points[0], points[-1]):
            self.dot(x, y, color, radius=width / 2)

    def dot(self, x: float, y: float, color: Color, *, radius: float = 3.0) -> None:
        """Fill a disc around (x, y)."""
        self._draw.circle((x * self._smooth, y * self._smooth), radius * self._smooth, fill=color)

    def text(
        self,
        position: tuple[float, float],
        text: str,
        *,
        size: int = 14,
        color: Color = INK,
        anchor: str = "lm",
        upright: bool = False,
    ) -> None:
        """Write one line.

        Args:
            position: Point (x, y) that `anchor` names.
            text: The line.
            size: Height of the font in pixels.
            color: RGB, 0-255.
            anchor: Horizontal l, m, r and vertical a (top), m, s (base line), d (bottom) part of
                the line at `position`, as Pillow has it.
            upright: Write from bottom to top; the anchor is that of the turned line.
        """
        self._texts.append(_Text(position, text, size, color, anchor, upright))

    def photo(self, left: int, top: int, pixels: Pixels) -> None:
        """Lay pixels (h, w, 3) RGB uint8 over the shapes, unchanged."""
        self._photos.append((left, top, pixels))

    def pixels(self) -> Pixels:
        """Return the finished picture (height, width, 3) RGB uint8."""
        image = self._image.reduce(self._smooth) if self._smooth > 1 else self._image.copy()
        for left, top, pixels in self._photos:
            image.paste(Image.fromarray(pixels), (left, top))
        draw = ImageDraw.Draw(image)
        for entry in self._texts:
            if entry.upright:
                _write_upright(image, entry)
            else:
                draw.text(
                    entry.position,
                    entry.text,
                    fill=entry.color,
                    font=font(entry.size),
                    anchor=entry.anchor,
                )
        return np.asarray(image)


def _write_upright(image: Image.Image, entry: _Text) -> None:
    """Write a line from bottom to top; l, m, r of its anchor stand for bottom, middle, top."""
    width, height = text_width(entry.text, entry.size) + 2, round(entry.size * 1.4)
    stencil = Image.new("L", (width, height))
    ImageDraw.Draw(stencil).text(
        (1, height / 2), entry.text, fill=255, font=font(entry.size), anchor="lm"
    )
    turned = stencil.transpose(Image.Transpose.ROTATE_90)
    x, y = entry.position
    left = round(x - {"a": 0.0, "m": 0.5, "s": 1.0, "d": 1.0}[entry.anchor[1]] * height)
    top = round(y - {"l": 1.0, "m": 0.5, "r": 0.0}[entry.anchor[0]] * width)
    image.paste(entry.color, (left, top), turned)
