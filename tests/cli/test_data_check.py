from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.broken import CORPUS, HEIGHT, OF_THE_WHOLE_SET, TRAIN, WIDTH, noise, write, write_clean
from rtseg.cli.main import main
from rtseg.data.synthetic import Synthetic


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_clean(tmp_path / "clean")


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["data", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_faults_of_every_kind_at_once_are_all_in_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [case for case in CORPUS if case not in OF_THE_WHOLE_SET]
    root = write_clean(tmp_path / "set", train=("clean", *(f"{i:02d}" for i in range(len(cases)))))
    places = [CORPUS[case][1](root, f"{index:02d}") for index, case in enumerate(cases)]
    output = tmp_path / "report"
    code, document = run_json(capsys, "check", root, "--output", output)
    assert code == 3
    assert sorted(fault["file"] for fault in document["faults"]) == sorted(map(str, places))
    assert json.loads((output / "report.json").read_text(encoding="utf-8")) == document
    assert main(["data", "check", str(root)]) == 3
    shown = capsys.readouterr().out
    for place in places:
        assert re.search(rf"^fault: {re.escape(str(place))}: \w+: .*; ", shown, re.MULTILINE)


def test_allowed_faults_only_warn(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CORPUS["turned image"][1](clean)
    words = ["data", "check", str(clean)]
    assert main(words) == 3
    assert main([*words, "--allow", "leakage"]) == 3
    assert main([*words, "--allow", "leakage", "--allow", "exif_rotation"]) == 0
    assert "0 faults, 1 warnings" in capsys.readouterr().out
    assert main([*words, "--allow", "exif"]) == 2
    assert "fault 'exif' is unknown; did you mean one of: " in capsys.readouterr().err


def test_check_shows_the_weights_of_every_scheme(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(clean), "--inverse-log-offset", "1.1"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " sky " in line)
    # 15 of 35 labelled columns: 1 / ln(1.1 + 15/35) = 2.357; median 10/40 over 15/40 = 0.667.
    assert line.split() == ["2", "sky", "1,080", "42.857%", "3", "1.000", "2.357", "0.667"]


# ---------------------------------------------------------------- stats
def test_sizes_and_colors_are_shown_for_each_split(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stem, (height, width) in zip(TRAIN[:2], ((30, 40), (20, 50)), strict=True):
        write(clean / f"images/train/{stem}.png", noise(height, width))
        mask = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 3
        write(clean / f"masks/train/{stem}.png", Image.fromarray(mask))
    code, document = run_json(capsys, "stats", clean)
    assert code == 0
    assert list(document) == ["data", "format", "splits", "weights"]
    train = document["splits"]["train"]
    assert [(size["height"], size["width"], size["images"]) for size in train["sizes"]] == [
        (20, 50, 1), (HEIGHT, WIDTH, 1), (30, 40, 1)
    ]  # fmt: skip
    files = sorted((clean / "images/train").iterdir())
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in files])
    assert train["channel_mean"] == pytest.approx(pixels.mean(axis=0))
    assert train["channel_std"] == pytest.approx(pixels.std(axis=0))
    assert main(["data", "stats", str(clean)]) == 0
    shown = capsys.readouterr().out
    assert f"val: 2 images: 2 of {HEIGHT}x{WIDTH} (H x W)" in shown
    mean, std = (
        " ".join(f"{value:.2f}" for value in values)
        for values in (pixels.mean(axis=0), pixels.std(axis=0))
    )
    assert f"train: RGB mean {mean}, standard deviation {std} (0-255)" in shown


def test_attributes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    scenes = Synthetic(split="val", size=(32, 48), length=6)
    expected = Counter(scenes[index].attributes["weather"] for index in range(6))
    words = ("stats", "synthetic", "--set", "length=6", "--set", "size=[32,48]", "--split", "val")
    code, document = run_json(capsys, *words)
    assert code == 0
    assert document["splits"]["val"]["attributes"]["weather"] == expected
    assert main(["data", *words]) == 0
    value, count = expected.most_common(1)[0]
    assert f"val: weather: {value} {count}" in capsys.readouterr().out


def test_what_can_be_counted_is_shown_though_the_code_is_3(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = clean / "images/train/a.png"
    bad.write_bytes(b"")
    (clean / "masks/train/b.png").write_bytes(b"")
    assert main(["data", "stats", str(clean), "--json"]) == 3
    captured = capsys.readouterr()
    train = json.loads(captured.out)["splits"]["train"]
    assert (train["images"], train["counted"], train["labels"]["semantic"]["images"]) == (3, 1, 2)
    assert f"2 samples could not be counted in full; the first fault: {bad}: " in captured.err


def test_faults_that_do_not_hinder_counting_are_no_matter_of_statistics(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CORPUS["turned image"][1](clean)
    CORPUS["train image again in val"][1](clean, "a")
    assert main(["data", "stats", str(clean)]) == 0
    assert "could not" not in capsys.readouterr().err


# ---------------------------------------------------------------- real frames
@pytest.mark.slow
def test_numbers_of_all_frames_of_camvid_are_those_that_came_with_them(
    camvid_full_root: Path, camvid_table: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_json(capsys, "check", f"camvid={camvid_full_root}")
    assert (code, document["faults"], document["warnings"]) == (0, [], [])
    splits, weights = document["splits"], document["weights"]["train"]["semantic"]
    classes = splits["train"]["labels"]["semantic"]["classes"]
    assert len(camvid_table) == len(classes) == 11
    for row, item in zip(camvid_table, classes, strict=True):
        number, train, share, images, median, log, val, test = row
        assert (item["id"], item["pixels"], item["frames"]) == (number, train, images)
        assert round(100 * item["share"], 4) == share
        assert round(weights["median_frequency"][item["id"]], 4) == median
        assert round(weights["inverse_log"][item["id"]], 4) == log
        assert weights["none"][item["id"]] == 1
        for split, pixels in (("val", val), ("test", test)):
            counted = splits[split]["labels"]["semantic"]["classes"][item["id"]]["pixels"]
            assert counted == pixels
