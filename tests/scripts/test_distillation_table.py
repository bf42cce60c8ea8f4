"""The program that compares modes of distillation: its jobs, its figures, and how it stops."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from programs import load_program
from rtseg.errors import ConfigError, InterruptedRunError
from rtseg.recipe import read_recipe

SETTING = {"data": "camvid", "steps": 7, "teacher_steps": 9, "seeds": [0, 4]}


@pytest.fixture(scope="module")
def script() -> Any:
    return load_program("scripts/distillation_table.py")


def test_students_differ_in_mode_and_seed_alone(script: Any, tmp_path: Path) -> None:
    teacher, *students = script.jobs(SETTING, tmp_path)
    first = read_recipe(script.RECIPE, teacher.overrides).sections
    assert first["model"] == {"name": "bsdnet_b"}
    assert first["distill"]["mode"] == "none"
    assert first["train"]["iterations"] == 9
    assert [job.name for job in students] == [
        f"{mode}_{seed}" for seed in (0, 4) for mode in ("none", "cwd", "ofa", "both")
    ]
    plain: dict[str, Any] | None = None
    for job in students:
        sections = read_recipe(script.RECIPE, job.overrides).sections
        assert sections["distill"].pop("mode") == job.mode
        assert sections["train"].pop("seed") == job.seed
        assert sections["distill"]["teacher"]["path"] == str(tmp_path / "teacher")
        assert sections["train"]["iterations"] == 7
        assert sections["data"]["val"] is None
        plain = plain or sections
        assert sections == plain


def results(scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"name": f"{mode}_{seed}", "mode": mode, "seed": seed, "miou": value / 100}
        for mode, values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_means_and_gains_are_over_seeds_that_all_modes_have(script: Any) -> None:
    found = results({"none": [30, 32, 50], "cwd": [31, 35], "ofa": [30, 30], "both": [33, 33]})
    rows = script.summarize([*results({"teacher": [40]}), *found])
    assert [row["mode"] for row in rows] == ["none", "cwd", "ofa", "both"]
    assert [row["mean"] for row in rows] == pytest.approx([31, 33, 30, 33])
    assert [row["mean_gain"] for row in rows] == pytest.approx([0, 2, -1, 2])
    assert rows[1]["gains"] == pytest.approx([1, 3])
    assert rows[1]["deviation"] == pytest.approx(8**0.5)
    assert rows[3]["deviation"] == pytest.approx(0, abs=1e-9)
    assert script.summarize(results({"none": [30], "cwd": [31]})) == []
    one = script.summarize(results({"none": [30], "cwd": [31], "ofa": [30], "both": [33]}))
    assert [row["deviation"] for row in one] == [None] * 4


def test_the_table_says_what_was_compared(script: Any, tmp_path: Path) -> None:
    found = results({"teacher": [41.5], "none": [30], "cwd": [31.25], "ofa": [29], "both": [33]})
    for item in found:
        (tmp_path / item["name"]).mkdir()
        (tmp_path / item["name"] / "log.jsonl").write_text(
            f'{{"path": "{tmp_path}/x"}}\n', encoding="utf-8"
        )
    script.write(SETTING, found, tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "`bsdnet_b`, 9 steps, mIoU 41.50" in text
    assert "7 steps of 8 images for every row" in text
    assert "| cwd | 31.25 | 31.25 | one seed | +1.25 | +1.25 |" in text
    assert "| ofa | 29.00 | 29.00 | one seed | -1.00 | -1.00 |" in text
    assert "Runs done: 5 of 9." in text
    document = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    assert document["setting"] == SETTING
    logs = list((tmp_path / "out" / "logs").iterdir())
    assert [path.read_text(encoding="utf-8") for path in logs] == 5 * ['{"path": "x"}\n']


def arguments(work: Path, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(work=work, **{**SETTING, **changes})


def test_runs_of_another_setting_are_not_mixed_in(script: Any, tmp_path: Path) -> None:
    assert script.fixed_setting(arguments(tmp_path)) == SETTING
    assert script.fixed_setting(arguments(tmp_path)) == SETTING
    with pytest.raises(ConfigError, match="choose another --work"):
        script.fixed_setting(arguments(tmp_path, steps=8))


def test_work_goes_on_where_it_stopped(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def train(job: Any, folder: Path, *, deadline: float) -> None:
        assert deadline > 0
        if len(done) == 2:
            done.append("stopped")
            raise InterruptedRunError("stopped at step 3")
        folder.mkdir(parents=True)
        done.append(job.name)

    monkeypatch.setattr(script, "train", train)
    monkeypatch.setattr(script, "score", lambda job, *_: {"name": job.name, "miou": 0.1})
    later = time.monotonic() + 100
    assert len(script.work_on(SETTING, tmp_path, deadline=later)) == 2
    assert len(script.work_on(SETTING, tmp_path, deadline=later)) == 9
    assert done[:4] == ["teacher", "none_0", "stopped", "cwd_0"]
    assert len(done) == 10
    assert len(script.work_on(SETTING, tmp_path, deadline=0.0)) == 9
    assert len(script.work_on(SETTING, tmp_path / "new", deadline=0.0)) == 0


def test_the_deadline_asks_a_run_to_save_once(script: Any) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        early, late = script.stop_at(time.monotonic() + 100), script.stop_at(0.0)
        for display in (early, late, late):
            display({"event": "train"})
            display({"event": "validation"})
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]
