"""Pictures, charts, outlines, image files and report pages; needs only NumPy and Pillow."""

from __future__ import annotations

from rtseg.visualize.charts import Bubble, bar_chart, bubble_chart, confusion_picture, curves
from rtseg.visualize.drawing import NEUTRAL
from rtseg.visualize.files import (
    PictureFile,
    png_data_uri,
    write_bytes,
    write_image,
    write_mask,
    write_text,
)
from rtseg.visualize.legend import KeyEntry, key_panel, write_lines
from rtseg.visualize.overlay import colorize, comparison, overlay
from rtseg.visualize.polygons import mask_to_polygons
from rtseg.visualize.regions import (
    Region,
    bounding_box,
    inner_edge,
    paint_regions,
    vary_color,
)
from rtseg.visualize.report import Picture, Section, Table, html_page
from rtseg.visualize.sheet import contact_sheet, fit_width, hatched, label_sheet

__all__ = [
    "NEUTRAL",
    "Bubble",
    "KeyEntry",
    "Picture",
    "PictureFile",
    "Region",
    "Section",
    "Table",
    "bar_chart",
    "bounding_box",
    "bubble_chart",
    "colorize",
    "comparison",
    "confusion_picture",
    "contact_sheet",
    "curves",
    "fit_width",
    "hatched",
    "html_page",
    "inner_edge",
    "key_panel",
    "label_sheet",
    "mask_to_polygons",
    "overlay",
    "paint_regions",
    "png_data_uri",
    "vary_color",
    "write_bytes",
    "write_image",
    "write_lines",
    "write_mask",
    "write_text",
]
