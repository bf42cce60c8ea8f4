"""`rtseg predict`: maps, overlays and one line of JSON per image."""

from __future__ import annotations

import json
import secrets
import sys
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import ModelArgument, Shared, ThreadsOption, jsonable, make_table
from rtseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rtseg.structures import Result
    from rtseg.tasks import Task

RESULTS, SUBMISSION = "results.jsonl", "submission"
RuntimeOption = Annotated[
    str,
    typer.Option(
        help="auto (the fastest, exported once for this machine), torch (starts at once), "
        "compile, cudagraph, onnxruntime, openvino, tensorrt, torch_export or aoti."
    ),
]
COUNTED = ("images", "segments", "objects", "pixels")
"""What the summary of an image may count of a class."""


def predict(
    checkpoint: ModelArgument,
    source: Annotated[
        str, typer.Argument(help="Image, folder, quoted pattern, or .txt list of paths.")
    ],
    *,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    confidence: Annotated[
        bool,
        typer.Option("--confidence", help="Also write <stem>_confidence.png (semantic only)."),
    ] = False,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Add the outlines of all regions (semantic only).")
    ] = False,
    alpha: Annotated[float, typer.Option(help="Share of the color in the overlay, 0 to 1.")] = 0.5,
    submission: Annotated[
        str | None, typer.Option(help="Also write files for the server of: cityscapes.")
    ] = None,
    runtime: RuntimeOption = "auto",
    threads: ThreadsOption = None,
    shared: Shared,
) -> int | None:
    """Segment images and write what was found.

    For each image <stem>_overlay.png, a line in results.jsonl, which appears when all is done, and
    maps: <stem>.png of class ids (semantic) or of segment ids, id = R + 256 G + 65536 B (panoptic);
    <stem>_drivable.png and <stem>_lane.png of 0 and 1 (road_lane). Masks of objects (instance) are
    in results.jsonl as COCO run lengths. With --submission also <output>/submission/, which holds
    only the PNG files of label ids that a benchmark takes. Images that cannot be read are named at
    the end, with exit code 3.
    """
    from rtseg.data.submission import write_submission
    from rtseg.inference.predictor import Predictor
    from rtseg.inference.sources import image_paths

    if not 0 <= alpha <= 1:
        raise ConfigError(f"is {alpha:g}", where="--alpha", fix="use a number from 0 to 1")
    paths = image_paths(source)
    predictor = Predictor.load(
        checkpoint, device=shared.device, runtime=runtime, threads=threads, notify=shared.log
    )
    kind = result_type(predictor.task)
    _refuse_missing(kind, confidence=confidence, polygons=polygons)
    endings = {**kind.ENDINGS}
    if not confidence:
        endings.pop("confidence", None)
    names = unique_names(paths, kind.ENDINGS.values())
    _require_free(output, paths, names, endings.values(), overwrite=shared.overwrite)
    handed_in = _submission_files(submission, paths, predictor.task, output, shared=shared)
    faults: list[DataError] = []
    summary = Summary()
    results: Iterator[Any] = predictor.stream(
        paths, confidence=confidence, on_error=faults.append if len(paths) > 1 else None
    )
    name_of = dict(zip(map(str, paths), names, strict=True))
    with shared.progress("images") as progress, _results_file(output / RESULTS) as lines:
        for result in results:
            files = result.save(output, stem=name_of[result.source], alpha=alpha)
            if submission is not None:
                target = handed_in[result.source]
                files["submission"] = write_submission(target, result.mask, submission)
            row = {**result.to_dict(), "files": files}
            summary.add(row)
            if polygons:
                row["polygons"] = result.to_polygons()
            lines.write(json.dumps(jsonable(row)) + "\n")
            progress(summary.images + len(faults), len(paths))
    return _finish(summary, faults, endings, output=output, shared=shared)


# ---------------------------------------------------------------- kinds of results
def result_type(task: Task) -> type[Result]:
    """Return the class of the results that a task declares to return."""
    declared = typing.get_type_hints(type(task).postprocess)["return"]
    kind: type[Result] = typing.get_args(declared)[0]
    return kind


def _refuse_missing(kind: type[Result], *, confidence: bool, polygons: bool) -> None:
    asked = {"--confidence": confidence, "--polygons": polygons}
    there = {
        "--confidence": "confidence" in kind.ENDINGS,
        "--polygons": hasattr(kind, "to_polygons"),
    }
    for option, wanted in asked.items():
        if wanted and not there[option]:
            name = option.removeprefix("--")
            raise ConfigError(
                f"is asked for, but {kind.__name__} has no {name}",
                where=option,
                fix=f"leave out {option}",
            )


# ---------------------------------------------------------------- files
def unique_names(paths: Sequence[Path], endings: Collection[str]) -> list[str]:
    """Return the stem of each path; `-2`, `-3`, ... are appended where files would be the same.

    Two names also differ after an ending such as `_overlay.png` is appended, and where upper and
    lower case are the same.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while taken & _claims(name, endings):
            number += 1
            name = f"{path.stem}-{number}"
        taken |= _claims(name, endings)
        names.append(name)
    return names


def _claims(name: str, endings: Collection[str]) -> set[str]:
    return {f"{name}{ending}".lower() for ending in endings}


def _require_free(
    output: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    endings: Collection[str],
    *,
    overwrite: bool,
) -> None:
    """Refuse to replace results without `--overwrite`, and to replace a source image ever."""
    targets = [output / f"{name}{ending}" for name in names for ending in endings]
    existing = [target for target in [output / RESULTS, *targets] if target.exists()]
    sources = {path.resolve() for path in paths}
    for target in existing:
        if target.resolve() in sources:
            raise DataError(
                "is an image to predict and would be replaced by its result",
                where=str(target),
                fix="choose another --output",
            )
    if existing and not overwrite:
        raise DataError(
            f"holds results already, such as {existing[0].name}",
            where=str(output),
            fix="replace them with --overwrite, or choose another --output",
        )


def _submission_files(
    benchmark: str | None, paths: Sequence[Path], task: Any, output: Path, *, shared: Shared
) -> dict[str, Path]:
    """Return the file of each source for the server of a benchmark; none without one."""
    from rtseg.data.submission import SUBMISSIONS, submission_names
    from rtseg.structures import SemanticResult

    if benchmark is None:
        return {}
    if benchmark not in SUBMISSIONS:
        known = ", ".join(SUBMISSIONS)
        raise ConfigError(f"{benchmark!r} is unknown", where="--submission", fix=f"use {known}")
    if not issubclass(result_type(task), SemanticResult):
        raise ConfigError(
            "needs a network that gives one class per pixel", where="--submission", fix="leave out"
        )
    names = submission_names(benchmark, paths, [item.name for item in task.classes])
    files = {str(path): output / SUBMISSION / name for path, name in zip(paths, names, strict=True)}
    existing = [path for path in files.values() if path.exists()]
    if existing and not shared.overwrite:
        raise DataError(
            f"holds {existing[0].name} already",
            where=str(output / SUBMISSION),
            fix="replace it with --overwrite, or choose another --output",
        )
    return files


@contextmanager
def _results_file(path: Path) -> Iterator[IO[str]]:
    """Open a file that appears when the block ends without an error; no empty folder is left."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        with temporary.open("x", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        if new and not any(path.parent.iterdir()):
            path.parent.rmdir()


# ---------------------------------------------------------------- summary
class Summary:
    """Running sums over images: what was found of each class, and milliseconds by stage."""

    def __init__(self) -> None:
        self.images = 0
        self.area = 0
        self.found: dict[tuple[int, str], Counter[str]] = {}
        self.milliseconds: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the row of one image; of a classified one only the label counts."""
        self.images += 1
        self.area += (row["height"] or 0) * (row["width"] or 0)
        items = [{**row["label"], "images": 1}] if "label" in row else row["classes"]
        for item in items:
            counts = self.found.setdefault((item["id"], item["name"]), Counter())
            counts.update({key: item[key] for key in COUNTED if key in item})
        self.milliseconds.update(row["timing_ms"])

    def classes(self) -> list[dict[str, Any]]:
        """Return the counts of each class that occurs, and its share of all pixels; most first."""
        rows: list[dict[str, Any]] = [
            {"id": index, "name": name, **counts} for (index, name), counts in self.found.items()
        ]
        for row in rows:
            if "pixels" in row:
                row["share"] = row["pixels"] / self.area
        keys = [key for key in ("pixels", *COUNTED) if rows and key in rows[0]]
        return sorted(rows, key=lambda row: -row[keys[0]])

    def mean_milliseconds(self) -> dict[str, float]:
        """Return the mean of each stage."""
        return {stage: value / self.images for stage, value in self.milliseconds.items()}


def _finish(
    summary: Summary,
    faults: Sequence[DataError],
    endings: Mapping[str, str],
    *,
    output: Path,
    shared: Shared,
) -> int | None:
    times, classes = summary.mean_milliseconds(), summary.classes()
    document = {
        "images": summary.images,
        "failed": [{"file": fault.where, "message": str(fault)} for fault in faults],
        "output": output,
        "results": output / RESULTS,
        "classes": classes,
        "mean_timing_ms": times,
    }
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in times.items())
    written = ", ".join([*(f"<name>{ending}" for ending in endings.values()), RESULTS])
    shared.finish(
        document,
        _table(classes),
        f"{summary.images} images, mean ms: {stages or 'none'}",
        f"written to {output}: {written}",
    )
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return DataError.exit_code if faults else None


def _table(classes: Sequence[Mapping[str, Any]]) -> Any:
    """Show the counts of each class, and the share of pixels instead of their number."""
    counts = [key for key in COUNTED[:-1] if classes and key in classes[0]]
    heads = ["class", *counts]
    rows = [[item["name"], *(item[key] for key in counts)] for item in classes]
    if classes and "share" in classes[0]:
        heads.append("share of pixels")
        for row, item in zip(rows, classes, strict=True):
            row.append(f"{item['share']:.2%}")
    return make_table("", heads, rows, numbers=len(heads) - 1)
