"""Documents of benchmarks, made by hand."""

from __future__ import annotations

from typing import Any


def row(network: str = "bsdnet_s", *, ms: float = 20.0, **changes: Any) -> dict[str, Any]:
    """Return a measurement of a network in which all calls but the slowest took `ms`."""
    made: dict[str, Any] = {
        "network": network, "source": "random weights", "path": None, "scope": "model",
        "runtime": "openvino", "precision": "bf16", "device": "cpu", "threads": 2, "batch": 1,
        "size": [512, 1024], "error": None,
        "engine": {"name": "openvino", "version": "2026.4", "flags": {"hint": "LATENCY"}},
        "setup_s": 3.0, "first_call_ms": 90.0, "warmup_iterations": 50,
        "latency": {
            "iterations": 500, "p50_ms": ms, "p90_ms": ms, "p95_ms": ms, "p99_ms": 2 * ms,
            "min_ms": ms, "mean_ms": ms, "std_ms": 0.5, "images_per_second": 1000 / ms,
            "images_per_second_std": None,
        },
        "processor_share": 0.98, "peak_memory_mib": 800.0,
        "complexity": {
            "parameters": {"trainable": 4_354_355, "total": 4_354_355, "deployed": 4_340_000},
            "macs": 8_000_000_000, "deployed_macs": 8_000_000_000, "gflops": 16.0,
            "size": [512, 1024], "tool": "by hand",
        },
        "scores": {}, "stages_ms": {}, "layers": [],
        "achieved_gflops": 16.0 / (ms / 1000), "share_of_peak": None,
    }  # fmt: skip
    return {**made, **changes}


def failed(network: str = "bsdnet_s", **changes: Any) -> dict[str, Any]:
    """Return a measurement that did not work."""
    made = row(network, error={"message": "the engine crashed", "exit_code": 1}, **changes)
    for key in ("engine", "latency", "setup_s", "achieved_gflops", "share_of_peak"):
        del made[key]
    return made


def document(*rows: dict[str, Any], device: str = "Some CPU", **changes: Any) -> dict[str, Any]:
    """Return a document of measurements."""
    made: dict[str, Any] = {
        "benchmark": 1, "created": "2026-11-21T21:00:00+00:00", "git_revision": None,
        "machine": {
            "device": device, "driver": "none", "power": "governor performance",
            "processor": "Some CPU", "cores": 2, "features": ["avx2"], "load": 0.1,
            "platform": "Linux",
        },
        "versions": {"python": "3.11"},
        "protocol": {
            "name": "standard", "warmup_iterations": 50, "warmup_seconds": 3.0,
            "iterations": 200, "seconds": 10.0, "rounds": 1,
        },
        "roofline": None, "rows": list(rows),
    }  # fmt: skip
    return {**made, **changes}
