"""Pictures, charts, outlines, image files and report pages; needs only NumPy and Pillow."""

from __future__ import annotations

from rtseg.visualize.files import (
    png_data_uri,
    write_bytes,
    write_image,
    write_mask,
    write_text,
)
from rtseg.visualize.overlay import colorize, comparison, contact_sheet, overlay
from rtseg.visualize.polygons import mask_to_polygons

__all__ = [
    "colorize",
    "comparison",
    "contact_sheet",
    "mask_to_polygons",
    "overlay",
    "png_data_uri",
    "write_bytes",
    "write_image",
    "write_mask",
    "write_text",
]
