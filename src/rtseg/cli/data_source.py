"""How the verbs below `rtseg data` name and open a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

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
    from rtseg.data.spec import open_data, open_splits, parse_spec

    keywords = reader_options(options)
    if shared.seed is not None and parse_spec(data)[0] == "synthetic":
        keywords = {"seed": shared.seed, **keywords}
    if splits:
        return {split: open_data(data, split, options=keywords) for split in splits}
    return open_splits(data, options=keywords)
