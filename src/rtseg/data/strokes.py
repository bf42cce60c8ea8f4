"""How wide the strokes of a binary mask are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stroke_width(mask: NDArray[Any]) -> float | None:
    """Return the usual width of strokes in pixels, None if there are none.

    It is twice the distance to the background, less one, at the middle of the strokes: the median
    over all pixels that are as far from it as any neighbour. Exact for strokes of an odd width
    along a side of the image; one less for an even width, up to a fifth less for slanted ones.

    Args:
        mask: (H, W); strokes are 1.
    """
    from scipy import ndimage

    strokes = np.pad(mask == 1, 1)
    if not strokes.any():
        return None
    distance = ndimage.distance_transform_edt(strokes)
    middle = strokes & (distance == ndimage.maximum_filter(distance, size=3))
    return float(2 * np.median(distance[middle]) - 1)
