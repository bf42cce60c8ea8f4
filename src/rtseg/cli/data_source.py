"""How the verbs below `rtseg data` name and open a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, reader_options

if TYPE_CHECKING:
    from rtseg.data.dataset import Dataset

DataArgument = Annotated[
    str,
    typer.Argument(
        help="Native folder, its data.yaml, NAME=ROOT (camvid=data/camvid), or synthetic."
    ),
]
SplitOption = Annotated[str | None, typer.Option(help="One split only; default: all.")]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="Split, repeatable; default: all.")
]


def open_chosen(
    data: str, splits: Sequence[str] | None, options: Sequence[str] | None, shared: Shared
) -> dict[str, Dataset]:
    """Open the chosen splits of a data set, or all that are there.

    Args:
        data: As in the table of `rtseg.data.spec`.
        splits: Names; None or empty for all.
        options: The strings of `--set`.
        shared: Its seed is that of the scenes of `synthetic`.
    """
    from rtseg.data.spec import open_data, open_splits

    _, _, keywords = reader_of(data, options, shared)
    if splits:
        return {split: open_data(data, split, options=keywords) for split in splits}
    return open_splits(data, options=keywords)


def reader_of(
    data: str, options: Sequence[str] | None, shared: Shared
) -> tuple[str, Path | None, dict[str, Any]]:
    """Return the name of the reader, its root if it has one, and its other keyword arguments."""
    from rtseg.data.spec import parse_spec

    keywords = reader_options(options)
    name, root = parse_spec(data)
    if shared.seed is not None and name == "synthetic":
        keywords = {"seed": shared.seed, **keywords}
    return name, root, keywords
