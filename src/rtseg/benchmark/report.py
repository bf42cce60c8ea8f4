"""The document of a benchmark: `benchmark.json`, and the tables made from it.

benchmark          version of the format, 1
created            date and time, UTC
git_revision       commit of the checkout, or null
machine            device, driver, power, processor, cores, features, load, platform
versions           of Python and of the packages a result depends on
protocol           name (`quick` proves nothing) and fields of `latency.Protocol`
roofline           null, or peak_gflops {fp32, bf16}, matrix, threads
rows               one per measurement:
  network, source  name; `random weights`, `checkpoint` or `export`; and `path`, or null
  scope            `model` (tensor to the network's own output), `e2e` (decoded image to result
                   at its own size), `stream` (image files to results and overlays)
  runtime, precision, device, threads, batch, size [H, W]
  error            null, or why there is nothing below: message, exit_code
  engine           name, version, flags
  setup_s          building, exporting and compiling; first_call_ms, warmup_iterations
  latency          iterations, p50_ms, p90_ms, p95_ms, p99_ms, min_ms, mean_ms, std_ms,
                   images_per_second, images_per_second_std (from round to round)
  processor_share  processor time over elapsed time times threads; what is missing to 1 was
                   waiting, or taken by other programs
  peak_memory_mib  of the process; on CUDA, of the device
  complexity       parameters {trainable, total, deployed}; of one image macs and
                   gflops (2 per multiply-add) as trained, deployed_macs; size, tool
  achieved_gflops  gflops of all images of a call over its mean time; null outside `model`
  share_of_peak    of the peak of the same precision; null without roofline
  stages_ms        medians of read, pre, model, post; {} in `model`
  scores           of the checkpoint, {} if it has none
  layers           the most expensive layers: name, kind, share; [] without roofline
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtseg.errors import DataError

FORMAT = 1
FILE = "benchmark.json"
HEADS = (
    "network", "scope", "engine", "input", "p50 ms", "p90", "p95", "p99", "mean ± std", "images/s",
    "MiB",
)  # fmt: skip
NUMBERS = 7
"""Columns of `HEADS`, from the right, that hold numbers."""


def make_document(
    rows: Sequence[Mapping[str, Any]],
    *,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    git_revision: str | None,
    protocol: Mapping[str, Any],
    roofline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the document; with a roofline, each row says how near it comes."""
    return {
        "benchmark": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_revision": git_revision,
        "machine": dict(machine),
        "versions": dict(versions),
        "protocol": dict(protocol),
        "roofline": None if roofline is None else dict(roofline),
        "rows": [_with_speed(row, roofline) for row in rows],
    }


def _with_speed(row: Mapping[str, Any], roofline: Mapping[str, Any] | None) -> dict[str, Any]:
    if row["error"] is not None:
        return dict(row)
    speed = share = None
    if row["scope"] == "model":
        operations = 2 * row["complexity"]["macs"] * row["batch"]
        speed = operations / (row["latency"]["mean_ms"] / 1000) / 1e9
        peak = (roofline or {}).get("peak_gflops", {}).get(row["precision"])
        share = speed / peak if peak else None
    return {**row, "achieved_gflops": speed, "share_of_peak": share}


def read_document(path: str | Path) -> dict[str, Any]:
    """Read `benchmark.json`, or the folder that holds it; `path` is added to it.

    Raises:
        DataError: It is missing, damaged or of a later version.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = document["benchmark"]
        complete = {"machine", "protocol", "rows"} <= set(document)
    except FileNotFoundError:
        raise DataError(
            "does not exist", where=str(file), fix="give a file that rtseg benchmark wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"is no benchmark ({type(error).__name__}: {error})", where=str(file),
            fix="give a file that rtseg benchmark wrote",
        ) from None  # fmt: skip
    if version > FORMAT or not complete:
        raise DataError(
            f"has format {version}, this version reads {FORMAT}", where=str(file),
            fix="update rtseg, or measure again",
        )  # fmt: skip
    return {**document, "path": str(file)}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return one measurement as text, by column of `HEADS`."""
    height, width = row["size"]
    engine = f"{row['runtime']} {row['precision']}"
    start = [row["network"], row["scope"], engine, f"{row['batch']}x{height}x{width}"]
    if row["error"] is not None:
        return [*start, "failed", *([""] * (NUMBERS - 1))]
    times = row["latency"]
    spread = times["images_per_second_std"]
    return [
        *start,
        *(f"{times[key]:.2f}" for key in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")),
        f"{times['mean_ms']:.2f} ± {times['std_ms']:.2f}",
        f"{times['images_per_second']:.1f}" + ("" if spread is None else f" ± {spread:.1f}"),
        f"{row['peak_memory_mib']:.0f}",
    ]


def protocol_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines without which no figure may be read."""
    machine, protocol = document["machine"], document["protocol"]
    worked = [row for row in document["rows"] if row["error"] is None]
    threads = ", ".join(sorted({str(row["threads"]) for row in worked})) or "none"
    engines = sorted({_engine(row) for row in worked})
    load = "" if machine["load"] is None else f", load before {machine['load']:.1f}"
    rounds = "" if protocol["rounds"] == 1 else f" in {protocol['rounds']} rounds, taking turns"
    lines = [
        f"{machine['device']}; driver {machine['driver']}; clock: {machine['power']}{load}",
        f"threads {threads}; {'; '.join(engines)}",
        f"protocol {protocol['name']}: at least {protocol['iterations']} calls and "
        f"{protocol['seconds']:g} s{rounds}, each engine in a process of its own",
    ]
    if (machine["load"] or 0) > machine["cores"] / 2:
        lines.append("OTHER PROGRAMS WERE RUNNING: ratios of engines that took turns may hold")
    if any(row["source"] == "random weights" for row in worked):
        lines.append("random weights: the speed is that of the network, the result is noise")
    if protocol["name"] == "quick":
        lines.append("QUICK: too short for a measurement; do not publish")
    return lines


def _engine(row: Mapping[str, Any]) -> str:
    engine = row["engine"]
    flags = " ".join(f"{key}={value}" for key, value in engine["flags"].items())
    return f"{row['runtime']}: {engine['name']} {engine['version']}" + (f" ({flags})" * bool(flags))


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return what stands below the table: failures, stages, roofline, layers."""
    from rtseg.benchmark.compare import describe_row

    lines = []
    for row in document["rows"]:
        name = describe_row(row)
        if row["error"] is not None:
            lines.append(f"failed: {name}: {row['error']['message']}")
            continue
        if row["stages_ms"]:
            stages = ", ".join(f"{key} {value:.1f}" for key, value in row["stages_ms"].items())
            lines.append(f"{name}: median ms: {stages}")
        if row["share_of_peak"] is not None:
            peak, speed = document["roofline"]["peak_gflops"], row["achieved_gflops"]
            reached = f"{speed:.0f} of {peak[row['precision']]:.0f} GFLOP/s"
            lines.append(f"{name}: {reached}, {row['share_of_peak']:.0%}")
        for layer in row["layers"]:
            lines.append(f"    {layer['share']:.0%} {layer['kind']} {layer['name']}")
    return lines
