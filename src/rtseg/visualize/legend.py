"""Keys that stand beside a picture, and lines of text that stand on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rtseg.visualize.drawing import INK, MUTED, PAPER, Canvas, Color, Pixels, font, text_width


class KeyEntry(NamedTuple):
    """One line of a key: what stands for it, its name, and a figure at the right."""

    color: Color
    name: str
    value: str = ""


def key_panel(entries: Sequence[KeyEntry], *, height: int) -> Pixels:
    """Draw a key (height, w, 3), one entry per line; the last ones are counted if they do not fit.

    Args:
        entries: From top to bottom.
        height: Pixels; letters grow with it.
    """
    size = int(np.clip(height / max(len(entries), 8) / 1.9, 11, 30))
    pad, row_height = round(0.8 * size), round(1.7 * size)
    room = max(1, (height - pad) // row_height)
    hidden = len(entries) - room
    shown = entries if hidden <= 0 else entries[: room - 1]
    more = f"and {len(entries) - len(shown)} more" if hidden > 0 else ""
    widths = [text_width(entry.name, size) for entry in shown] + [text_width(more, size)]
    number = max((text_width(entry.value, size) for entry in shown), default=0)
    box, gap = round(1.1 * size), round(0.6 * size)
    canvas = Canvas(pad + box + gap + max(widths) + 2 * gap + number + pad, height)
    middle = pad / 2 + row_height / 2
    for entry in shown:
        square = (pad, middle - box / 2, pad + box, middle + box / 2)
        canvas.rectangle(square, entry.color, radius=0.2 * size)
        canvas.text((pad + box + gap, middle), entry.name, size=size)
        canvas.text((canvas.width - pad, middle), entry.value, size=size, color=MUTED, anchor="rm")
        middle += row_height
    canvas.text((pad + box + gap, middle), more, size=size, color=MUTED)
    return canvas.pixels()


def write_lines(image: Pixels, lines: Sequence[str], *, alpha: float = 0.5) -> Pixels:
    """Write lines of text into the upper left corner, on a darkened field.

    Args:
        image: RGB uint8 (H, W, 3), left as it is.
        lines: From top to bottom.
        alpha: How far the field behind the text is darkened, 0 (not at all) to 1 (black).

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: If `alpha` is out of range.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; it must be 0 to 1")
    height = image.shape[0]
    size = int(np.clip(height / (2 * max(len(lines), 1) + 2), 9, 28))
    pad, row = round(0.5 * size), round(1.4 * size)
    width = max((text_width(line, size) for line in lines), default=0) + 2 * pad
    field = image[: len(lines) * row + 2 * pad, :width]
    painted = image.copy()
    painted[: field.shape[0], : field.shape[1]] = np.round(field * (1 - alpha)).astype(np.uint8)
    picture = Image.fromarray(painted)
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        place = (pad, pad + (index + 0.5) * row)
        letters = font(size)
        draw.text(place, line, PAPER, letters, anchor="lm", stroke_width=1, stroke_fill=INK)
    return np.asarray(picture)
