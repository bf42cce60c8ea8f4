"""A run while it goes on: a live bar on a terminal, otherwise one line per interval."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rtseg.cli.common import Shared, event_line

Display = Callable[[Mapping[str, Any]], None]
HEADLINE = (
    "miou", "pixel_accuracy", "mean_accuracy",
    "drivable_miou", "lane_iou", "lane_accuracy",
    "pq", "pq_things", "pq_stuff",
    "ap", "ap50", "accuracy", "top5_accuracy",
)  # fmt: skip
"""Scores of the tasks that are worth a place in a line; the log has all of them."""


@contextmanager
def run_display(shared: Shared) -> Iterator[Display]:
    """Yield the function that shows the events of a run on stderr."""
    if shared.quiet:
        yield lambda _event: None
    elif sys.stderr.isatty():
        with _live_display() as display:
            yield display
    else:
        yield lambda event: shared.log(describe(event))


def describe(event: Mapping[str, Any]) -> str:
    """Return the line of an event, with times in words and only the main scores."""
    values = dict(event)
    if "eta_seconds" in values:
        values["eta"] = duration(values.pop("eta_seconds"))
    if "images_per_second" in values:
        values["img/s"] = values.pop("images_per_second")
        values["data"] = f"{values.pop('data_share'):.0%}"
        values["memory"] = f"{values.pop('peak_memory_mb'):.0f} MB"
    values.pop("terms", None)
    if values.get("scores"):
        scores = values["scores"]
        values["scores"] = {name: scores[name] for name in HEADLINE if name in scores}
    return event_line(values)


def duration(seconds: float) -> str:
    """Return a time span such as `1 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def _live_display() -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=None, figures="preparing the first step")

        def display(event: Mapping[str, Any]) -> None:
            if event["event"] != "train":
                console.print(describe(event), highlight=False, soft_wrap=True)
                return
            figures = (
                f"loss {event['loss']:.4f}  {event['images_per_second']:.3g} img/s  "
                f"data {event['data_share']:.0%}  {duration(event['eta_seconds'])} left"
            )
            bar.update(task, completed=event["step"], total=event["total"], figures=figures)

        yield display
