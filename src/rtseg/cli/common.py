"""What all verbs of the command line share: options, output, progress.

Contract of a verb. It is a function with typer annotations, named in the table of `main.py`, whose
last parameter is the keyword `shared`:

    def val(
        checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder.")],
        *,
        split: Annotated[str, typer.Option(help="Split to score.")] = "val",
        shared: Shared,
    ) -> int | None:
        (docstring: one imperative sentence, then what `--help` should say; no `Args:` section)

- `main.py` replaces `shared` by the options `--json --quiet --seed --device --overwrite --debug`,
  the same for every verb.
- The module imports torch and rooms that need it only inside functions.
- The verb calls `shared.finish(document, *renderables)` once: with `--json` the document is the
  only thing on stdout, otherwise the renderables (strings, rich tables) are. Everything else goes
  to stderr: `shared.log(text)`, `shared.progress(label)`, and `run_display` for events of a run.
- Errors are raised, never printed: the boundary in `main.py` prints one line, chooses the exit
  code, and with `--json` prints `{"error": {...}}`. A verb whose document already tells what failed
  returns the exit code instead.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

PANEL = "Options of every verb"
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=PANEL)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=PANEL)
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of whatever is random.", rich_help_panel=PANEL)
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=PANEL)
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing results.", rich_help_panel=PANEL)
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=PANEL)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Option of the data set, such as length=20; repeatable."),
]
ModelArgument = Annotated[
    Path, typer.Argument(help="Checkpoint, run or exported folder, or shipped weights.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads to compute with; by default those of torch.", min=1)
]
LINE_INTERVAL = 10.0
"""Seconds between two lines of progress where stderr is no terminal."""
Progress = Callable[[int, int | None], None]
"""Called as `progress(done, total)`; `total` is None while it is unknown."""


@dataclass(frozen=True)
class Shared:
    """The options that every verb has, and how a verb talks to the user."""

    json: JsonOption = False
    quiet: QuietOption = False
    seed: SeedOption = None
    device: DeviceOption = "auto"
    overwrite: OverwriteOption = False
    debug: DebugOption = False

    def finish(self, document: Mapping[str, Any], *renderables: Any) -> None:
        """Print the result: the document with `--json`, else the renderables (strings, tables)."""
        if self.json:
            print_json(document)
        elif not self.quiet:
            for item in renderables:
                _print(item)

    def log(self, text: str) -> None:
        """Write a line to stderr unless `--quiet`."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show progress on stderr: a bar on a terminal, else one line per interval."""
        if self.quiet:
            yield lambda _done, _total: None
        elif sys.stderr.isatty():
            with _progress_bar(label) as bar:
                yield bar
        else:
            yield _progress_lines(label)


def reader_options(options: Sequence[str] | None) -> dict[str, Any]:
    """Read the `key=value` strings of `--set` as a recipe reads them.

    Raises:
        ConfigError: One has no `=`, or what follows it is no YAML.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    for option in options or ():
        if "=" not in option:
            raise ConfigError(f"is {option!r}", where="--set", fix="write key=value")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(options or ())))
    except (OmegaConfBaseException, YAMLError):
        given = " ".join(options or ())
        fix = """write values as in YAML, texts with special characters in quotes: 'key="{a}.b"'"""
        raise ConfigError(f"cannot be read: {given}", where="--set", fix=fix) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event of a run log as one line, such as `step 20/400  loss 1.2345  lr 0.0004`."""
    values = dict(event)
    kind, step, total = values.pop("event", ""), values.pop("step", None), values.pop("total", None)
    message = values.pop("message", None)
    if message is not None:
        return f"{kind}: {message}"
    scores = values.pop("scores", None) or {}
    figures = {**values, **scores}
    place = "" if step is None else f"step {step}" + (f"/{total}" if total else "")
    prefix = "" if kind == "train" else kind
    parts = [prefix, place, *(f"{name} {_figure(value)}" for name, value in figures.items())]
    return "  ".join(part for part in parts if part and "{" not in part)


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def jsonable(value: Any) -> Any:
    """Return `value` in types that JSON has; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(jsonable(document), indent=2, allow_nan=False), flush=True)


def make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: int = 0
) -> Table:
    """Return a rich table.

    Args:
        title: Line above it, "" for none.
        columns: Heads of the columns.
        rows: Cells; each is written with `str`.
        numbers: How many columns, counted from the right, are aligned to the right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(columns):
        right = index >= len(columns) - numbers
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _print(item: Any) -> None:
    """Print a string as it is, so that paths are never wrapped, and anything else with rich."""
    if isinstance(item, str):
        print(item, flush=True)
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(item)


def _progress_lines(label: str) -> Progress:
    last = time.monotonic()

    def write(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_INTERVAL:
            last = time.monotonic()
            print(f"{label}  {done}" + (f"/{total}" if total else ""), file=sys.stderr, flush=True)

    return write


@contextmanager
def _progress_bar(label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
