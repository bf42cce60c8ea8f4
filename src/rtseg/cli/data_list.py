"""`rtseg data list`: the data sets below a folder, and what they lack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.errors import DataError

if TYPE_CHECKING:
    from rtseg.data.spec import Found, Gap

SHOWN = 3
"""Missing files of a split that are named; `--json` names all."""


def list_sets(
    root: Annotated[Path, typer.Argument(help="Folder to search, three levels deep.")],
    *,
    shared: Shared,
) -> None:
    """List the data sets below a folder, native and published ones, and what they lack."""
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
    gaps = [line for item in found for line in _gap_lines(item)]
    shared.finish({"data": [asdict(item) for item in found]}, table, *gaps)


def _gap_lines(item: Found) -> Iterator[str]:
    """Say of each split what is missing: what it needs as a whole, then the first single files."""
    for split in dict.fromkeys(gap.split for gap in item.missing):
        gaps = [gap for gap in item.missing if gap.split == split]
        parts = []
        if split in item.images:
            parts.append(f"{item.complete[split]:,} of {item.images[split]:,} images are complete")
        parts += [_whole(gap) for gap in gaps if gap.kind != "file"]
        files = [gap.path for gap in gaps if gap.kind == "file"]
        if files:
            more = ", ..." if len(files) > SHOWN else ""
            parts.append(f"missing files: {len(files):,} ({', '.join(files[:SHOWN])}{more})")
        yield f"{item.spec}: {split}: {'; '.join(parts)}"


def _whole(gap: Gap) -> str:
    return f"{gap.path} {gap.what}" + (f" (files: {gap.files:,})" if gap.kind == "folder" else "")
