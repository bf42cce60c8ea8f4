"""Pictures, charts, outlines, image files and report pages; needs only NumPy and Pillow."""

from __future__ import annotations

from rtseg.visualize.charts import bar_chart, confusion_picture, curves
from rtseg.visualize.files import (
    png_data_uri,
    write_bytes,
    write_image,
    write_mask,
    write_text,
)
from rtseg.visualize.overlay import colorize, comparison, contact_sheet, overlay
from rtseg.visualize.polygons import mask_to_polygons
from rtseg.visualize.report import Picture, Section, Table, html_page

__all__ = [
    "Picture",
    "Section",
    "Table",
    "bar_chart",
    "colorize",
    "comparison",
    "confusion_picture",
    "contact_sheet",
    "curves",
    "html_page",
    "mask_to_polygons",
    "overlay",
    "png_data_uri",
    "write_bytes",
    "write_image",
    "write_mask",
    "write_text",
]
