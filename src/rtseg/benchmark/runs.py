"""Measure networks by several engines, each in a process of its own, into one document."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rtseg.benchmark import roofline as peaks
from rtseg.benchmark.child import Child
from rtseg.benchmark.latency import PROTOCOLS, QUICK, Protocol, summarize
from rtseg.benchmark.machine import describe_machine
from rtseg.benchmark.report import make_document
from rtseg.benchmark.subjects import (
    PRECISIONS,
    Subject,
    engine_file,
    find_subject,
    runtimes_of,
)
from rtseg.checkpoint import Checkpoint, git_revision, versions
from rtseg.data.files import read_image
from rtseg.errors import ConfigError, RtsegError, nearest
from rtseg.inference.predictor import choose_device
from rtseg.inference.sources import image_paths

Log = Callable[[str], None]
Scope = Literal["model", "e2e", "stream"]
SCOPES = ("model", "e2e", "stream")
ENGINES = (sys.executable, "-m", "rtseg.benchmark.engines")
"""Command of the process that measures a network."""


class Spec(NamedTuple):
    """A process to start, the job it gets, and what messages call it."""

    command: Sequence[str]
    job: dict[str, Any]
    label: str


def benchmark(
    network: str | Path | Checkpoint | Sequence[str | Path],
    *,
    runtime: Sequence[str] | None = None,
    precision: Sequence[str] = ("fp32",),
    batch: Sequence[int] = (1,),
    size: tuple[int, int] | None = None,
    scope: Scope = "model",
    source: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    protocol: str = "standard",
    quick: bool = False,
    rounds: int | None = None,
    roofline: bool = False,
    log: Log = lambda _: None,
) -> dict[str, Any]:
    """Measure how fast networks are; every engine runs in a process of its own.

    Args:
        network: A checkpoint or run folder, what `rtseg.load` returned, an exported folder, or a
            name of `rtseg.list_models()` (with random weights); or several of them.
        runtime: Engines: `torch`, `compile`, `cudagraph`, or one that runs an exported file, which
            is made first. By default `torch`, and for an exported folder the engine that it is for.
        precision: `fp32`, `bf16`, `fp16`. An exported folder has its own.
        batch: Images of a call; with `e2e` and `stream` 1 only.
        size: (H, W) of an image; by default the paper's, or in `stream` that of the first image.
        scope: `model`, `e2e` or `stream`, as `report` describes them.
        source: Images of `stream`: folder, pattern or list.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Threads of an engine; those of torch by default.
        protocol: Key of `latency.PROTOCOLS`.
        quick: Take so few calls that nothing is proved but that it works.
        rounds: In how many rounds the calls are split; with more than one, the engines of a
            network take turns. The protocol's by default.
        roofline: Also measure the machine's peak, and the most expensive layers in OpenVINO.
        log: Called with lines of progress.

    Returns:
        The document that `report` describes. A measurement that failed says why in its row.

    Raises:
        RtsegError: A network, an option or the source is wrong.
    """
    chosen = _protocol(protocol, quick=quick, rounds=rounds)
    _check(scope, source, batch)
    kinds = _precisions(precision)
    place = str(choose_device(device))
    if source is not None:
        height, width = read_image(image_paths(source)[0]).shape[:2]
        size = (height, width)
    many = [network] if isinstance(network, str | Path | Checkpoint) else list(network)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rtseg-benchmark-") as folder:
        for item in many:
            subject = find_subject(
                item, folder=Path(folder), size=size, fit="tensor" if scope == "model" else "image"
            )
            for count in batch:
                common = {
                    "scope": scope, "batch": count, "device": place, "threads": threads,
                    "source_images": None if source is None else str(source),
                    "protocol": list(chosen),
                }  # fmt: skip
                rows += _measure_subject(
                    subject, runtime, kinds, common=common, folder=Path(folder), log=log
                )
        if roofline:
            peaks.add_layers(rows, quick=quick, log=log)
        peak = peaks.measure_peak(place, threads, rows, quick=quick, log=log) if roofline else None
        for row in rows:
            row.pop("file", None)
    return make_document(
        rows, machine=describe_machine(place), versions=versions(), git_revision=git_revision(),
        protocol={"name": "quick" if quick else protocol, **chosen._asdict()}, roofline=peak,
    )  # fmt: skip


def _protocol(name: str, *, quick: bool, rounds: int | None) -> Protocol:
    if name not in PROTOCOLS:
        close = nearest(name, PROTOCOLS, count=1)[0]
        raise ConfigError(f"{name!r} is unknown", where="--protocol", fix=f"use {close!r}")
    if rounds is not None and rounds < 1:
        raise ConfigError(f"is {rounds}", where="--rounds", fix="use 1 or more")
    chosen = QUICK if quick else PROTOCOLS[name]
    return chosen if rounds is None else chosen._replace(rounds=rounds)


def _check(scope: str, source: str | Path | None, batch: Sequence[int]) -> None:
    if scope not in SCOPES:
        raise ConfigError(f"{scope!r} is unknown", where="--scope", fix=f"use {', '.join(SCOPES)}")
    if (scope == "stream") != (source is not None):
        raise ConfigError(
            "and --source belong together", where="--scope stream",
            fix="name a folder of images with --source, or use another --scope",
        )  # fmt: skip
    if any(count < 1 for count in batch) or not batch:
        raise ConfigError(f"is {list(batch)}", where="--batch", fix="use 1 or more")
    if scope != "model" and list(batch) != [1]:
        raise ConfigError(
            f"{scope} takes one image at a time", where="--batch", fix="use 1, or --scope model"
        )


def _precisions(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown or not names:
        raise ConfigError(
            f"is {', '.join(unknown)!r}", where="--precision", fix=f"use {', '.join(PRECISIONS)}"
        )
    return [known for known in PRECISIONS if known in names]


def _measure_subject(
    subject: Subject,
    runtime: Sequence[str] | None,
    precision: Sequence[str],
    *,
    common: Mapping[str, Any],
    folder: Path,
    log: Log,
) -> list[dict[str, Any]]:
    """Measure one network by all engines; return a row for each."""
    rows: list[dict[str, Any]] = []
    specs: list[Spec] = []
    for name, kind in itertools.product(
        runtimes_of(subject, runtime), subject.precisions or precision
    ):
        label = f"{subject.name} by {name} in {kind}"
        row = {**subject.row(), "runtime": name, "precision": kind, **common, "error": None}
        del row["protocol"], row["source_images"]
        rows.append(row)
        try:
            log(f"{label}: preparing")
            row["file"] = str(engine_file(subject, name, kind, folder))
        except RtsegError as error:
            row["error"] = describe_error(error)
            continue
        job = {**common, "path": row["file"], "runtime": name, "precision": kind}
        specs.append(Spec(ENGINES, {**job, "size": row["size"]}, label))
    results = iter(measure(specs, Protocol(*common["protocol"]), log=log))
    for row in rows:
        if row["error"] is None:
            row.update(next(results))
    return rows


# ---------------------------------------------------------------- processes
def measure(specs: Sequence[Spec], protocol: Protocol, *, log: Log) -> list[dict[str, Any]]:
    """Run processes as the protocol says: one after the other, or in turns.

    Returns:
        For each: `error`, and if that is None the facts of the engine, `latency`,
        `processor_share` and `peak_memory_mib`.
    """
    if protocol.rounds > 1:
        return _in_turns(specs, protocol, log)
    return [item for spec in specs for item in _in_turns([spec], protocol, log)]


def _in_turns(specs: Sequence[Spec], protocol: Protocol, log: Log) -> list[dict[str, Any]]:
    facts: list[dict[str, Any]] = [{"error": None} for _ in specs]
    answers: list[list[dict[str, Any]]] = [[] for _ in specs]
    with contextlib.ExitStack() as stack:
        children = []
        for spec, own in zip(specs, facts, strict=True):
            child = stack.enter_context(Child(spec.command, spec.job, label=spec.label))
            children.append(child)
            with _noted(own):
                own.update(child.start())
        for number in range(protocol.rounds):
            for child, own, heard in zip(children, facts, answers, strict=True):
                if own["error"] is None:
                    log(f"{child.label}: round {number + 1} of {protocol.rounds}")
                    with _noted(own):
                        heard.append(child.measure(*protocol.part()))
    return [
        own if own["error"] is not None else _summed(own, heard, spec.job["batch"])
        for own, heard, spec in zip(facts, answers, specs, strict=True)
    ]


@contextlib.contextmanager
def _noted(facts: dict[str, Any]) -> Any:
    """Keep what went wrong as the fact `error`."""
    try:
        yield
    except RtsegError as error:
        facts["error"] = describe_error(error)


def describe_error(error: RtsegError) -> dict[str, Any]:
    """Return the sentence of an error, and its exit code."""
    return {"message": str(error), "exit_code": error.exit_code}


def _summed(
    facts: Mapping[str, Any], answers: Sequence[dict[str, Any]], batch: int
) -> dict[str, Any]:
    rounds = [answer.pop("seconds") for answer in answers]
    spent = sum(answer.pop("processor_seconds") for answer in answers)
    elapsed = sum(map(sum, rounds))
    return {
        **facts,
        **answers[-1],
        "latency": summarize(rounds, batch=batch),
        "processor_share": spent / (elapsed * facts["threads"]),
    }
