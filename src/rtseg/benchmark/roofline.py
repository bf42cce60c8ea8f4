"""How fast the machine could multiply, and where the time of a network goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rtseg.benchmark.child import Child, Prepared, serve
from rtseg.benchmark.latency import Protocol
from rtseg.errors import RtsegError

COMMAND = (sys.executable, "-m", "rtseg.benchmark.roofline")
PEAK, QUICK_PEAK = Protocol(5, 2.0, 20, 3.0), Protocol(2, 0.2, 3, 0.0)
MATRIX, QUICK_MATRIX = 2048, 256
"""decision: length of the sides; far beyond caches, and still tens of milliseconds."""
LAYERS = 3
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure_peak(
    device: str,
    threads: int | None,
    rows: Sequence[dict[str, Any]],
    *,
    quick: bool,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the fastest product of two big square matrices, for each precision of the rows.

    A network in int8, or in fp16 on a processor, has no peak here: torch has no such product that
    is fast.

    Returns:
        `peak_gflops` by precision (2 operations per multiply-add), `matrix` and `threads`.
    """
    side = QUICK_MATRIX if quick else MATRIX
    protocol = QUICK_PEAK if quick else PEAK
    wanted = {row["precision"] for row in rows if row["error"] is None}
    known = [name for name in TYPES if name in wanted and (name, device) != ("fp16", "cpu")]
    peaks, used = {}, threads
    for precision in known:
        log(f"peak of the machine in {precision}")
        job = {
            "kind": "peak", "precision": precision, "matrix": side, "device": device,
            "threads": threads, "protocol": list(protocol),
        }  # fmt: skip
        with Child(COMMAND, job, label=f"the product of matrices in {precision}") as child:
            used = child.start()["threads"]
            fastest = min(child.measure(*protocol.part())["seconds"])
        peaks[precision] = 2 * side**3 / fastest / 1e9
    return {"peak_gflops": peaks, "matrix": side, "threads": used}


def add_layers(rows: Sequence[dict[str, Any]], *, quick: bool, log: Callable[[str], None]) -> None:
    """Give rows of OpenVINO in scope `model` their most expensive layers, as `layers`.

    Args:
        rows: With `file`, the exported folder.
        quick: Run it only a few times.
        log: Called with lines of progress.
    """
    protocol = QUICK_PEAK if quick else PEAK
    for row in rows:
        if row["error"] is not None or (row["runtime"], row["scope"]) != ("openvino", "model"):
            continue
        log(f"layers of {row['network']} in {row['precision']}")
        job = {**row, "kind": "layers", "path": row["file"], "protocol": list(protocol)}
        with Child(COMMAND, job, label=f"the layers of {row['network']}") as child:
            try:
                child.start()
                row["layers"] = child.measure(*protocol.part())["layers"]
            except RtsegError as error:
                log(str(error))


# ---------------------------------------------------------------- in the child
def prepare(job: dict[str, Any]) -> Prepared:
    """Prepare a product of matrices, or a network in OpenVINO that times its layers."""
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    return {"peak": _matrices, "layers": _layers}[job["kind"]](job)


def _matrices(job: dict[str, Any]) -> Prepared:
    device, side = torch.device(job["device"]), job["matrix"]
    first, second = (
        torch.randn(side, side, device=device).to(TYPES[job["precision"]]) for _ in range(2)
    )
    product = torch.empty_like(first)

    def call() -> None:
        torch.matmul(first, second, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return Prepared(call, {"threads": torch.get_num_threads()})


def _layers(job: dict[str, Any]) -> Prepared:
    from rtseg.runtimes.manifest import read_manifest
    from rtseg.runtimes.openvino import HINTS, core

    folder = Path(job["path"])
    manifest = read_manifest(folder)
    model = core().read_model(str(folder / manifest.file))
    channels_last = manifest.with_preprocess
    height, width = job["size"]
    shape = [job["batch"], height, width, 3] if channels_last else [job["batch"], 3, height, width]
    model.reshape({manifest.image.name: shape})
    options = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job["threads"],
        "INFERENCE_PRECISION_HINT": HINTS[job["precision"]], "PERF_COUNT": True,
    }  # fmt: skip
    request = core().compile_model(model, "CPU", options).create_infer_request()
    return Prepared(request.infer, {}, lambda: {"layers": most_expensive(_times(request))})


def _times(request: Any) -> list[tuple[str, str, float]]:
    """Return name, kind and seconds of every layer in the last run."""
    return [
        (info.node_name, info.exec_type or info.node_type, info.real_time.total_seconds())
        for info in request.get_profiling_info()
    ]


def most_expensive(
    times: Sequence[tuple[str, str, float]], *, count: int = LAYERS
) -> list[dict[str, Any]]:
    """Return name, kind and share of the time of the slowest layers, the slowest first."""
    total = sum(seconds for _, _, seconds in times)
    slowest = sorted(times, key=lambda item: -item[2])[:count]
    return [
        {"name": name, "kind": kind, "share": seconds / total if total else 0.0}
        for name, kind, seconds in slowest
    ]


if __name__ == "__main__":
    serve(prepare)
