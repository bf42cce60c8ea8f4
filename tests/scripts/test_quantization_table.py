"""The comparison of eight-bit networks runs, writes its table and trains nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "quantization_table.py"


@pytest.mark.slow
def test_the_table_has_three_forms_of_each_network_and_repeats_itself(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        str(tmp_path / "runs"),
        str(tmp_path / "out"),
        "--quick",
    ]
    tables, changed = [], []
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, timeout=500)
        tables.append((tmp_path / "out" / "table.md").read_text(encoding="utf-8"))
        weights = sorted((tmp_path / "runs").glob("*/last/model.safetensors"))
        changed.append([path.stat().st_mtime_ns for path in weights])
    assert tables[0] == tables[1]
    assert changed[0] == changed[1]
    rows = [line for line in tables[0].splitlines() if line.startswith(("| twin", "| bsd"))]
    assert [row.split(" | ")[1] for row in rows] == 2 * [
        "float", "INT8, calibrated", "INT8, fine-tuned",
    ]  # fmt: skip
    logs = sorted((tmp_path / "out").glob("*.jsonl"))
    assert "twinmixing/last" in logs[-1].read_text(encoding="utf-8")
    assert all(str(tmp_path) not in path.read_text(encoding="utf-8") for path in logs)
    assert [path.name for path in logs] == [
        "bsdnet.jsonl", "bsdnet_qat.jsonl", "twinmixing.jsonl", "twinmixing_qat.jsonl",
    ]  # fmt: skip
