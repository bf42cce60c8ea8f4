"""Write the tables of docs/performance.md from the measurements in benchmarks/results.

    python benchmarks/performance_table.py --commands    prints what to run, on a quiet machine
    python benchmarks/performance_table.py               writes the page

What has not been measured is called so.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtseg.benchmark.report import protocol_lines, read_document

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"
ENGINES = "--runtime torch,onnxruntime,openvino --precision fp32,bf16 --rounds 5"
STREET = "bsdnet_s bsdnet_b lsa_binet bisenetformer_stdc1"
ROAD = "twinmixing_nano twinmixing_tiny twinmixing_base"
COMMANDS = {
    "speed_street": f"rtseg benchmark {STREET} --size 512x1024 {ENGINES} --roofline",
    "speed_road": f"rtseg benchmark {ROAD} --size 384x640 {ENGINES} --roofline",
    "speed_image": f"rtseg benchmark {STREET} --size 512x1024 --scope e2e "
    "--runtime torch,openvino --precision fp32,bf16 --rounds 5",
    "speed_batches": "rtseg benchmark twinmixing_tiny twinmixing_base --size 384x640 "
    "--batch 1,4,16 --protocol twinmixing --runtime openvino --precision bf16",
    "deployable": "python benchmarks/deployable.py --threads 2 --models twinmixing_base "
    "twinmixing_tiny lsa_binet bsdnet_s bsdnet_b",
    "deployable_class_map": "python benchmarks/deployable.py --threads 2 --class-map --models "
    "bisenetformer_stdc1 lsa_binet",
    "peers_street": "python benchmarks/peers.py --size 512x1024",
    "peers_road": "python benchmarks/peers.py --size 384x640 --ours twinmixing_tiny "
    "twinmixing_base",
}
"""Name of the measurement -> command, to which the output is added."""
MARKED = re.compile(r"(<!-- (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command(name: str) -> str:
    """Return the command that makes a measurement, with its output."""
    text = COMMANDS[name]
    if text.startswith("python"):
        return f"{text} --output benchmarks/results/{name}.json"
    return f"{text} --output benchmarks/results/{name} --overwrite"


def find(name: str, *, folder: Path = RESULTS) -> dict[str, Any] | None:
    """Return a measurement, or None if there is none."""
    for path in (folder / f"{name}.json", folder / name / "benchmark.json"):
        if path.is_file() and name.startswith("deployable"):
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        if path.is_file():
            return read_document(path)
    return None


def render(text: str, *, folder: Path = RESULTS) -> str:
    """Return the page with new tables between its marks `<!-- kind name -->` and `<!-- end -->`."""

    def table(found: re.Match[str]) -> str:
        kind, name = found[2], found[3]
        document = find(name, folder=folder)
        body = not_measured(name) if document is None else TABLES[kind](document)
        return f"{found[1]}\n{body}\n\n{found[4]}"

    return MARKED.sub(table, text)


def not_measured(name: str) -> str:
    """Return what stands in the place of a table."""
    return f"Not measured yet: `{command(name)}`"


# ---------------------------------------------------------------- tables
Row = Mapping[str, Any]


def medians(document: Mapping[str, Any]) -> str:
    """Return medians (and 99th percentiles) by network and engine, with all that they depend on."""
    return _by_engine(document, _median, note="median (99th percentile) of a call in ms")


def speeds(document: Mapping[str, Any]) -> str:
    """Return images per second by network and engine; with rounds, their spread."""
    return _by_engine(document, _speed, note="images/s ± standard deviation over rounds")


def _by_engine(document: Mapping[str, Any], show: Callable[[Row], str], *, note: str) -> str:
    rows: Sequence[Row] = document["rows"]
    ways = list(dict.fromkeys((row["runtime"], row["precision"]) for row in rows))
    worked = {way for way in ways for row in rows if row["error"] is None and _way(row) == way}
    ways = [way for way in ways if way in worked]
    names = list(dict.fromkeys((row["scope"], row["network"], row["batch"]) for row in rows))
    several = {"scope": {name[0] for name in names}, "batch": {name[2] for name in names}}
    heads = [
        "network", *(key for key in several if len(several[key]) > 1), "G MAC",
        *(f"{runtime} {precision}" for runtime, precision in ways),
    ]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    for scope, network, batch in names:
        own = {_way(row): row for row in rows if _place(row) == (scope, network, batch)}
        some = next(iter(own.values()))
        line = [network, *([scope] if len(several["scope"]) > 1 else [])]
        line += [str(batch)] if len(several["batch"]) > 1 else []
        line.append(f"{some['complexity']['macs'] / 1e9:.1f}")
        lines.append(line + [show(own[way]) if way in own else "" for way in ways])
    height, width = rows[0]["size"]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{note}; {height}x{width}, batch {_joined(several['batch'])}\n\n{text}\n\n" + _footer(
        document
    )


def _joined(values: set[Any]) -> str:
    return ", ".join(map(str, sorted(values)))


def _way(row: Row) -> tuple[str, str]:
    return row["runtime"], row["precision"]


def _place(row: Row) -> tuple[str, str, int]:
    return row["scope"], row["network"], row["batch"]


def _median(row: Row) -> str:
    if row["error"] is not None:
        return "fails"
    return f"{row['latency']['p50_ms']:.1f} ({row['latency']['p99_ms']:.1f})"


def _speed(row: Row) -> str:
    if row["error"] is not None:
        return "fails"
    spread = row["latency"]["images_per_second_std"]
    text = f"{row['latency']['images_per_second']:.1f}"
    return text if spread is None else f"{text} ± {spread:.1f}"


def roofline(document: Mapping[str, Any]) -> str:
    """Return how near every network comes to the machine's peak, and its slowest layers."""
    peaks = document["roofline"]["peak_gflops"]
    head = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in peaks.items())
    lines = [
        f"Measured peak: {head} (product of two matrices of {document['roofline']['matrix']}, "
        f"threads {document['roofline']['threads']}).",
        "",
        "| network | engine | GFLOP/s | of the peak | slowest layers |",
        "|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        if row["error"] is not None or row["share_of_peak"] is None:
            continue
        layers = ", ".join(f"{item['share']:.0%} {item['kind']}" for item in row["layers"])
        lines.append(
            f"| {row['network']} | {row['runtime']} {row['precision']} "
            f"| {row['achieved_gflops']:.0f} | {row['share_of_peak']:.0%} | {layers} |"
        )
    return "\n".join(lines)


def turns(document: Mapping[str, Any]) -> str:
    """Return how fast deployed networks are beside eager torch and a plain export."""
    facts = document["protocol"]
    lines = [
        "| network | eager fp32 | OpenVINO bf16, exported as trained | OpenVINO fp32, deployed "
        "| OpenVINO bf16, deployed | as fast as eager | as the plain export | same class |",
        f"|{'---|' * 8}",
    ]
    for row in document["rows"]:
        times = row["milliseconds"]
        best, plain = times["openvino bf16"], times["openvino plain bf16"]
        shown = (times["eager"], plain, times["openvino f32"], best)
        lines.append(
            f"| {row['model']}, {row['size'][0]}x{row['size'][1]} "
            f"| {' | '.join(f'{value:.1f}' for value in shown)} "
            f"| **{row['speedup']['openvino bf16']:.1f}x** | {plain / best:.2f}x "
            f"| {min(row['same_class']['openvino bf16']):.2%} |"
        )
    end = "the class map at full size" if facts["class_map"] else "the network's own output"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    head = (
        f"medians in ms of {facts['rounds']} turns of {facts['images_per_round']} images; up to "
        f"{end}; {facts['threads']} threads"
    )
    return "\n".join([head, "", *lines, "", f"- {facts['processor']}", f"- {versions}"])


def _footer(document: Mapping[str, Any]) -> str:
    """Return the protocol as a list; failures are named once."""
    failures = {
        f"{row['runtime']} {row['precision']} fails: {row['error']['message']}"
        for row in document["rows"]
        if row["error"] is not None
    }
    lines = [*protocol_lines(document), *sorted(failures)]
    revision = (document["git_revision"] or "unknown")[:12]
    lines.append(f"measured {document['created'][:10]}, revision {revision}")
    return "\n".join(f"- {line}" for line in lines)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "medians": medians,
    "speeds": speeds,
    "roofline": roofline,
    "turns": turns,
}
"""By the first word of a mark."""


def main() -> None:
    """Print the commands, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", action="store_true", help="print what has to be measured")
    if parser.parse_args().commands:
        print("\n".join(map(command, COMMANDS)))
        return
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
