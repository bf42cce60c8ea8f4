"""`rtseg compare`: curves, scores and settings of runs side by side, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rtseg.training.comparison import RunRecord
    from rtseg.visualize import Picture, Section

PREFERRED = ("miou", "pq", "ap", "drivable_miou", "lane_iou", "accuracy")
"""Scores that are drawn beside the monitored ones, where runs have them."""
MOST_SCORES = 6


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    *,
    output: Annotated[Path, typer.Option(help="Page to write.")] = Path("comparison.html"),
    shared: Shared,
) -> None:
    """Compare runs: curves over steps and over time, scores, and the settings in which they differ.

    Runs that differ by their seed only are summed up by mean and spread.
    """
    if output.suffix.lower() not in {".html", ".htm"}:
        raise ConfigError(f"is {str(output)!r}", where="--output", fix="name a file *.html")
    if output.exists() and not shared.overwrite:
        raise DataError(
            "is there already", where=str(output), fix="choose another --output, or --overwrite"
        )
    from rtseg import visualize
    from rtseg.training.comparison import differing_settings, read_runs, seed_groups

    records = read_runs(runs)
    summaries = [record.summary for record in records]
    settings, groups = differing_settings(records), seed_groups(records)
    sections = _page(records, summaries, settings, groups)
    names = ", ".join(record.name for record in records)
    page = visualize.html_page("Comparison of runs", sections, subtitle=names)
    visualize.write_text(output, page)
    document = {"runs": summaries, "settings": settings, "groups": groups, "page": str(output)}
    columns = ("run", "steps", "monitor", "best", "last", "images_per_second", "training_minutes")
    rows = [[_text(item[column]) for column in columns] for item in summaries]
    heads = [column.replace("_", " ") for column in columns]
    lines = [
        f"{len(group['runs'])} seeds: {group['score']} {group['mean']:.4f} +- {group['spread']:.4f}"
        for group in groups
    ]
    shared.finish(
        document, make_table("Runs", heads, rows, numbers=5), *lines, f"written to {output}"
    )


def _page(
    records: Sequence[RunRecord],
    summaries: Sequence[dict[str, Any]],
    settings: dict[str, list[Any]],
    groups: Sequence[dict[str, Any]],
) -> list[Section]:
    from rtseg.visualize import Section, Table

    heads = [name.replace("_", " ") for name in summaries[0]]
    overview = Table(heads, [[_cell(item) for item in row.values()] for row in summaries])
    sections = [Section("Runs", [overview])]
    if groups:
        rows = [
            [", ".join(item["runs"]), item["score"], item["mean"], item["spread"]]
            for item in groups
        ]
        caption = "Runs that differ by their seed only; spread is the standard deviation."
        table = Table(["runs", "score", "mean", "spread"], rows, caption)
        sections.append(Section("Seeds", [table]))
    names = [record.name for record in records]
    if settings:
        rows = [[key, *(_cell(value) for value in values)] for key, values in settings.items()]
        sections.append(Section("Settings that differ", [Table(["setting", *names], rows)]))
    sections.append(Section("Training", _training_pictures(records)))
    scores = _score_pictures(records)
    if scores:
        sections.append(Section("Validation", scores))
    return [*sections, Section("Last scores", [_last_scores(records)])]


def _training_pictures(records: Sequence[RunRecord]) -> list[Picture]:
    from rtseg.visualize import Picture, curves

    figures = {"loss": "Training loss", "lr": "Learning rate", "images_per_second": "Images/s"}
    return [
        Picture(
            curves(
                {record.name: record.curve(name) for record in records},
                title=title, xlabel="step", ylabel=name.replace("_", " "),
            )
        )
        for name, title in figures.items()
    ]  # fmt: skip


def _score_pictures(records: Sequence[RunRecord]) -> list[Picture]:
    from rtseg.visualize import Picture, curves

    available = dict.fromkeys(name for record in records for name in record.score_names)
    monitored = [record.setting("train.monitor") for record in records]
    chosen = [name for name in dict.fromkeys([*monitored, *PREFERRED]) if name in available]
    pictures = []
    for name in chosen[:MOST_SCORES]:
        steps = {record.name: record.scores(name) for record in records}
        times = {record.name: record.scores_over_time(name) for record in records}
        for series, label in ((steps, "step"), (times, "minutes of training")):
            pictures.append(Picture(curves(series, title=name, xlabel=label, ylabel=name)))
    return pictures


def _last_scores(records: Sequence[RunRecord]) -> Any:
    from rtseg.visualize import Table

    names = dict.fromkeys(name for record in records for name in record.score_names)
    rows: list[list[str | float | None]] = []
    for name in names:
        found = [record.scores(name) for record in records]
        rows.append([name, *(scores[-1][1] if scores else None for scores in found)])
    return Table(["score", *(record.name for record in records)], rows)


def _cell(value: Any) -> str | int | float | None:
    """Return a value as a cell of the page; what is no plain value becomes text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
