"""Speed in the log: images of all processes, the longest wait, the most memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rtseg.training import memory, meter
from rtseg.training.run_log import read_log
from training.toy import run, toy_plan


class Others:
    """A fabric of two processes, of which the other waits for 0.9 of its time and holds 7 MB."""

    device = torch.device("cpu")

    def all_reduce(self, own: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "max"
        return torch.maximum(own, torch.tensor([0.9, 7.0], dtype=own.dtype))


def session_of(events: list[dict[str, Any]], *, log_every: int) -> Any:
    options = SimpleNamespace(log_every=log_every, batch_size=8)
    return SimpleNamespace(
        fabric=Others(), plan=SimpleNamespace(options=options), step=0, total=5, epoch=0.0,
        terms={}, summed=0, figures={}, optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]),
        log=SimpleNamespace(add=lambda event, **rest: events.append({"event": event, **rest})),
    )  # fmt: skip


def test_lines_and_summary_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "peak_memory", lambda _: 6.0)
    events: list[dict[str, Any]] = []
    session = session_of(events, log_every=2)
    measured = meter.Meter(session)
    assert measured.summary() == {}
    for step, seconds in enumerate([2.0, 6.0, 1.0, 1.0, 6.0], start=1):
        session.step = step
        measured.add({"a": float(step), "b": 1.0}, waited=seconds / 4, seconds=seconds)
    lines = [event for event in events if event["event"] == "train"]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["images_per_second"] for line in lines] == [2.0, 8.0, 1.333]
    assert [line["eta_seconds"] for line in lines] == [12.0, 1.0, 0.0]
    assert [line["loss"] for line in lines] == [2.5, 4.5, 6.0]
    assert {line["data_share"] for line in lines} == {0.9}
    assert {line["peak_memory_mb"] for line in lines} == {7}
    notes = [event["message"] for event in events if event["event"] == "note"]
    assert notes == ["90% of the time goes into waiting for images; raise data.workers"]
    assert measured.summary() == {
        "images_per_second": 2.5, "data_share": 0.9, "peak_memory_mb": 7,
    }  # fmt: skip


def test_the_end_of_a_run_says_how_fast_it_was(tmp_path: Path) -> None:
    run(toy_plan(iterations=3), tmp_path)
    end = read_log(tmp_path)[-1]
    assert end["event"] == "end"
    assert end["images_per_second"] > 0
    assert end["peak_memory_mb"] == pytest.approx(memory.peak_memory(torch.device("cpu")), rel=0.2)
    run(toy_plan(iterations=3), tmp_path, resume=True)  # nothing is left to do
    assert "images_per_second" not in read_log(tmp_path)[-1]


def test_peak_memory_is_that_of_the_largest_tensor() -> None:
    before = memory.peak_memory(torch.device("cpu"))
    large = torch.ones(150_000_000)  # 600 MB
    assert large[-1] == 1
    after = memory.peak_memory(torch.device("cpu"))
    assert 600 <= after < before + 700
