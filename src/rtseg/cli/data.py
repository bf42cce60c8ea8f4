"""`rtseg data`: find, check, count, draw and convert data sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.cli.data_check import check, stats
from rtseg.cli.data_convert import convert
from rtseg.cli.data_preview import preview
from rtseg.errors import DataError


def find(
    root: Annotated[Path, typer.Argument(help="Folder to search, three levels deep.")],
    *,
    shared: Shared,
) -> None:
    """List the data sets below a folder: native ones and those of built-in readers."""
    from rtseg.data.spec import find_data

    found = find_data(root)
    if not found:
        raise DataError(
            "holds no data set that is known",
            where=str(root),
            fix="write a data.yaml for your own, or give the folder above the data set",
        )
    rows = [
        [
            item.spec,
            " ".join(f"{split} {count}" for split, count in item.images.items()) or item.error,
            len(item.classes) or "",
            " ".join(item.kinds),
        ]
        for item in found
    ]
    table = make_table("", ["DATA", "images", "classes", "labels"], rows)
    shared.finish({"data": [asdict(item) for item in found]}, table)


data = {
    "list": find,
    "check": check,
    "stats": stats,
    "preview": preview,
    "convert": convert,
}
"""The sub-verbs."""
