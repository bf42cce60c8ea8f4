from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.documents import document, failed, row
from rtseg.benchmark.report import (
    HEADS,
    NUMBERS,
    cells,
    make_document,
    notes,
    protocol_lines,
    read_document,
)
from rtseg.errors import DataError


def made(*rows: dict[str, Any], peaks: dict[str, float] | None = None) -> dict[str, Any]:
    template = document()
    return make_document(
        rows, machine=template["machine"], versions={}, git_revision="abc",
        protocol=template["protocol"],
        roofline=None if peaks is None else {"peak_gflops": peaks, "matrix": 2048, "threads": 2},
    )  # fmt: skip


def test_speed_is_operations_over_the_mean_time() -> None:
    # 8 G multiply-adds are 16 G operations; four images in 0.4 s are 160 G/s.
    (found,) = made(row(ms=400.0, batch=4), peaks={"bf16": 640.0, "fp32": 1.0})["rows"]
    assert found["achieved_gflops"] == pytest.approx(160.0)
    assert found["share_of_peak"] == pytest.approx(0.25)


def test_there_is_no_share_without_a_peak_and_no_speed_of_other_scopes() -> None:
    (alone,) = made(row())["rows"]
    (other,) = made(row(), peaks={"fp32": 100.0})["rows"]
    (whole,) = made(row(scope="e2e"), peaks={"bf16": 100.0})["rows"]
    assert alone["achieved_gflops"] > 0
    assert alone["share_of_peak"] is other["share_of_peak"] is None
    assert whole["achieved_gflops"] is whole["share_of_peak"] is None


def test_documents_are_read_back_from_file_and_folder(tmp_path: Path) -> None:
    content = made(row(), failed("b"))
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    for given in (file, tmp_path):
        assert read_document(given) == {**content, "path": str(file)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no benchmark"),
        ("[1]", "is no benchmark"),
        ('{"scores": {}}', "is no benchmark"),
        ('{"benchmark": 2, "machine": {}, "protocol": {}, "rows": []}', "has format 2"),
        ('{"benchmark": 1, "machine": {}}', "has format 1"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_document(file)
    with pytest.raises(DataError, match=r"b\.json: does not exist"):
        read_document(tmp_path / "b.json")


def test_a_row_shows_what_the_speed_depends_on() -> None:
    times = row(ms=20.0)["latency"] | {"images_per_second_std": 0.31}
    shown = dict(zip(HEADS, cells(row(batch=4, latency=times)), strict=True))
    assert shown == {
        "network": "bsdnet_s", "scope": "model", "engine": "openvino bf16",
        "input": "4x512x1024", "p50 ms": "20.00", "p90": "20.00", "p95": "20.00", "p99": "40.00",
        "mean ± std": "20.00 ± 0.50", "images/s": "50.0 ± 0.3", "MiB": "800",
    }  # fmt: skip
    broken = cells(failed())
    assert len(broken) == len(HEADS)
    assert broken[-NUMBERS:] == ["failed", "", "", "", "", "", ""]


def test_no_speed_without_device_threads_engine_and_protocol() -> None:
    lines = "\n".join(protocol_lines(document(row(), row("b", runtime="torch"))))
    for part in (
        "Some CPU", "driver none", "governor performance", "load before 0.1", "threads 2",
        "openvino: openvino 2026.4 (hint=LATENCY)", "torch: openvino", "at least 200 calls",
        "random weights",
    ):  # fmt: skip
        assert part in lines
    assert "QUICK" not in lines
    assert "OTHER PROGRAMS" not in lines
    real = row(source="checkpoint")
    template = document(real)
    busy = document(
        real,
        machine={**template["machine"], "load": 1.5},
        protocol={**template["protocol"], "name": "quick", "rounds": 3},
    )
    lines = "\n".join(protocol_lines(busy))
    assert "QUICK" in lines
    assert "OTHER PROGRAMS" in lines
    assert "in 3 rounds" in lines
    assert "random weights" not in lines


def test_notes_tell_failures_stages_shares_and_layers() -> None:
    layers = [{"name": "conv1", "kind": "brgconv", "share": 0.25}]
    content = made(
        failed("broken"),
        row("whole", scope="e2e", stages_ms={"read": 0.0, "model": 12.34}),
        row("near", layers=layers),
        peaks={"bf16": 1600.0},
    )
    assert notes(content) == [
        "failed: broken model openvino bf16 batch 1 512x1024: the engine crashed",
        "whole e2e openvino bf16 batch 1 512x1024: median ms: read 0.0, model 12.3",
        "near model openvino bf16 batch 1 512x1024: 800 of 1600 GFLOP/s, 50%",
        "    25% brgconv conv1",
    ]
