"""`rtseg data check` and `rtseg data stats`: name what is wrong, count what is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import SetOption, Shared, jsonable, make_table
from rtseg.cli.data_source import DataArgument, SplitOption, open_chosen
from rtseg.errors import DataError

if TYPE_CHECKING:
    from rtseg.data.check import CheckReport, Fault, SplitSummary
    from rtseg.data.weights import ClassStatistics

REPORT = "report.json"
SHOWN = 50
"""Faults printed; the report holds all."""
SIZES = 3
"""Image sizes printed for each split; the report holds all."""

OffsetOption = Annotated[float, typer.Option(help="Offset of the inverse_log weights.")]
OutputOption = Annotated[Path | None, typer.Option(help="Folder to write report.json to.")]


def check(
    data: DataArgument,
    *,
    split: SplitOption = None,
    options: SetOption = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Kind of fault that only warns, such as leakage; repeatable."),
    ] = None,
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
        report = check_dataset(splits, allow=allow or (), cache=cache, progress=progress)
    weights = _all_weights(report, inverse_log_offset)
    document = {"data": data, **report.to_dict(), "weights": weights}
    _write_report(output, document)
    shared.finish(
        document,
        *_fault_lines("fault", report.faults),
        *_fault_lines("warning", report.warnings),
        *_class_tables(report, inverse_log_offset),
        *_width_lines(report),
        _last_line(report),
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
) -> int | None:
    """Show sizes, colors, classes, stroke widths and attributes; 3 if a file cannot be counted.

    Class tables hold the loss weights that each scheme would use.
    """
    from rtseg.data.check import FORMAT, check_dataset

    _require_free(output, shared)
    splits = open_chosen(data, [split] if split else None, options, shared)
    with shared.progress("samples") as progress:
        report = check_dataset(splits, progress=progress)
    document = {
        "data": data,
        "format": FORMAT,
        "splits": {name: summary.to_dict() for name, summary in report.splits.items()},
        "weights": _all_weights(report, inverse_log_offset),
    }
    _write_report(output, document)
    shared.finish(
        document,
        *(line for name, summary in report.splits.items() for line in _facts(name, summary)),
        *_class_tables(report, inverse_log_offset),
        *_width_lines(report),
    )
    return _warn_of_uncounted(report, shared)


def _warn_of_uncounted(report: CheckReport, shared: Shared) -> int | None:
    uncounted = sum(summary.images - summary.counted for summary in report.splits.values())
    if not uncounted:
        return None
    first = report.faults[0]
    shared.log(
        f"{uncounted} samples could not be counted in full; the first fault: {first.file}: "
        f"{first.message} (`rtseg data check` names all)"
    )
    return DataError.exit_code


def _require_free(output: Path | None, shared: Shared) -> None:
    if output is not None and (output / REPORT).exists() and not shared.overwrite:
        raise DataError(
            f"holds a {REPORT} already",
            where=str(output),
            fix="replace it with --overwrite, or choose another --output",
        )


def _write_report(output: Path | None, document: Mapping[str, Any]) -> None:
    if output is not None:
        from rtseg import visualize

        visualize.write_text(output / REPORT, json.dumps(jsonable(document), indent=2) + "\n")


# ---------------------------------------------------------------- weights
def _all_weights(report: CheckReport, offset: float) -> dict[str, Any]:
    """Return by split, label kind and scheme the weight of each class."""
    return {
        split: {kind: _weights(value, offset) for kind, value in summary.statistics.items()}
        for split, summary in report.splits.items()
    }


def _weights(statistics: ClassStatistics, offset: float) -> dict[str, tuple[float, ...]]:
    from rtseg.data.weights import class_weights

    return {
        "none": class_weights(statistics),
        "inverse_log": class_weights(statistics, scheme="inverse_log", offset=offset),
        "median_frequency": class_weights(statistics, scheme="median_frequency"),
    }


# ---------------------------------------------------------------- showing
def _class_tables(report: CheckReport, offset: float) -> Iterator[Any]:
    schemes = ["none", f"inverse_log {offset:g}", "median_freq."]
    for split, summary in report.splits.items():
        for kind, value in summary.statistics.items():
            weights = _weights(value, offset)
            rows = [
                [
                    index,
                    name,
                    f"{value.pixels[index]:,}",
                    f"{value.shares[index]:.3%}",
                    value.frames[index],
                    *(f"{scheme[index]:.3f}" for scheme in weights.values()),
                ]
                for index, name in enumerate(value.names)
            ]
            title = f"{split}, {kind}: {value.images} images, {value.void:,} void pixels"
            columns = ["id", "class", "pixels", "share", "images", *schemes]
            yield make_table(title, columns, rows, numbers=6)


def _facts(split: str, summary: SplitSummary) -> Iterator[str]:
    """Yield sizes, channel statistics and attributes of a split as lines."""
    sizes = Counter(summary.sizes).most_common()
    shown = ", ".join(f"{count} of {height}x{width}" for (height, width), count in sizes[:SIZES])
    more = f" and {len(sizes) - SIZES} more sizes" if len(sizes) > SIZES else ""
    yield f"{split}: {summary.images} images: {shown}{more} (H x W)"
    if summary.channel_mean is not None and summary.channel_std is not None:
        mean, std = (
            " ".join(f"{value:.2f}" for value in values)
            for values in (summary.channel_mean, summary.channel_std)
        )
        yield f"{split}: RGB mean {mean}, standard deviation {std} (0-255)"
    for name, values in summary.attributes.items():
        counts = ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())
        yield f"{split}: {name}: {counts}"


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


def _last_line(report: CheckReport) -> str:
    images = ", ".join(f"{name} {summary.images}" for name, summary in report.splits.items())
    return f"{images} images: {len(report.faults)} faults, {len(report.warnings)} warnings"
