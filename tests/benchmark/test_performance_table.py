from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmark.documents import document, failed, row
from programs import load_program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    return load_program("benchmarks/performance_table.py")


def test_the_page_is_up_to_date(script: Any) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert text == script.render(text), "run python benchmarks/performance_table.py"
    marks = {found[3] for found in script.MARKED.finditer(text)}
    assert marks == set(script.COMMANDS), "every measurement has its table"
    assert {found[2] for found in script.MARKED.finditer(text)} == set(script.TABLES)


def test_commands_name_their_output_and_options_that_exist(script: Any) -> None:
    for name in script.COMMANDS:
        words = shlex.split(script.command(name))
        assert f"benchmarks/results/{name}" in words[words.index("--output") + 1]
        program = ROOT / "src/rtseg/cli/benchmark.py"
        if words[0] == "python":
            program = ROOT / words[1]
        source = program.read_text(encoding="utf-8") + '"--overwrite" "--output"'
        for word in words:
            if word.startswith("--"):
                option = word.removeprefix("--").replace("-", "_")
                assert f'"{word}"' in source or f"    {option}:" in source, word


def test_a_table_is_put_between_its_marks(script: Any, tmp_path: Path) -> None:
    text = "a\n<!-- medians x -->\nold\n<!-- end -->\nb\n<!-- roofline y -->\n<!-- end -->\n"
    script.COMMANDS |= {"x": "python x.py", "y": "rtseg y"}
    missing = script.render(text, folder=tmp_path)
    assert "old" not in missing
    assert "Not measured yet: `python x.py --output benchmarks/results/x.json`" in missing
    assert "Not measured yet: `rtseg y --output benchmarks/results/y --overwrite`" in missing
    (tmp_path / "y").mkdir()
    peaks = {"peak_gflops": {"bf16": 1600.0}, "matrix": 2048, "threads": 2}
    content = document(row(share_of_peak=0.5), roofline=peaks)
    (tmp_path / "y" / "benchmark.json").write_text(json.dumps(content))
    (tmp_path / "x.json").write_text(json.dumps(document(row())))
    done = script.render(missing, folder=tmp_path)
    assert "Not measured" not in done
    assert "| bsdnet_s | openvino bf16 | 800 | 50% |  |" in done
    assert script.render(done, folder=tmp_path) == done
    del script.COMMANDS["x"], script.COMMANDS["y"]


def test_medians_stand_by_network_and_engine(script: Any) -> None:
    content = document(
        row("a", ms=20.0), row("a", ms=40.0, precision="fp32"), row("b", ms=30.0),
        failed("b", precision="fp32"), failed("b", runtime="onnxruntime"),
    )  # fmt: skip
    lines = script.medians(content).splitlines()
    assert lines[0] == "median (99th percentile) of a call in ms; 512x1024, batch 1"
    assert lines[2:6] == [
        "| network | G MAC | openvino bf16 | openvino fp32 |",
        "| --- | --- | --- | --- |",
        "| a | 8.0 | 20.0 (40.0) | 40.0 (80.0) |",
        "| b | 8.0 | 30.0 (60.0) | fails |",
    ]
    rest = "\n".join(lines[6:])
    assert "- Some CPU; driver none" in rest
    assert "- onnxruntime bf16 fails: the engine crashed" in rest
    assert "- measured 2026-11-21, revision unknown" in rest


def test_batches_and_scopes_have_columns_where_there_are_several(script: Any) -> None:
    spread = row(batch=4)["latency"] | {"images_per_second_std": 0.25}
    lines = script.speeds(document(row(), row(batch=4, latency=spread))).splitlines()
    assert lines[2:] [:4] == [
        "| network | batch | G MAC | openvino bf16 |",
        "| --- | --- | --- | --- |",
        "| bsdnet_s | 1 | 8.0 | 50.0 |",
        "| bsdnet_s | 4 | 8.0 | 50.0 ± 0.2 |",
    ]  # fmt: skip
    lines = script.medians(document(row(), row(scope="e2e", ms=30.0))).splitlines()
    assert lines[4:6] == [
        "| bsdnet_s | model | 8.0 | 20.0 (40.0) |", "| bsdnet_s | e2e | 8.0 | 30.0 (60.0) |",
    ]  # fmt: skip


def test_turns_compare_deployed_networks_with_eager_and_plain_ones(script: Any) -> None:
    ways = ("eager", "openvino plain bf16", "openvino f32", "openvino bf16")
    content = {
        "protocol": {
            "processor": "Abacus 3", "threads": 2, "rounds": 7, "images_per_round": 4,
            "class_map": True, "versions": {"torch": "2.99"},
        },
        "rows": [
            {
                "model": "net", "size": [64, 96],
                "milliseconds": dict(zip(ways, (100.0, 30.04, 50.0, 20.0), strict=True)),
                "speedup": dict(zip(ways, (1.0, 3.2, 2.0, 5.04), strict=True)),
                "same_class": {"openvino bf16": [0.9995, 0.99]},
            }
        ],
    }  # fmt: skip
    text = script.turns(content)
    assert text.startswith(
        "medians in ms of 7 turns of 4 images; up to the class map at full size; 2 "
    )
    row_of_net = "| net, 64x96 | 100.0 | 30.0 | 50.0 | 20.0 | **5.0x** | 1.50x | 99.00% |"
    assert row_of_net in text.splitlines()
    assert text.endswith("- Abacus 3\n- torch 2.99")
    assert "up to the network's own output" in script.turns(
        {**content, "protocol": {**content["protocol"], "class_map": False}}
    )
