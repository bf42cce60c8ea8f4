"""`rtseg val`: score a checkpoint on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import (
    ModelArgument,
    Progress,
    SetOption,
    Shared,
    ThreadsOption,
    make_table,
    reader_options,
)
from rtseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rtseg.checkpoint import Checkpoint
    from rtseg.data.dataset import Dataset
    from rtseg.data.views import Views
    from rtseg.evaluation import Evaluation
    from rtseg.tasks.views import Windows

FILES = (
    "metrics.json", "per_class.csv", "per_image.csv", "by_*.csv", "confusion*.png",
    "report.html", "bars.png", "worst.png",
)  # fmt: skip
"""Patterns of what an evaluation writes."""
HEADS = {"name": "class", "iou": "IoU", "ap": "AP", "ap50": "AP50", "ap75": "AP75"}
HEADS |= {"boundary_iou": "boundary IoU"} | {name: name.upper() for name in ("pq", "sq", "rq")}
COLUMNS = (
    "miou", "pixel_accuracy", "boundary_iou", "drivable_miou", "lane_iou",
    "lane_balanced_accuracy", "pq", "sq", "rq", "ap", "ap50", "accuracy", "top5_accuracy",
)  # fmt: skip
"""Scores of a group of images that a terminal shows; the files hold all."""
LOOK, REPORT = "How the network looks at an image", "What is reported"

RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="torch (for a checkpoint the default), auto (the fastest; for an export what opens "
        "it), compile, cudagraph, onnxruntime, openvino, tensorrt, torch_export or aoti."
    ),
]
DataOption = Annotated[
    str, typer.Option(help="data.yaml, native folder, NAME=ROOT (camvid=data/camvid), or NAME.")
]
SplitOption = Annotated[str, typer.Option(help="Split to score.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for the results.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Reading processes; by default one for 32 images or more.", min=0)
]
FEW = 32
"""decision: with fewer images a reading process takes longer to start than it saves."""
ScaleOption = Annotated[
    float, typer.Option(help="Factor on the size of the input, such as 0.5.", rich_help_panel=LOOK)
]
ScalesOption = Annotated[
    str,
    typer.Option(
        help="Several factors, such as 0.5,0.75,1: results are averaged.", rich_help_panel=LOOK
    ),
]
FlipOption = Annotated[
    bool,
    typer.Option(
        "--flip", help="Look at the mirrored image too: results are averaged.", rich_help_panel=LOOK
    ),
]
WindowOption = Annotated[
    tuple[int, int] | None,
    typer.Option(help="Look through windows of this size.", metavar="H W", rich_help_panel=LOOK),
]
StrideOption = Annotated[
    tuple[int, int] | None,
    typer.Option(
        help="From one window to the next; by default 2/3 of it.", metavar="H W",
        rich_help_panel=LOOK,
    ),
]  # fmt: skip
ByOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Group scores by an attribute of the images, such as weather; repeatable.",
        rich_help_panel=REPORT,
    ),
]
BoundaryOption = Annotated[
    bool,
    typer.Option("--boundary", help="Score outlines too (Boundary IoU).", rich_help_panel=REPORT),
]
PerImageOption = Annotated[
    bool,
    typer.Option("--per-image", help="Score every image alone too.", rich_help_panel=REPORT),
]
ReportOption = Annotated[
    bool, typer.Option("--report", help="Write a page with pictures.", rich_help_panel=REPORT)
]
WorstOption = Annotated[
    int,
    typer.Option(
        help="Images with the lowest scores that the page shows.", min=0, rich_help_panel=REPORT
    ),
]


def val(
    checkpoint: ModelArgument,
    *,
    data: DataOption,
    split: SplitOption = "val",
    options: SetOption = None,
    output: OutputOption = Path("validation"),
    workers: WorkersOption = None,
    scale: ScaleOption = 1.0,
    scales: ScalesOption = "1",
    flip: FlipOption = False,
    window: WindowOption = None,
    stride: StrideOption = None,
    by: ByOption = None,
    boundary: BoundaryOption = False,
    per_image: PerImageOption = False,
    report: ReportOption = False,
    worst: WorstOption = 8,
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    shared: Shared,
) -> None:
    """Score a checkpoint or an export.

    Scores are those at native label size, unless it was trained with another rule.

    Writes metrics.json with the protocol, and what there is of per_class.csv, confusion matrices
    (.png), by_<attribute>.csv, per_image.csv and report.html with its pictures. Several processes
    that torchrun has started share the images.
    """
    refuse_existing(output, FILES, shared)
    from rtseg.config import call
    from rtseg.data.preprocess import Preprocess
    from rtseg.data.spec import open_data
    from rtseg.data.views import Views
    from rtseg.evaluation import processes, score
    from rtseg.inference.loading import open_model
    from rtseg.inference.predictor import choose_device

    views, windows = Views(scale, read_scales(scales), flip), read_windows(window, stride)
    chosen = reader_options(options)
    device = choose_device(processes.device_of_process(shared.device))
    loaded = open_model(
        checkpoint, runtime=runtime, device=device, threads=threads, notify=shared.log
    )
    preprocess = call(Preprocess, loaded.info.preprocess, section="preprocess")
    dataset = open_data(data, split, options=chosen)
    if workers is None:
        workers = 0 if len(dataset) < FEW else 1
    with processes.joined(device) as place:
        if place.rank:
            shared = replace(shared, quiet=True, json=False)
        with shared.progress("scoring") as progress:
            result = score(
                loaded, dataset, device=device, workers=workers, views=views, windows=windows,
                visit=count_images(progress, -(-len(dataset) // place.world)),
                by=by or (), boundary=boundary, per_image=per_image, worst=worst if report else 0,
            )  # fmt: skip
    protocol = {
        "checkpoint": str(loaded.path), "model": loaded.info.name, "data": data, "split": split,
        "data_options": chosen, "size": preprocess.score_at,
        **describe_runtime(loaded, threads), "device": str(device), "processes": place.world,
        **describe_looks(views, windows), "preprocess": asdict(preprocess),
    }  # fmt: skip
    if not place.rank:
        _write(result, dataset if report else None, output, protocol, shared=shared)


def _write(
    result: Evaluation,
    dataset: Dataset | None,
    output: Path,
    protocol: dict[str, Any],
    *,
    shared: Shared,
) -> None:
    """Write and show the scores; with the data set, also the report."""
    from rtseg.evaluation import write_evaluation, write_report

    files = write_evaluation(result, output, protocol=protocol)
    if dataset is not None:
        files |= write_report(result, dataset, output, protocol=protocol)
    written = {path.name for path in files.values()}
    old = [path.name for path in results_in(output, FILES) if path.name not in written]
    if old:
        shared.log(f"left over from an earlier evaluation: {', '.join(old)}")
    groups = result.group_rows()
    document = {
        "protocol": protocol, "scores": result.scores, "per_class": result.per_class,
        **({"by": groups} if groups else {}), "files": files,
    }  # fmt: skip
    shared.finish(document, *score_tables(result), f"written to {output}")


def describe_runtime(loaded: Checkpoint, threads: int | None) -> dict[str, Any]:
    """Return what the protocol of an evaluation says about what ran the network.

    Args:
        loaded: After it has run: only then it is known what was chosen.
        threads: As asked for.
    """
    import torch

    from rtseg.runtimes import Runtime

    used = {"runtime": "torch", "precision": "fp32"}
    if isinstance(loaded.model, Runtime):
        used = {"runtime": loaded.model.engine, "precision": loaded.model.precision}
    return {**used, "threads": threads or torch.get_num_threads()}


def describe_looks(views: Views, windows: Windows | None) -> dict[str, Any]:
    """Return what the protocol of an evaluation says about how images were looked at."""
    return {
        "scale": views.scale,
        "scales": list(views.scales),
        "flip": views.flip,
        "window": None if windows is None else list(windows.size),
        "window_stride": None if windows is None else list(windows.steps),
    }


def read_scales(text: str) -> tuple[float, ...]:
    """Return the factors of a text such as `0.5,0.75,1`.

    Raises:
        ConfigError: It holds something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"is {text!r}", where="--scales", fix="write factors such as 0.5,0.75,1"
        ) from None


def read_windows(window: tuple[int, int] | None, stride: tuple[int, int] | None) -> Windows | None:
    """Return the windows that two options mean.

    Raises:
        ConfigError: There is a stride but no window, or they do not fit.
    """
    from rtseg.tasks.views import Windows

    if window is not None:
        return Windows(window, stride)
    if stride is not None:
        raise ConfigError("is given without --window", where="--stride", fix="add --window H W")
    return None


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
    found = results_in(folder, patterns)
    if found and not shared.overwrite:
        raise DataError(
            f"holds {found[0].name} already",
            where=str(folder),
            fix="choose another --output, or replace it with --overwrite",
        )


def results_in(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a folder, which need not be there, whose names fit the patterns."""
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def score_tables(result: Evaluation) -> list[Any]:
    """Return the tables of an evaluation: a row per class (if any), per score, per group."""
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
    return tables + [_group_table(name, rows) for name, rows in result.group_rows().items()]


def _group_table(name: str, groups: Sequence[dict[str, Any]]) -> Any:
    columns = ["images", *(key for key in COLUMNS if key in groups[0])]
    rows = [[row[name], *(_number(row[key]) for key in columns)] for row in groups]
    heads = [name, *(HEADS.get(key, key.replace("_", " ")) for key in columns)]
    return make_table(f"By {name}", heads, rows, numbers=len(columns))


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,d}" if isinstance(value, int) else f"{value:.4f}"
