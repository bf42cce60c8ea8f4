from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from data.broken import CORPUS, HEIGHT, write_clean
from data.trees import write_image
from rtseg.cli.main import main

SYNTHETIC = ("synthetic", "--set", "length=2", "--set", "size=[32,48]")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_clean(tmp_path / "clean")


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["data", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- check
def test_a_clean_set_passes(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in (clean, clean / "data.yaml", f"native={clean}"):
        code, document = run_json(capsys, "check", data)
        assert code == 0
        assert document["ok"]
        assert (document["faults"], document["warnings"]) == ([], [])
        assert document["splits"]["train"]["images"] == 3
        assert document["splits"]["val"]["images"] == 2
    assert main(["data", "check", str(clean)]) == 0
    assert "train 3, val 2 images: 0 faults, 0 warnings" in capsys.readouterr().out


@pytest.mark.parametrize("case", CORPUS)
def test_every_fault_is_named_with_its_file_and_is_3(
    clean: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    kind, break_it = CORPUS[case]
    path = break_it(clean)
    code, document = run_json(capsys, "check", clean)
    assert code == 3
    assert (kind, str(path)) in [(item["kind"], item["file"]) for item in document["faults"]]
    assert main(["data", "check", str(clean)]) == 3
    captured = capsys.readouterr()
    assert f"fault: {path}: {kind}: " in captured.out
    assert "Traceback" not in captured.err


def test_one_split_is_checked_alone(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "images" / "train" / "b.png").write_bytes(b"")
    code, document = run_json(capsys, "check", clean, "--split", "val")
    assert (code, list(document["splits"])) == (0, ["val"])
    assert main(["data", "check", str(clean), "--split", "trian"]) == 2
    assert "split 'trian' is unknown" in capsys.readouterr().err


def test_a_cache_does_not_hide_a_file_that_breaks_later(clean: Path, tmp_path: Path) -> None:
    words = ["data", "check", str(clean), "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    assert list((tmp_path / "cache").iterdir())
    (clean / "images" / "train" / "b.png").write_bytes(b"")
    assert main(words) == 3


def test_the_report_is_written_and_replaced_with_overwrite_only(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    code, document = run_json(capsys, "check", clean, "--output", output)
    assert code == 0
    assert json.loads((output / "report.json").read_text(encoding="utf-8")) == document
    assert main(["data", "check", str(clean), "--output", str(output)]) == 3
    assert "holds a report.json already" in capsys.readouterr().err
    assert main(["data", "stats", str(clean), "--output", str(output), "--overwrite"]) == 0
    assert "faults" not in json.loads((output / "report.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- stats
def test_shares_and_weights_are_those_worked_out_by_hand(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of 40 columns road has 10, car 10, sky 15 and void 5.
    words = ("stats", clean, "--inverse-log-offset", "1.1")
    code, document = run_json(capsys, *words)
    assert code == 0
    train = document["splits"]["train"]["labels"]["semantic"]
    assert train["void"] == 3 * HEIGHT * 5
    assert [item["pixels"] for item in train["classes"]] == [720, 720, 1080]
    weights = document["weights"]["train"]["semantic"]
    assert weights["none"] == [1, 1, 1]
    expected = [1 / math.log(1.1 + share) for share in (10 / 35, 10 / 35, 15 / 35)]
    assert weights["inverse_log"] == pytest.approx(expected)
    assert weights["median_frequency"] == pytest.approx([1, 1, 10 / 15])
    assert main(["data", *map(str, words)]) == 0
    text = capsys.readouterr().out
    assert "inverse_log 1.1" in text
    assert "28.571%" in text
    assert "train, semantic: 3 images, 360 void pixels" in text


def test_a_file_that_cannot_be_counted_is_3(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean / "masks" / "val" / "d.png").write_bytes(b"")
    assert main(["data", "stats", str(clean)]) == 3
    assert str(clean / "masks" / "val" / "d.png") in capsys.readouterr().err


def test_scenes_are_counted_for_every_label_kind(capsys: pytest.CaptureFixture[str]) -> None:
    code, first = run_json(capsys, "stats", *SYNTHETIC, "--split", "val")
    assert code == 0
    kinds = first["splits"]["val"]["labels"]
    assert sorted(kinds) == ["drivable", "lane", "semantic"]
    for value in kinds.values():
        pixels = sum(item["pixels"] for item in value["classes"])
        assert pixels + value["void"] == 2 * 32 * 48
    _, same = run_json(capsys, "stats", *SYNTHETIC, "--split", "val", "--seed", "0")
    _, other = run_json(capsys, "stats", *SYNTHETIC, "--split", "val", "--seed", "1")
    assert same == first
    assert other != first


# ---------------------------------------------------------------- list
def test_data_sets_below_a_folder_are_listed(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_json(capsys, "list", tmp_path)
    assert code == 0
    (found,) = document["data"]
    assert found["spec"] == str(clean)
    assert found["images"] == {"train": 3, "val": 2}
    assert found["classes"] == ["road", "car", "sky"]
    assert main(["data", "list", str(tmp_path)]) == 0
    assert "train 3 val 2" in capsys.readouterr().out


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["check", "nowhere"], 3, "nowhere: does not exist; give a folder with a data.yaml"),
        (["check", "camvit=x"], 2, "data set 'camvit' is unknown; did you mean one of: camvid"),
        (["check", "camvid=nowhere"], 3, "nowhere/train.txt: cannot read the list"),
        (["stats", "synthetic", "--set", "lenght=3"], 2, "synthetic.lenght is unknown"),
        (["stats", "synthetic", "--set", "length"], 2, "--set: is 'length'; write key=value"),
        (["stats", *SYNTHETIC, "--inverse-log-offset", "1"], 2, "inverse_log_offset is 1"),
        (["list", "nowhere"], 3, "nowhere: is no folder"),
    ],
)
def test_wrong_input_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == code
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_folder_without_data_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", str(tmp_path)]) == 3
    assert "holds no data set" in capsys.readouterr().err


# ---------------------------------------------------------------- labels of other kinds
def test_the_width_of_lane_strokes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run_json(capsys, "check", *SYNTHETIC, "--split", "val")
    width = document["splits"]["val"]["stroke_widths"]["lane"]
    assert (code, width >= 1) == (0, True)
    assert main(["data", "check", *SYNTHETIC, "--split", "val"]) == 0
    shown = f"val: lane strokes are about {width:.1f} pixels wide"
    assert shown in capsys.readouterr().out


def test_images_with_one_class_each_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("train/cat/a", "train/cat/b", "train/dog/c", "val/dog/d")):
        write_image(tmp_path / f"{name}.png", seed=seed)
    for verb in ("check", "stats"):
        code, document = run_json(capsys, verb, f"image_folder={tmp_path}")
        assert code == 0
        train = document["splits"]["train"]
        classes = train["labels"]["class"]["classes"]
        assert [(item["name"], item["pixels"]) for item in classes] == [("cat", 2), ("dog", 1)]
    assert main(["data", "list", str(tmp_path)]) == 0
    assert "train 3 val 1" in " ".join(capsys.readouterr().out.split())
