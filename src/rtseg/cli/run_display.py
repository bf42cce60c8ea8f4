"""A run while it goes on: a live table on a terminal, otherwise one line per interval."""

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


class Status:
    """What a live table says: the last line of training, the last validation and the best one."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.validation: dict[str, Any] = {}
        self.best: tuple[str, float, int] | None = None

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run."""
        if event["event"] == "train":
            self.latest = dict(event)
        if event["event"] == "validation":
            self.validation = dict(event)
            name = next((name for name in HEADLINE if name in event["scores"]), None)
            if name is not None and (self.best is None or event["scores"][name] > self.best[1]):
                self.best = (name, event["scores"][name], event["step"])

    def rows(self) -> list[tuple[str, str]]:
        """Return name and figures of each row; only of what is known."""
        found = [*self._training(), *self._speed()] if self.latest else []
        if self.validation:
            scores = self.validation["scores"]
            shown = [f"{name} {scores[name]:.4f}" for name in HEADLINE if name in scores][:3]
            found.append((f"validation {self.validation['step']}", "  ".join(shown)))
        if self.best is not None:
            name, value, step = self.best
            found.append(("best", f"{name} {value:.4f} at step {step}"))
        return found

    def _training(self) -> list[tuple[str, str]]:
        terms = self.latest["terms"]
        parts = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
        loss = f"{self.latest['loss']:.4f}"
        return [
            ("loss", f"{loss}  ({parts})" if len(terms) > 1 else loss),
            ("learning rate", f"{self.latest['lr']:.3g}  epoch {self.latest['epoch']:.2f}"),
        ]

    def _speed(self) -> list[tuple[str, str]]:
        latest = self.latest
        speed = f"{latest['images_per_second']:.3g} images/s"
        waiting = f"{latest['data_share']:.0%} waiting for images"
        memory = f"{latest['peak_memory_mb']:,.0f} MB"
        left = f"{duration(latest['eta_seconds'])} left"
        return [("speed", f"{speed}  {waiting}  {memory}  {left}")]


@contextmanager
def _live_display() -> Iterator[Display]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table

    console, status = Console(stderr=True), Status()
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    task = bar.add_task("preparing the first step", total=None)

    def picture() -> Group:
        table = Table.grid(padding=(0, 2))
        for name, figures in status.rows():
            table.add_row(f"[dim]{name}[/dim]", figures)
        return Group(table, bar)

    with Live(picture(), console=console, transient=True) as live:

        def display(event: Mapping[str, Any]) -> None:
            status.add(event)
            if event["event"] == "train":
                done, total = event["step"], event["total"]
                bar.update(task, description="training", completed=done, total=total)
            else:
                console.print(describe(event), highlight=False, soft_wrap=True)
            live.update(picture())

        yield display
