from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rtseg.errors import DataError
from rtseg.training.comparison import differing_settings, read_runs, seed_groups


def make_run(
    folder: Path, scores: list[tuple[int, float]], *, seed: int | None = 0, **settings: Any
) -> Path:
    """Write a run of 40 steps of 8 images: 4 images/s in the first half, 8 in the second."""
    folder.mkdir(parents=True)
    train: dict[str, Any] = {"batch_size": 8, **settings}
    if seed is not None:
        train["seed"] = seed
    config = {"model": {"name": "lsa_binet"}, "train": train, "optimizer": {"lr": 0.1}}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    events: list[dict[str, Any]] = [
        {"event": "train", "step": 20, "loss": 2.0, "lr": 0.1, "images_per_second": 4.0},
        {"event": "train", "step": 40, "loss": 1.0, "lr": 0.05, "images_per_second": 8.0},
    ]
    events += [
        {"event": "validation", "step": step, "scores": {"miou": score, "other": 1 - score}}
        for step, score in scores
    ]
    events.sort(key=lambda event: event["step"])
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_time_is_that_of_the_steps(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a", [(20, 0.3), (30, 0.6), (40, 0.5)])])
    assert run.seconds == [(20, 40.0), (40, 60.0)]  # 20 * 8 / 4, then 20 * 8 / 8 more
    assert run.scores_over_time("miou") == [(40 / 60, 0.3), (40 / 60, 0.6), (1.0, 0.5)]
    assert run.curve("loss") == [(20, 2.0), (40, 1.0)]
    assert run.curve("unknown") == []


def test_summary_names_best_and_last(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a", [(20, 0.3), (30, 0.6), (40, 0.5)])])
    assert run.summary == {
        "run": "a",
        "model": "lsa_binet",
        "seed": 0,
        "steps": 40,
        "finished": False,
        "monitor": "miou",
        "best": 0.6,
        "best_step": 30,
        "last": 0.5,
        "images_per_second": 6.0,
        "training_minutes": 1.0,
    }


def test_run_without_validation_or_with_another_monitor(tmp_path: Path) -> None:
    runs = read_runs(
        [make_run(tmp_path / "a", []), make_run(tmp_path / "b", [(40, 0.25)], monitor="other")]
    )
    assert (runs[0].summary["best"], runs[0].summary["last"]) == (None, None)
    assert runs[1].summary["last"] == 0.75


def test_only_differing_settings_are_listed(tmp_path: Path) -> None:
    runs = read_runs(
        [make_run(tmp_path / "a", []), make_run(tmp_path / "b", [], seed=None, clip_norm=1.0)]
    )
    assert differing_settings(runs) == {"train.clip_norm": [None, 1.0]}  # seed 0 is the default
    assert differing_settings(runs[:1]) == {}


def test_seeds_are_summed_up(tmp_path: Path) -> None:
    runs = read_runs(
        [
            make_run(tmp_path / "a", [(40, 0.5)]),
            make_run(tmp_path / "b", [(20, 0.9), (40, 0.6)], seed=1),
            make_run(tmp_path / "c", [(40, 0.7)], seed=2),
            make_run(tmp_path / "d", [(40, 0.1)], seed=3, clip_norm=1.0),
        ]
    )
    (group,) = seed_groups(runs)
    assert group["runs"] == ["a", "b", "c"]
    assert (group["seeds"], group["score"]) == ([0, 1, 2], "miou")
    assert group["mean"] == pytest.approx(0.6)
    assert group["spread"] == pytest.approx(0.1)  # divided by n - 1


def test_same_run_twice_is_no_group_of_seeds(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [(40, 0.5)])
    runs = read_runs([folder, folder])
    assert [run.name for run in runs] == ["a (1)", "a (2)"]
    assert seed_groups(runs) == []


def test_names_are_as_short_as_tells_them_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / top / "run", []) for top in ("one", "two")]
    assert [run.name for run in read_runs(folders)] == ["one/run", "two/run"]


@pytest.mark.parametrize("missing", ["config.yaml", "log.jsonl"])
def test_folder_that_is_no_run_is_named(tmp_path: Path, missing: str) -> None:
    folder = make_run(tmp_path / "a", [])
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"holds no {missing}") as caught:
        read_runs([folder])
    assert caught.value.where == str(folder)


def test_broken_configuration_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [])
    (folder / "config.yaml").write_text("model: [")
    with pytest.raises(DataError, match="cannot be read"):
        read_runs([folder])
