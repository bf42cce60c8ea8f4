"""`rtseg data cache`: write a decoded copy of a data set, which is read faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtseg.cli.common import SetOption, Shared
from rtseg.cli.data_source import DataArgument, SplitsOption, open_chosen, reader_of


def cache(
    data: DataArgument,
    output: Annotated[Path, typer.Argument(help="Folder to write; it gets one per split.")],
    *,
    split: SplitsOption = None,
    options: SetOption = None,
    shared: Shared,
) -> None:
    """Write a copy of a data set that is read without decoding; samples are equal bit for bit.

    It needs as much room as the pixels do. Training reads it with data.train.name=cached
    data.train.root=OUTPUT, and stops when the original has changed.
    """
    from rtseg.data.atomic import require_replaceable
    from rtseg.data.cache import INDEX, SAMPLES, write_cache

    name, root, keywords = reader_of(data, options, shared)
    place = {} if root is None else {"root": str(root)}
    datasets = open_chosen(data, split, options, shared)
    for part in datasets:  # all of them, before the first one is written
        require_replaceable(output / part, (SAMPLES, INDEX), overwrite=shared.overwrite)
    splits, lines = {}, []
    for part, dataset in datasets.items():
        source = {"name": name, **place, "split": part, **keywords}
        with shared.progress(part) as progress:
            done = write_cache(
                dataset, output / part, source=source, overwrite=shared.overwrite, progress=progress
            )
        splits[part] = {"samples": done.samples, "bytes": done.bytes}
        lines.append(f"{part}: {done.samples} samples, {done.bytes / 2**20:,.1f} MiB")
    document = {"data": data, "output": output, "splits": splits}
    shared.finish(document, *lines, f"open it as cached={output}")
