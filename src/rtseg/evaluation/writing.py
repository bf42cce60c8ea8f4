"""Write an evaluation as files: JSON, tables, pictures, and one page with all of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtseg import visualize
from rtseg.data.dataset import Dataset
from rtseg.evaluation.images import ImageScores
from rtseg.evaluation.pictures import bar_pictures, confusion_pictures, sheet, worst_pictures
from rtseg.evaluation.tally import Evaluation
from rtseg.visualize import Picture, Section, Table

REPORT = "report.html"
TITLE = ("model", "data", "split")
"""What of the protocol stands at the top of the page; the rest is at its end."""


def write_evaluation(
    result: Evaluation, folder: Path, *, protocol: Mapping[str, Any]
) -> dict[str, Path]:
    """Write `metrics.json`, tables as CSV and the confusion matrices; return their paths.

    Args:
        result: Scores; a metric without classes or matrices has no such files.
        folder: Where they go: `per_class.csv`, `per_image.csv` if images were scored alone,
            `by_<attribute>.csv` if they were grouped, and `confusion.png`, or
            `confusion_<name>.png` if there are several.
        protocol: How the scores came about: checkpoint, data, split, size and so on.
    """
    groups = result.group_rows()
    document = {
        "protocol": dict(protocol),
        "scores": result.scores,
        "per_class": result.per_class,
        **({"by": groups} if groups else {}),
        "images": result.images,
        "seconds": round(result.seconds, 3),
    }
    text = json.dumps(document, indent=2) + "\n"
    files = {"metrics": visualize.write_text(folder / "metrics.json", text)}
    tables: dict[str, list[dict[str, Any]]] = {
        "per_class": result.per_class,
        "per_image": [_image_row(entry) for entry in result.per_image],
        **{f"by_{name}": rows for name, rows in groups.items()},
    }
    for name, rows in tables.items():
        if rows:
            files[name] = visualize.write_text(folder / f"{name}.csv", _csv(rows))
    for stem, picture in confusion_pictures(result).items():
        files[stem] = visualize.write_image(folder / f"{stem}.png", picture)
    return files


def write_report(
    result: Evaluation, dataset: Dataset, folder: Path, *, protocol: Mapping[str, Any]
) -> dict[str, Path]:
    """Write `report.html`, one page that needs no other file, and its pictures as files.

    Args:
        result: Scores; the images that it keeps as the worst ones are shown.
        dataset: Where those images come from.
        folder: For the page, `bars.png` if there are classes, and `worst.png`, a sheet of the
            images with the lowest scores, if any are kept.
        protocol: As for `write_evaluation`.
    """
    bars, worst = bar_pictures(result), worst_pictures(result.worst, dataset)
    pictures = {**bars, **({"worst": sheet(worst)} if worst else {})}
    files = {
        stem: visualize.write_image(folder / f"{stem}.png", pixels)
        for stem, pixels in pictures.items()
    }
    page = visualize.html_page(
        "Evaluation",
        _sections(
            result, [Picture(pixels, "Score of each class") for pixels in bars.values()], worst
        ),
        subtitle=", ".join(str(protocol[key]) for key in TITLE if key in protocol),
        footer="\n".join(f"{key}: {_text(value)}" for key, value in protocol.items()),
    )
    return {**files, "report": visualize.write_text(folder / REPORT, page)}


def _sections(
    result: Evaluation, bars: Sequence[Picture], worst: Sequence[Picture]
) -> list[Section]:
    """Return the parts of the page that have content."""
    count = f"{result.images:,} images in {result.seconds:.1f} s"
    scores = [(name.replace("_", " "), value) for name, value in result.scores.items()]
    parts: list[tuple[str, list[str | Table | Picture]]] = [
        ("Scores", [count, Table(("score", "value"), scores)])
    ]
    for name, rows in result.group_rows().items():
        whole = {name: "all", "images": result.images, **result.scores}
        parts.append((f"By {name}", [_html([*rows, {k: whole[k] for k in rows[0]}])]))
    if result.per_class:
        parts.append(("Classes", [*bars, _html(result.per_class)]))
    if worst:
        parts.append(("Lowest scores", list(worst)))
    matrices = [Picture(pixels, stem) for stem, pixels in confusion_pictures(result).items()]
    parts.append(("Confusion", list(matrices)))
    return [Section(heading, blocks) for heading, blocks in parts if blocks]


def _image_row(entry: ImageScores) -> dict[str, Any]:
    return {"image": entry.path, **entry.attributes, **entry.scores}


def _html(rows: Sequence[Mapping[str, Any]]) -> Table:
    keys = _columns(rows)
    heads = [key.replace("_", " ") for key in keys]
    return Table(heads, [[row.get(key) for key in keys] for row in rows])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; each column stands where it first occurs, a missing value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=_columns(rows))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
