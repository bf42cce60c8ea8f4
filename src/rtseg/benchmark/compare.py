"""Whether a later measurement is slower than an earlier one; the gate against slow changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtseg.errors import ConfigError

CONDITIONS = ("device", "size", "batch", "precision", "threads", "protocol")
"""What two measurements must share to be compared."""
SUBJECT = ("network", "scope", "runtime")
"""What is compared."""


class Change(NamedTuple):
    """One measurement before and after.

    subject: network, scope, runtime, then precision, batch and size, as text.
    before_ms, after_ms: medians; after is None if it failed.
    change: relative; 0.05 is five percent slower. too_slow: more than allowed.
    """

    subject: str
    before_ms: float
    after_ms: float | None
    change: float | None
    too_slow: bool


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], *, max_regression: float
) -> list[Change]:
    """Compare the medians of two documents, measurement by measurement.

    Args:
        before: Document of a benchmark.
        after: A later one; it may hold further measurements.
        max_regression: How much longer a call may take, relative; 0.05 is five percent.

    Raises:
        ConfigError: Devices, sizes, batches, precisions, threads or protocols differ, or a
            measurement stands in `before` alone, or twice in one document.
    """
    if max_regression < 0:
        raise ConfigError(f"is {max_regression}", where="--max-regression", fix="use 5% or more")
    rows = {key: row for key, row in _rows(before).items() if row["error"] is None}
    later = _rows(after)
    if not rows:
        raise ConfigError(
            "has nothing that worked", where=str(before.get("path", "the first file")),
            fix="measure again",
        )  # fmt: skip
    return [_change(key, row, later, max_regression) for key, row in rows.items()]


def _change(
    key: tuple[str, ...],
    row: Mapping[str, Any],
    later: Mapping[tuple[str, ...], Mapping[str, Any]],
    max_regression: float,
) -> Change:
    other = later.get(key)
    if other is None:
        raise ConfigError(_difference(row, list(later.values())), fix="measure the same again")
    name = describe_row(row)
    old = float(row["latency"]["p50_ms"])
    if other["error"] is not None:
        return Change(name, old, None, None, too_slow=True)
    new = float(other["latency"]["p50_ms"])
    change = new / old - 1
    # One part in 10^9 of slack: 105 ms are 5 % more than 100 ms, whatever the last bit says.
    return Change(name, old, new, change, too_slow=change > max_regression + 1e-9)


def describe_row(row: Mapping[str, Any]) -> str:
    """Return what a row measures as one line."""
    height, width = row["size"]
    parts = [row["network"], row["scope"], row["runtime"], row["precision"]]
    return " ".join([*parts, f"batch {row['batch']}", f"{height}x{width}"])


def _rows(document: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the rows by everything that must agree."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in document["rows"]:
        full = {**row, "device": document["machine"]["device"], "protocol": document["protocol"]}
        key = tuple(str(full[name]) for name in (*SUBJECT, *CONDITIONS))
        if key in found:
            raise ConfigError(
                f"stands twice: {describe_row(row)}", where=str(document.get("path", "")),
                fix="give files with one measurement each",
            )  # fmt: skip
        found[key] = full
    return found


def _difference(row: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> str:
    """Say in what the nearest row of the other document differs."""
    name = describe_row(row)
    same = [item for item in later if all(item[part] == row[part] for part in SUBJECT)]
    if not same:
        return f"cannot be compared: the second file has no {name}"

    def apart(item: Mapping[str, Any]) -> list[str]:
        return [part for part in CONDITIONS if str(item[part]) != str(row[part])]

    nearest = min(same, key=lambda item: len(apart(item)))
    differences = [f"{part} {row[part]} and {nearest[part]}" for part in apart(nearest)]
    return f"cannot be compared: {name} was measured with {', '.join(differences)}"
