"""Bring the scores of a padded, resized input back to the pixels of its source image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rtseg.errors import ConfigError
from rtseg.ops.resize import resize_logits
from rtseg.structures import ImageMeta


def padded_source_size(meta: ImageMeta) -> tuple[int, int]:
    """Return (H, W) of what the whole network input covers, padding included, in source pixels."""
    (height, width), (h, w), (rows, columns) = meta.source_size, meta.input_size, meta.padding
    return round(height * (h + rows) / h), round(width * (w + columns) / w)


def source_window(meta: ImageMeta) -> tuple[slice, slice]:
    """Return the rows and columns of the source image inside of `padded_source_size`."""
    (height, width), (h, w), (above, left) = meta.source_size, meta.input_size, meta.offset
    rows, columns = padded_source_size(meta)
    top = min(round(height * above / h), rows - height)  # rounding must not lead beyond the end
    start = min(round(width * left / w), columns - width)
    return slice(top, top + height), slice(start, start + width)


def to_source(logits: Tensor, meta: ImageMeta) -> Tensor:
    """Resize the scores of one image to its source size, and cut the padding off.

    Args:
        logits: (1, K, h, w) over the whole input, padding included, at any resolution.
        meta: How the image was fitted into the input.

    Returns:
        (1, K, H, W) float32.
    """
    rows, columns = source_window(meta)
    return resize_logits(logits, padded_source_size(meta))[..., rows, columns]


def map_to_source(classes: Tensor, meta: ImageMeta) -> Tensor:
    """Resize the chosen classes of one image to its source size, and cut the padding off.

    Args:
        classes: (h, w) uint8 over the whole input, padding included.
        meta: How the image was fitted into the input.

    Returns:
        (H, W) uint8; where the size changes, each pixel takes the class of the nearest one.
    """
    rows, columns = source_window(meta)
    size = padded_source_size(meta)
    if tuple(classes.shape) != size:
        classes = F.interpolate(classes[None, None], size=size, mode="nearest-exact")[0, 0]
    return classes[rows, columns]


def refuse_confidence(*, asked: bool) -> None:
    """Raise if shares are asked for of an output that holds the chosen classes alone.

    Raises:
        ConfigError: They are.
    """
    if asked:
        raise ConfigError(
            "the exported file gives chosen classes, no scores",
            where="confidence",
            fix="leave it out, or export without --with-argmax",
        )
