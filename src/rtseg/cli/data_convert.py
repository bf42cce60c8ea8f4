"""`rtseg data convert`: write a data set in the native layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rtseg.cli.common import SetOption, Shared
from rtseg.cli.data_source import DataArgument, SplitsOption, open_chosen


def convert(
    data: DataArgument,
    output: Annotated[Path, typer.Argument(help="Native folder to write.")],
    *,
    split: SplitsOption = None,
    options: SetOption = None,
    images: Annotated[
        Literal["copy", "link"],
        typer.Option(help="Image files: copy them, or link (symbolic links to them)."),
    ] = "copy",
    shared: Shared,
) -> None:
    """Write a data set in the native layout: images, masks of class ids, data.yaml.

    Reading the result gives the same pixels and labels. The folder appears when all of it is
    written, or not at all.
    """
    from rtseg.data import convert as conversion

    datasets = open_chosen(data, split, options, shared)
    with shared.progress("samples") as progress:
        done = conversion.convert(
            datasets, output, images=images, overwrite=shared.overwrite, progress=progress
        )
    first = next(iter(datasets.values()))
    counts = ", ".join(f"{name} {count}" for name, count in done.images.items())
    ways = {"copied": done.copied, "linked": done.linked, "saved as PNG": done.encoded}
    document = {
        "data": data,
        "output": output,
        "labels": first.kinds,
        "classes": [item.name for item in first.classes],
        **done.to_dict(),
    }
    shared.finish(
        document,
        f"{counts} images: " + ", ".join(f"{count} {way}" for way, count in ways.items() if count),
        f"written to {output}; look at it with: rtseg data preview {output}",
    )
