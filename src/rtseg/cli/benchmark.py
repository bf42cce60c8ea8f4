"""`rtseg benchmark`: how fast networks are, whether they became slower, and which are worth it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli.common import Shared, jsonable, make_table
from rtseg.cli.val import refuse_existing
from rtseg.errors import CheckFailedError, ConfigError

_SIZE = re.compile(r"(\d+)x(\d+)")
MEASURING, READING = "What is measured", "Instead of measuring"

NetworksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Checkpoints, run folders, exported folders, or names of networks (random weights); "
        "with --pareto, files to read.",
        show_default=False,
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="torch, compile, cudagraph, onnxruntime, openvino, tensorrt, torch_export, aoti; "
        "several: torch,openvino. Default: torch, or the one of an exported folder.",
        show_default=False, rich_help_panel=MEASURING,
    ),
]  # fmt: skip
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="fp32, bf16, fp16; several: fp32,bf16. An exported folder has its own.",
        rich_help_panel=MEASURING,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(help="Height x width; default: the paper's.", rich_help_panel=MEASURING),
]
BatchOption = Annotated[
    str, typer.Option(help="Images of a call, such as 1,4,16.", rich_help_panel=MEASURING)
]
ScopeOption = Annotated[
    str,
    typer.Option(
        help="model: tensor to output. e2e: decoded image to result at its size. stream: files "
        "to results and overlays.",
        rich_help_panel=MEASURING,
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(help="Images of --scope stream: folder or list.", rich_help_panel=MEASURING),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads of an engine.", min=1, rich_help_panel=MEASURING)
]
ProtocolOption = Annotated[
    str,
    typer.Option(
        help="standard: 50 calls or 3 s to warm up, then 200 calls and 10 s. twinmixing: 500 "
        "calls in ten rounds, as table 1 of that paper.",
        rich_help_panel=MEASURING,
    ),
]
QuickOption = Annotated[
    bool,
    typer.Option("--quick", help="Ten calls, for a try; marked.", rich_help_panel=MEASURING),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        help="Split the calls; with several, the engines of a network take turns.",
        min=1, rich_help_panel=MEASURING,
    ),
]  # fmt: skip
RooflineOption = Annotated[
    bool,
    typer.Option(
        "--roofline", help="Also measure the machine's peak, and the slowest layers in OpenVINO.",
        rich_help_panel=MEASURING,
    ),
]  # fmt: skip
CompareOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        help="Compare two files; exit code 6 if the second is slower.",
        metavar="BEFORE AFTER", rich_help_panel=READING,
    ),
]  # fmt: skip
RegressionOption = Annotated[
    str, typer.Option(help="How much slower it may be, with --compare.", rich_help_panel=READING)
]
ParetoOption = Annotated[
    Path | None,
    typer.Option(help="Draw score over speed of the given files.", rich_help_panel=READING),
]
ScoreOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Score of a network, such as bsdnet_s=0.78; repeatable. Default: the checkpoint's.",
        rich_help_panel=READING,
    ),
]
MetricOption = Annotated[
    str | None, typer.Option(help="Name of the score to draw.", rich_help_panel=READING)
]


def benchmark(
    networks: NetworksArgument = None,
    *,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "fp32",
    size: SizeOption = None,
    batch: BatchOption = "1",
    scope: ScopeOption = "model",
    source: SourceOption = None,
    threads: ThreadsOption = None,
    protocol: ProtocolOption = "standard",
    quick: QuickOption = False,
    rounds: RoundsOption = None,
    roofline: RooflineOption = False,
    output: Annotated[Path | None, typer.Option(help="Folder for benchmark.json.")] = None,
    compare: CompareOption = None,
    max_regression: RegressionOption = "5%",
    pareto: ParetoOption = None,
    score: ScoreOption = None,
    metric: MetricOption = None,
    shared: Shared,
) -> int | None:
    """Measure latency, throughput, memory, parameters and multiply-adds.

    Every engine runs in a process of its own. The report names device, threads, precision, batch
    and size, without which no speed means anything. With --compare two reports are compared, with
    --pareto reports are drawn; nothing is measured then.
    """
    if compare is not None:
        return _compare(compare, max_regression, shared)
    if not networks:
        raise ConfigError(
            "no network is named", fix="give a checkpoint, an exported folder, or a name"
        )
    if pareto is not None:
        _draw(pareto, networks, score or (), metric, shared)
        return None
    if output is not None:
        refuse_existing(output, ["benchmark.json"], shared)
    from rtseg.benchmark.runs import benchmark as measure

    document = measure(
        networks, runtime=None if runtime is None else _words(runtime), precision=_words(precision),
        batch=_numbers(batch), size=None if size is None else _read_size(size),
        scope=scope, source=source, device=shared.device, threads=threads,  # type: ignore[arg-type]
        protocol=protocol, quick=quick, rounds=rounds, roofline=roofline, log=shared.log,
    )  # fmt: skip
    return _finish(document, output, shared)


def _finish(document: dict[str, Any], output: Path | None, shared: Shared) -> int | None:
    """Write and show the document; return the exit code of the first failure."""
    from rtseg.benchmark.report import FILE, HEADS, NUMBERS, cells, notes, protocol_lines
    from rtseg.visualize import write_text

    lines = []
    if output is not None:
        file = write_text(output / FILE, json.dumps(jsonable(document), indent=2) + "\n")
        lines.append(f"written to {file}")
    table = make_table("", HEADS, [cells(row) for row in document["rows"]], numbers=NUMBERS)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    shared.finish(document, *protocol_lines(document), table, *notes(document), *lines)
    failed = [row["error"] for row in document["rows"] if row["error"] is not None]
    for error in failed:
        shared.log(f"error: {error['message']}")
    return failed[0]["exit_code"] if failed else None


# ---------------------------------------------------------------- reports that exist
def _compare(files: tuple[Path, Path], max_regression: str, shared: Shared) -> int | None:
    from rtseg.benchmark.compare import compare
    from rtseg.benchmark.report import read_document

    allowed = _read_share(max_regression)
    changes = compare(*map(read_document, files), max_regression=allowed)
    slow = [item for item in changes if item.too_slow]
    rows = [
        [
            item.subject, f"{item.before_ms:.2f}", _text(item.after_ms, "{:.2f}", "failed"),
            _text(item.change, "{:+.1%}", ""), "too slow" if item.too_slow else "",
        ]
        for item in changes
    ]  # fmt: skip
    table = make_table("Medians", ("measurement", "before ms", "after ms", "change", ""), rows)
    document = {
        "max_regression": allowed, "passed": not slow,
        "changes": [item._asdict() for item in changes],
    }  # fmt: skip
    shared.finish(document, table)
    if not slow:
        return None
    shared.log(
        f"error: {files[1]}: {len(slow)} of {len(changes)} measurements are more than "
        f"{allowed:.1%} slower, such as {slow[0].subject}"
    )
    return CheckFailedError.exit_code


def _text(value: float | None, form: str, missing: str) -> str:
    return missing if value is None else form.format(value)


def _draw(
    target: Path, files: Sequence[str], scores: Sequence[str], metric: str | None, shared: Shared
) -> None:
    from rtseg.benchmark import pareto
    from rtseg.benchmark.report import read_document
    from rtseg.visualize import write_image

    if target.suffix.lower() != ".png":
        raise ConfigError(f"is {str(target)!r}", where="--pareto", fix="name a file *.png")
    refuse_existing(target.parent, [target.name], shared)
    documents = [read_document(file) for file in files]
    points, name = pareto.points(documents, dict(map(_read_score, scores)), metric=metric)
    note = pareto.conditions(documents)
    write_image(target, pareto.picture(points, metric=name, note=note))
    front = {point.name for point in pareto.front(points)}
    rows = [
        [item.name, f"{item.score:.4f}", f"{item.speed:.1f}", f"{item.gflops:.2f}",
         "yes" if item.name in front else ""]
        for item in points
    ]  # fmt: skip
    document = {
        "metric": name, "conditions": note, "picture": str(target),
        "points": [{**item._asdict(), "front": item.name in front} for item in points],
    }  # fmt: skip
    heads = ("network", name, "images/s", "GFLOPs", "best of its speed")
    shared.finish(document, note, make_table("", heads, rows, numbers=4), f"written to {target}")


# ---------------------------------------------------------------- options
def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(
        _read(int, word, "--batch", "write numbers such as 1,4,16") for word in _words(text)
    )


def _read_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None or min(int(found[1]), int(found[2])) < 32:
        raise ConfigError(
            f"is {text!r}", where="--size", fix="write height x width, 32 or more, as 512x1024"
        )
    return int(found[1]), int(found[2])


def _read_share(text: str) -> float:
    number, scale = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    return float(_read(float, number, "--max-regression", "write 5% or 0.05")) * scale


def _read_score(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    if not name:
        raise ConfigError(f"is {text!r}", where="--score", fix="write NAME=0.75")
    return name, _read(float, value, "--score", "write NAME=0.75")


def _read(kind: Callable[[str], Any], text: str, where: str, fix: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"is {text!r}", where=where, fix=fix) from None
