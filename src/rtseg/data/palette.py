"""Colors for any number of classes."""

from __future__ import annotations


def spread_color(index: int) -> tuple[int, int, int]:
    """Return the color of a class id, RGB in 0-255; different ids have different colors.

    The bits of the id go to red, green and blue in turn, the lowest ones to the highest bits.

    Source: the palette of PASCAL VOC (Everingham et al., 2012 development kit).
    """
    channels = [0, 0, 0]
    for place in range(24):
        channels[place % 3] |= (index >> place & 1) << 7 - place // 3
    return channels[0], channels[1], channels[2]
