"""`rtseg data list`: what data sets lack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from data.broken import TRAIN, write_clean
from rtseg.cli.main import main


def lines(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert main(["data", "list", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep paths, and so the rows of the table, short."""
    monkeypatch.chdir(tmp_path)


def test_a_whole_set_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    write_clean(Path("own"))
    shown = [line for line in lines(capsys, ".") if line.strip()]
    assert shown[-1].split() == ["own", "train", "3", "val", "2", "3", "semantic"]
    assert not any("missing" in line for line in shown)


def test_absent_files_and_folders_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_clean(tmp_path / "own")
    (root / "masks/train/b.png").unlink()
    shutil.rmtree(root / "masks/val")
    assert lines(capsys, tmp_path)[-2:] == [
        f"{root}: train: 2 of 3 images are complete; missing files: 1 (masks/train/b.png)",
        f"{root}: val: 0 of 2 images are complete; masks/val is missing (files: 2)",
    ]
    shutil.rmtree(root / "images/val")
    assert lines(capsys, tmp_path)[-2] == f"{root}: val: images/val is missing"


def test_only_the_first_files_are_named_but_json_names_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_clean(tmp_path / "own")
    image = root / "images/train/a.png"
    names = [*TRAIN, "x"]
    for name in TRAIN:
        (root / f"masks/train/{name}.png").unlink()
    first = ", ".join(f"masks/train/{name}.png" for name in TRAIN)
    assert lines(capsys, tmp_path)[-1].endswith(f"missing files: 3 ({first})")
    shutil.copy(image, image.with_stem("x"))
    text = f"{root}: train: 0 of 4 images are complete; missing files: 4 ({first}, ...)"
    assert lines(capsys, tmp_path)[-1] == text
    assert main(["data", "list", str(tmp_path), "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["data"]
    assert item["complete"] == {"train": 0, "val": 2}
    assert item["missing"] == [
        {
            "split": "train",
            "kind": "file",
            "path": f"masks/train/{name}.png",
            "files": 1,
            "what": "is missing",
        }
        for name in names
    ]


def test_a_set_that_does_not_open_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    (write_clean(Path("own")) / "data.yaml").write_text("splits: [train]\ncolours: 3\n")
    assert "colours is unknown" in " ".join(" ".join(lines(capsys, ".")).split())
