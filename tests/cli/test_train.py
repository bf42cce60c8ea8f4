from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtseg.cli.main import main

SMALL = [
    "model.name=dabnet",
    "data.train.size=[32,48]",
    "data.val.size=[32,48]",
    "data.train.length=8",
    "data.val.length=2",
    "data.workers=0",
    "train.iterations=3",
    "train.batch_size=2",
    "train.val_every=2",
    "train.save_every=1",
    "optimizer.lr=0.001",
]


def train(folder: Path, *more: str) -> int:
    return main(["train", "lsa_binet/synthetic", *SMALL, "--output", str(folder), *more])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder, "--quiet") == 0
    return folder


def test_a_run_folder_holds_what_the_conventions_promise(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    assert names >= {"config.yaml", "env.json", "log.jsonl", "metrics.csv", "last", "best", "plots"}
    assert {path.name for path in (run_folder / "last").iterdir()} == {
        "model.safetensors", "config.json", "README.md", "train_state.pt",
    }  # fmt: skip
    assert not (run_folder / "best" / "train_state.pt").exists()


def test_metrics_table_has_one_row_per_validation(run_folder: Path) -> None:
    rows = (run_folder / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "3"]


def test_json_prints_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["steps"] == 3
    assert 0 <= document["scores"]["miou"] <= 1


def test_an_existing_run_is_refused_and_kept(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_folder / "config.yaml").read_bytes()
    assert train(run_folder) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert (run_folder / "config.yaml").read_bytes() == before


def test_overwrite_replaces_the_run_but_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--quiet") == 0
    (folder / "notes.txt").write_text("mine")
    assert train(folder, "--quiet", "--overwrite", "train.iterations=1") == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert json.loads((folder / "last" / "config.json").read_text())["facts"]["step"] == 1


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["steps"], document["trained"]) == (3, False)
    assert document["training_seconds"] == 3 * document["step_seconds"] > 0
    assert document["peak_memory_mb"] > 50
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_find_lr_draws_and_suggests_but_starts_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--find-lr", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["rates"]) == len(document["losses"]) >= 10
    assert {path.name for path in folder.iterdir()} == {"find_lr.png", "find_lr.json"}
    assert train(folder, "--find-lr") == 3
    assert "--overwrite" in capsys.readouterr().err


def test_resume_of_a_finished_run_changes_no_weight(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--quiet") == 0
    before = (folder / "last" / "model.safetensors").read_bytes()
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert (folder / "last" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lsa_binet/camvit"], 2, "lsa_binet/camvid"),
        (["lsa_binet/synthetic", "train.epoch=2"], 2, "epochs"),
        (["lsa_binet/synthetic", "model.lrfa_widht=3"], 2, "lrfa_width"),
        (["lsa_binet/synthetic", "model.name=lsa_bine"], 2, "lsa_binet"),
        (["lsa_binet/synthetic", "train.device=cuda:9"], 5, "cpu"),
        (["lsa_binet/camvid", "data.train.root=/nowhere"], 3, "/nowhere"),
        (["--resume", "/nowhere"], 3, "/nowhere"),
        (["lsa_binet/synthetic", "--resume", "/nowhere"], 2, "--resume"),
        ([], 2, "recipe"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--resume" not in arguments:
        arguments = [*arguments, "--output", str(tmp_path / "run")]
    assert main(["train", *arguments]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last


def test_faulty_data_stop_a_run_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from data.broken import write_clean

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "set"
    write_clean(root)
    image = sorted((root / "images" / "train").iterdir())[0]
    image.write_bytes(image.read_bytes()[:40])
    section = f"data.train={{name: native, root: {root}, split: train}}"
    changes = ["data.val=null", "train.batch_size=1", "task.class_weights=none"]
    arguments = ["train", "lsa_binet/synthetic", section, *changes]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 3
    message = capsys.readouterr().err
    assert image.name in message
    assert "--no-check" in message
    assert not (tmp_path / "run").exists()
