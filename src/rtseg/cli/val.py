"""`rtseg val`: score a checkpoint on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Progress, SetOption, Shared, make_table, reader_options
from rtseg.errors import DataError

if TYPE_CHECKING:
    from rtseg.evaluation import Evaluation

FILES = ("metrics.json", "per_class.csv", "confusion*.png")
"""Patterns of what `write_evaluation` writes."""
HEADS = {"name": "class", "iou": "IoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75"}
HEADS |= {name: name.upper() for name in ("pq", "sq", "rq")}


def val(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, or run folder.")],
    *,
    data: Annotated[
        str, typer.Option(help="data.yaml, native folder, NAME=ROOT (camvid=data/camvid), or NAME.")
    ],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    options: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("validation"),
    workers: Annotated[int, typer.Option(help="Reading processes.", min=0)] = 1,
    shared: Shared,
) -> None:
    """Score a checkpoint, at native label size unless it was trained with another rule.

    Writes metrics.json, and what the task has of per_class.csv and confusion matrices (.png).
    """
    refuse_existing(output, FILES, shared)
    from rtseg.checkpoint import load
    from rtseg.data.spec import open_data
    from rtseg.evaluation import score, write_evaluation
    from rtseg.inference.predictor import choose_device

    loaded = load(checkpoint)
    chosen = reader_options(options)
    dataset = open_data(data, split, options=chosen)
    device = choose_device(shared.device)
    with shared.progress("scoring") as progress:
        visit = count_images(progress, len(dataset))
        result = score(loaded, dataset, device=device, workers=workers, visit=visit)
    protocol = {
        "checkpoint": str(loaded.path), "model": loaded.info.name, "data": data, "split": split,
        "data_options": chosen, "size": loaded.info.preprocess.get("score_at", "native"),
        "precision": "fp32", "device": str(device), "test_time_augmentation": "none",
    }  # fmt: skip
    files = write_evaluation(result, output, protocol=protocol)
    document = {
        "protocol": protocol, "scores": result.scores, "per_class": result.per_class, "files": files
    }  # fmt: skip
    shared.finish(document, *score_tables(result), f"written to {output}")


def count_images(progress: Progress, total: int) -> Callable[[Any, Sequence[Any]], None]:
    """Return a visitor of an evaluation that shows how many images are done."""
    done = 0

    def visit(_batch: Any, results: Sequence[Any]) -> None:
        nonlocal done
        done += len(results)
        progress(done, total)

    return visit


def refuse_existing(folder: Path, patterns: Sequence[str], shared: Shared) -> None:
    """Raise if a folder holds results that would be replaced without `--overwrite`.

    Args:
        folder: It need not be there.
        patterns: Names of files, which may hold wildcards.
        shared: Says whether results may be replaced.

    Raises:
        DataError: A file is there.
    """
    found = [path.name for pattern in patterns for path in folder.glob(pattern)]
    if found and not shared.overwrite:
        raise DataError(
            f"holds {found[0]} already",
            where=str(folder),
            fix="choose another --output, or replace it with --overwrite",
        )


def score_tables(result: Evaluation) -> list[Any]:
    """Return the tables of an evaluation: one row per class if there are any, one per score."""
    scores = [(name, _number(value)) for name, value in result.scores.items()]
    title = f"Scores over {result.images} images"
    tables = [make_table(title, ("score", "value"), scores, numbers=1)]
    if result.per_class:
        columns = list(dict.fromkeys(key for row in result.per_class for key in row))
        rows = [
            [row["name"], *(_number(row.get(key)) for key in columns if key != "name")]
            for row in result.per_class
        ]
        heads = [HEADS.get(key, key.replace("_", " ")) for key in columns]
        tables.insert(0, make_table("Classes", heads, rows, numbers=len(heads) - 1))
    return tables


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,d}" if isinstance(value, int) else f"{value:.4f}"
