"""`rtseg data`: find, check, count, draw and convert data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import SetOption, Shared, jsonable, make_table
from rtseg.cli.data_convert import convert
from rtseg.cli.data_preview import preview
from rtseg.cli.data_source import DataArgument, SplitOption, open_chosen
from rtseg.errors import DataError

if TYPE_CHECKING:
    from rtseg.data.check import CheckReport, Fault
    from rtseg.data.weights import ClassStatistics

REPORT = "report.json"
SHOWN = 50
"""Faults printed; the report holds all."""

OffsetOption = Annotated[float, typer.Option(help="Offset of the inverse_log weights.")]
OutputOption = Annotated[Path | None, typer.Option(help="Folder to write report.json to.")]


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


def check(
    data: DataArgument,
    *,
    split: SplitOption = None,
    options: SetOption = None,
    inverse_log_offset: OffsetOption = 1.02,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that remembers faultless files between checks.")
    ] = None,
    output: OutputOption = None,
    shared: Shared,
) -> int | None:
    """Read every file and name every fault; exit code 3 if there is one.

    Also prints class shares, and the loss weights that each scheme would use.
    """
    from rtseg.data.check import check_dataset

    _require_free(output, shared)
    splits = open_chosen(data, [split] if split else None, options, shared)
    with shared.progress("samples") as progress:
        report = check_dataset(splits, cache=cache, progress=progress)
    statistics = {name: summary.statistics for name, summary in report.splits.items()}
    document = {
        "data": data,
        **report.to_dict(),
        "weights": _all_weights(statistics, inverse_log_offset),
    }
    _write_report(output, document)
    shared.finish(
        document,
        *_fault_lines("fault", report.faults),
        *_fault_lines("warning", report.warnings),
        *_tables(statistics, inverse_log_offset),
        *_width_lines(report),
        _summary_line(report),
    )
    return None if report.ok else DataError.exit_code


def stats(
    data: DataArgument,
    *,
    split: SplitOption = None,
    options: SetOption = None,
    inverse_log_offset: OffsetOption = 1.02,
    output: OutputOption = None,
    shared: Shared,
) -> None:
    """Count the pixels of every class, and show the loss weights that each scheme would use."""
    from rtseg.data.weights import COUNTED_KINDS, class_statistics

    _require_free(output, shared)
    splits = open_chosen(data, [split] if split else None, options, shared)
    statistics = {
        name: {
            kind: class_statistics(dataset, kind=kind)
            for kind in dataset.kinds
            if kind in COUNTED_KINDS
        }
        for name, dataset in splits.items()
    }
    counts = {
        name: {kind: value.to_dict() for kind, value in kinds.items()}
        for name, kinds in statistics.items()
    }
    weights = _all_weights(statistics, inverse_log_offset)
    document = {"data": data, "splits": counts, "weights": weights}
    _write_report(output, document)
    shared.finish(document, *_tables(statistics, inverse_log_offset))


data = {
    "list": find,
    "check": check,
    "stats": stats,
    "preview": preview,
    "convert": convert,
}
"""The sub-verbs."""


def _require_free(output: Path | None, shared: Shared) -> None:
    if output is not None and (output / REPORT).exists() and not shared.overwrite:
        raise DataError(
            f"holds a {REPORT} already",
            where=str(output),
            fix="replace it with --overwrite, or choose another --output",
        )


# ---------------------------------------------------------------- showing
Statistics = Mapping[str, Mapping[str, "ClassStatistics"]]


def _all_weights(statistics: Statistics, offset: float) -> dict[str, Any]:
    """Return by split, label kind and scheme the weight of each class."""
    return {
        split: {kind: _weights(value, offset) for kind, value in kinds.items()}
        for split, kinds in statistics.items()
    }


def _weights(statistics: ClassStatistics, offset: float) -> dict[str, tuple[float, ...]]:
    from rtseg.data.weights import class_weights

    return {
        "none": class_weights(statistics),
        "inverse_log": class_weights(statistics, scheme="inverse_log", offset=offset),
        "median_frequency": class_weights(statistics, scheme="median_frequency"),
    }


def _tables(statistics: Statistics, offset: float) -> list[Any]:
    columns = [
        "id",
        "class",
        "pixels",
        "share",
        "images",
        f"inverse_log {offset:g}",
        "median_freq.",
    ]
    tables = []
    for split, kinds in statistics.items():
        for kind, value in kinds.items():
            weights = _weights(value, offset)
            rows = [
                [
                    index,
                    name,
                    f"{value.pixels[index]:,}",
                    f"{value.shares[index]:.3%}",
                    value.frames[index],
                    f"{weights['inverse_log'][index]:.3f}",
                    f"{weights['median_frequency'][index]:.3f}",
                ]
                for index, name in enumerate(value.names)
            ]
            title = f"{split}, {kind}: {value.images} images, {value.void:,} void pixels"
            tables.append(make_table(title, columns, rows, numbers=5))
    return tables


def _fault_lines(label: str, faults: tuple[Fault, ...]) -> list[str]:
    ordered = sorted(faults, key=lambda fault: (fault.file, fault.kind))
    lines = [f"{label}: {fault.file}: {fault.kind}: {fault.message}" for fault in ordered[:SHOWN]]
    if len(faults) > SHOWN:
        lines.append(f"... and {len(faults) - SHOWN} more {label}s (--json or --output shows all)")
    return lines


def _width_lines(report: CheckReport) -> list[str]:
    return [
        f"{split}: {kind} strokes are about {width:.1f} pixels wide"
        for split, summary in report.splits.items()
        for kind, width in summary.widths.items()
    ]


def _summary_line(report: CheckReport) -> str:
    images = ", ".join(f"{name} {summary.images}" for name, summary in report.splits.items())
    return f"{images} images: {len(report.faults)} faults, {len(report.warnings)} warnings"


def _write_report(output: Path | None, document: Mapping[str, Any]) -> None:
    if output is not None:
        from rtseg import visualize

        visualize.write_text(output / REPORT, json.dumps(jsonable(document), indent=2) + "\n")
