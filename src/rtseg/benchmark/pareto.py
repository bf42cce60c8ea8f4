"""Which networks are beaten by no other: accuracy over speed, as the papers' first figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtseg.errors import ConfigError
from rtseg.visualize import Bubble, bubble_chart
from rtseg.visualize.drawing import Pixels

PREFERRED = ("miou", "pq", "ap", "drivable_miou", "lane_iou", "accuracy")
"""Scores of a checkpoint, the one to draw first."""


class Point(NamedTuple):
    """A network in the picture: images per second, score, and GFLOPs of an image."""

    name: str
    speed: float
    score: float
    gflops: float
    conditions: tuple[str, ...]


def points(
    documents: Sequence[Mapping[str, Any]], scores: Mapping[str, float], *, metric: str | None
) -> tuple[list[Point], str]:
    """Return the fastest measurement of each network, and the name of the score.

    Args:
        documents: Of benchmarks; measurements that failed are left out.
        scores: By name of a network; they go before those of the checkpoints.
        metric: Name of the checkpoints' score; None takes the first of `PREFERRED` that all have.

    Raises:
        ConfigError: A network has no score, `scores` names another network, or devices, sizes,
            batches or scopes differ, so that the speeds do not belong into one picture.
    """
    rows = [
        {**row, "device": document["machine"]["device"]}
        for document in documents
        for row in document["rows"]
        if row["error"] is None
    ]
    if not rows:
        raise ConfigError("no measurement worked", where="--pareto", fix="measure again")
    _require_same(rows)
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=_speed):
        best[row["network"]] = row
    unknown = [name for name in scores if name not in best]
    if unknown:
        raise ConfigError(
            f"names {unknown[0]!r}, which was not measured", where="--score",
            fix=f"use one of: {', '.join(best)}",
        )  # fmt: skip
    chosen = metric or _common_metric([row for name, row in best.items() if name not in scores])
    found = []
    for name, row in best.items():
        score = scores.get(name, row["scores"].get(chosen))
        if score is None:
            raise ConfigError(
                f"{name} has no score", where="--pareto", fix=f"add --score {name}=0.75"
            )
        conditions = (row["runtime"], row["precision"])
        gflops = row["complexity"]["gflops"]
        found.append(Point(name, _speed(row), float(score), gflops, conditions))
    return found, chosen


def front(found: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in speed and score, the fastest last."""
    kept: list[Point] = []
    for point in sorted(found, key=lambda item: (-item.speed, -item.score)):
        if not kept or point.score > kept[-1].score:
            kept.append(point)
    return kept[::-1]


def picture(found: Sequence[Point], *, metric: str, note: str) -> Pixels:
    """Draw scores over images per second; the area of a dot is its GFLOPs, a line the front.

    Args:
        found: The networks.
        metric: Name of the score.
        note: Device, size, batch: what the speeds depend on.

    Returns:
        RGB uint8 (H, W, 3).
    """
    bubbles = [Bubble(point.speed, point.score, point.gflops, _caption(point)) for point in found]
    line = [(point.speed, point.score) for point in front(found)]
    return bubble_chart(
        bubbles, line, title=f"{metric} and speed; area: GFLOPs of an image",
        xlabel=f"images/s ({note})", ylabel=metric,
    )  # fmt: skip


def conditions(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return what the speeds of all rows depend on: device, size, batch, scope, threads."""
    document = documents[0]
    row = next(row for item in documents for row in item["rows"] if row["error"] is None)
    height, width = row["size"]
    device = document["machine"]["device"].split(",")[0]
    return f"{device}, {height}x{width}, batch {row['batch']}, threads {row['threads']}"


def _caption(point: Point) -> str:
    runtime, precision = point.conditions
    return f"{point.name} ({runtime} {precision}, {point.gflops:.1f} G)"


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["latency"]["images_per_second"])


def _require_same(rows: Sequence[Mapping[str, Any]]) -> None:
    for key in ("device", "size", "batch", "scope", "threads"):
        values = list(dict.fromkeys(str(row[key]) for row in rows))
        if len(values) > 1:
            raise ConfigError(
                f"speeds with {key} {values[0]} and {values[1]} do not belong into one picture",
                where="--pareto", fix="measure all alike",
            )  # fmt: skip


def _common_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    for name in PREFERRED:
        if all(name in row["scores"] for row in rows):
            return name
    return PREFERRED[0]
