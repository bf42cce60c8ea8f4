"""`rtseg val`: score a checkpoint on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli.common import Progress, Shared, make_table
from rtseg.errors import DataError

FILES = ("metrics.json", "per_class.csv", "confusion.png")


def val(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder, or run folder.")],
    *,
    data: Annotated[
        str, typer.Option(help="data.yaml, native folder, NAME=ROOT (camvid=data/camvid), or NAME.")
    ],
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("validation"),
    workers: Annotated[int, typer.Option(help="Reading processes.", min=0)] = 1,
    shared: Shared,
) -> None:
    """Score a checkpoint at native label size.

    Writes metrics.json, per_class.csv and confusion.png.
    """
    refuse_existing(output, FILES, shared)
    from rtseg.checkpoint import load
    from rtseg.data.spec import open_data
    from rtseg.evaluation import score, write_evaluation
    from rtseg.inference.predictor import choose_device

    loaded = load(checkpoint)
    dataset = open_data(data, split)
    device = choose_device(shared.device)
    with shared.progress("scoring") as progress:
        visit = count_images(progress, len(dataset))
        result = score(loaded, dataset, device=device, workers=workers, visit=visit)
    protocol = {
        "checkpoint": str(loaded.path), "model": loaded.info.name, "data": data, "split": split,
        "size": "native", "precision": "fp32", "device": str(device),
        "test_time_augmentation": "none",
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


def refuse_existing(folder: Path, names: Sequence[str], shared: Shared) -> None:
    """Raise if a folder holds results that would be replaced without `--overwrite`.

    Raises:
        DataError: A file is there.
    """
    found = [name for name in names if (folder / name).exists()]
    if found and not shared.overwrite:
        raise DataError(
            f"holds {found[0]} already",
            where=str(folder),
            fix="choose another --output, or replace it with --overwrite",
        )


def score_tables(result: Any) -> list[Any]:
    """Return the tables of an evaluation: one row per class, one per score."""
    classes = [
        (row["name"], _share(row["iou"]), _share(row["accuracy"]), f"{row['pixels']:,}")
        for row in result.per_class
    ]
    scores = [
        (name, f"{value:d}" if isinstance(value, int) else f"{value:.4f}")
        for name, value in result.scores.items()
    ]
    return [
        make_table("Classes", ("class", "IoU", "accuracy", "pixels"), classes, numbers=3),
        make_table(f"Scores over {result.images} images", ("score", "value"), scores, numbers=1),
    ]


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
