"""`rtseg data`: find, check, count, draw, convert and cache data sets; a file for each of these."""

from __future__ import annotations

from rtseg.cli.data_cache import cache
from rtseg.cli.data_check import check, stats
from rtseg.cli.data_convert import convert
from rtseg.cli.data_list import list_sets
from rtseg.cli.data_preview import preview

data = {
    "list": list_sets,
    "check": check,
    "stats": stats,
    "preview": preview,
    "convert": convert,
    "cache": cache,
}
"""The sub-verbs."""
