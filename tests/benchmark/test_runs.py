from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import rtseg
from inference.tiny import write_checkpoint, write_image
from rtseg.benchmark import runs
from rtseg.benchmark.latency import Protocol
from rtseg.benchmark.runs import Spec, benchmark, measure
from rtseg.errors import ConfigError, DataError

CHILD = """
import json, sys, time
from pathlib import Path
from rtseg.benchmark.child import Prepared, serve
log = Path(sys.argv[2])
def prepare(job):
    def call():
        with log.open("a") as file:
            file.write(sys.argv[1])
        if sys.argv[1] == "x" and log.read_text().count("x") > 3:
            raise ValueError("broke")
    return Prepared(call, {"threads": 1, "engine": sys.argv[1]})
serve(prepare)
"""


@pytest.fixture
def letters(tmp_path: Path) -> Any:
    """Return a function that measures children which write a letter per call."""
    script, log = tmp_path / "child.py", tmp_path / "log"
    script.write_text(CHILD, encoding="utf-8")

    def run(names: str, protocol: Protocol) -> tuple[list[dict[str, Any]], str]:
        specs = [
            Spec(
                [sys.executable, str(script), name, str(log)],
                {"protocol": list(protocol), "threads": 1, "batch": 2},
                name,
            )
            for name in names
        ]
        return measure(specs, protocol, log=lambda _: None), log.read_text(encoding="utf-8")

    return run


def test_engines_are_measured_one_after_the_other(letters: Any) -> None:
    found, log = letters("ab", Protocol(2, None, 3, 0.0))
    assert log == "aa" + "aaa" + "bb" + "bbb"
    assert [item["engine"] for item in found] == ["a", "b"]
    latency = found[0]["latency"]
    assert latency["iterations"] == 3
    assert latency["images_per_second"] == pytest.approx(2000 / latency["mean_ms"])
    assert found[0]["processor_share"] > 0
    assert "seconds" not in found[0]


def test_engines_take_turns_in_rounds(letters: Any) -> None:
    found, log = letters("ab", Protocol(1, None, 4, 0.0, rounds=2))
    assert log == "ab" + "aabb" + "aabb"
    assert [item["latency"]["iterations"] for item in found] == [4, 4]
    assert found[0]["latency"]["images_per_second_std"] is not None


def test_the_share_of_the_processor_counts_all_threads() -> None:
    # Two rounds of two seconds on two threads, of which three and four seconds were computed.
    answers = [
        {"seconds": [1.0, 1.0], "processor_seconds": spent, "peak_memory_mib": peak}
        for spent, peak in ((3.0, 5.0), (4.0, 7.0))
    ]
    found = runs._summed({"error": None, "threads": 2}, answers, batch=3)
    assert found["processor_share"] == pytest.approx(7 / 8)
    assert found["peak_memory_mib"] == 7.0
    assert found["latency"]["images_per_second"] == pytest.approx(3.0)


def test_an_engine_that_fails_stops_no_other(letters: Any) -> None:
    found, log = letters("xa", Protocol(1, None, 4, 0.0, rounds=2))
    assert found[0]["error"] == {"message": "failed (ValueError: broke)", "exit_code": 1}
    assert "latency" not in found[0]
    assert found[1]["error"] is None
    assert log.count("a") == 5


def test_a_stream_has_the_size_of_its_first_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []
    monkeypatch.setattr(runs, "measure", lambda specs, *_, **__: jobs.append(specs[0].job) or [
        {"error": {"message": "", "exit_code": 1}}
    ])  # fmt: skip
    net = write_checkpoint(tmp_path / "net")
    write_image(tmp_path / "in" / "a.png", 41, 56)
    write_image(tmp_path / "in" / "b.png", 64, 64)
    (row,) = benchmark(net, scope="stream", source=tmp_path / "in", size=(96, 96))["rows"]
    assert row["size"] == jobs[0]["size"] == [41, 56]
    assert row["complexity"]["size"] == [48, 56]
    with pytest.raises(DataError, match="does not exist"):
        benchmark(net, scope="stream", source=tmp_path / "none")


def test_the_public_function_keeps_its_name_beside_the_package() -> None:
    assert rtseg.benchmark is benchmark


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": "paper"}, "'paper' is unknown"),
        ({"scope": "all"}, "'all' is unknown; use model, e2e, stream"),
        ({"scope": "stream"}, "and --source belong together"),
        ({"source": "frames"}, "and --source belong together"),
        ({"batch": (0,)}, "--batch: is"),
        ({"batch": ()}, "--batch: is"),
        ({"scope": "e2e", "batch": (1, 4)}, "e2e takes one image at a time"),
        ({"precision": ("fp8",)}, "--precision: is 'fp8'"),
        ({"rounds": 0}, "--rounds: is 0"),
        ({"runtime": ("torhc",)}, "did you mean 'torch'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "measure", lambda *_, **__: pytest.fail("it was measured"))
    net = write_checkpoint(tmp_path / "net")
    with pytest.raises(ConfigError, match=told):
        benchmark(net, size=(64, 64), **options)


def test_every_engine_precision_and_batch_has_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def fake(specs: list[Spec], protocol: Protocol, **_: Any) -> list[dict[str, Any]]:
        assert protocol == Protocol(3, 0.5, 10, 0.0)
        asked.extend(spec.job for spec in specs)
        latency = {"mean_ms": 5.0}
        return [{"error": None, "latency": latency, "threads": 1} for _ in specs]

    monkeypatch.setattr(runs, "measure", fake)
    net = write_checkpoint(tmp_path / "net")
    found = benchmark(
        net, size=(64, 96), runtime=("torch", "compile"), precision=("bf16", "fp32"),
        batch=(1, 2), quick=True, threads=1,
    )  # fmt: skip
    rows = [(row["batch"], row["runtime"], row["precision"]) for row in found["rows"]]
    assert rows == [
        (batch, runtime, precision)
        for batch in (1, 2)
        for runtime in ("torch", "compile")
        for precision in ("fp32", "bf16")
    ]
    assert [(job["batch"], job["runtime"], job["precision"]) for job in asked] == rows
    assert {job["path"] for job in asked} == {str(net)}
    assert found["protocol"]["name"] == "quick"
    assert found["rows"][0]["path"] == str(net)
    assert "file" not in found["rows"][0]
