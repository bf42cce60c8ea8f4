from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.documents import failed, row
from rtseg.benchmark import roofline
from rtseg.benchmark.roofline import measure_peak, most_expensive, prepare


def test_the_slowest_layers_come_with_their_share() -> None:
    times = [("a", "conv", 0.002), ("b", "relu", 0.001), ("c", "conv", 0.005), ("d", "add", 0.002)]
    assert most_expensive(times) == [
        {"name": "c", "kind": "conv", "share": 0.5},
        {"name": "a", "kind": "conv", "share": 0.2},
        {"name": "d", "kind": "add", "share": 0.2},
    ]
    assert most_expensive(times, count=1)[0]["name"] == "c"
    assert most_expensive([("a", "conv", 0.0)])[0]["share"] == 0.0


class FakeChild:
    """Answer as a child whose fastest product took half a second."""

    jobs: list[dict[str, Any]] = []  # noqa: RUF012 (one list for all on purpose)

    def __init__(self, _command: Any, job: dict[str, Any], **_: Any) -> None:
        self.jobs.append(job)

    def __enter__(self) -> FakeChild:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> dict[str, Any]:
        return {"threads": 2}

    def measure(self, *_: Any) -> dict[str, Any]:
        return {"seconds": [0.9, 0.5, 0.7]}


def test_the_peak_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "Child", FakeChild)
    FakeChild.jobs.clear()
    rows = [row(precision="fp32"), row(precision="fp16"), failed(precision="bf16")]
    found = measure_peak("cpu", None, rows, quick=False, log=lambda _: None)
    assert [job["precision"] for job in FakeChild.jobs] == ["fp32"]
    # 2048 cubed multiply-adds, twice as many operations, in half a second.
    assert found == {
        "peak_gflops": {"fp32": pytest.approx(34.359738368)}, "matrix": 2048, "threads": 2,
    }  # fmt: skip
    measure_peak("cuda", 1, rows, quick=True, log=lambda _: None)
    assert [job["precision"] for job in FakeChild.jobs[1:]] == ["fp32", "fp16"]


def test_a_product_is_computed_in_the_precision_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    types = []
    monkeypatch.setattr(torch, "matmul", lambda first, second, out: types.append(
        (first.dtype, second.shape, out.dtype)
    ))  # fmt: skip
    job = {"kind": "peak", "precision": "bf16", "matrix": 8, "device": "cpu", "threads": 1}
    prepared = prepare(job)
    prepared.call()
    assert types == [(torch.bfloat16, (8, 8), torch.bfloat16)]
    assert prepared.facts == {"threads": 1}
