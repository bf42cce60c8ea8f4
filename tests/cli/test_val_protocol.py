"""`rtseg val` under other protocols: how images are looked at, and what is reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rtseg.checkpoint import ModelInfo, create_model, save
from rtseg.cli.main import main
from rtseg.cli.val import read_scales, read_windows
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.errors import ConfigError
from rtseg.evaluation import score


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "dabnet"
    weights = create_model("dabnet", 19).state_dict()
    save(folder, weights, ModelInfo("dabnet", {}, "semantic", CITYSCAPES_CLASSES, {"stride": 16}))
    return folder


def run(checkpoint: Path, output: Path, *more: str) -> int:
    words = ["val", str(checkpoint), "--data", "synthetic", "--workers", "0"]
    words += ["--set", "length=2", "--set", "size=[32,48]", "--output", str(output)]
    return main([*words, *more])


def test_the_protocol_says_how_images_were_looked_at(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = ["--scale", "0.5", "--scales", "1,2", "--flip", "--window", "32", "32"]
    assert run(checkpoint, tmp_path, *looks, "--stride", "16", "32", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    protocol = document["protocol"]
    assert protocol["scale"] == 0.5
    assert protocol["scales"] == [1.0, 2.0]
    assert protocol["flip"] is True
    assert protocol["window"] == [32, 32]
    assert protocol["window_stride"] == [16, 32]
    assert protocol["preprocess"]["stride"] == 16
    assert protocol["preprocess"]["short_side"] is None
    assert protocol["processes"] == 1
    assert json.loads((tmp_path / "metrics.json").read_text())["protocol"] == protocol


def test_without_options_the_whole_image_is_looked_at_once(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path, "--json") == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    asked = [protocol[key] for key in ("scale", "scales", "flip", "window", "window_stride")]
    assert asked == [1.0, [1.0], False, None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion.png", "metrics.json", "per_class.csv",
    ]  # fmt: skip


def test_looks_change_the_scores(checkpoint: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for number, more in enumerate(([], ["--flip"], ["--scale", "2"], ["--window", "16", "32"])):
        assert run(checkpoint, tmp_path / str(number), *more, "--quiet") == 0
        document = json.loads((tmp_path / str(number) / "metrics.json").read_text())
        found[" ".join(more)] = document["scores"]["pixel_accuracy"]
    assert len(set(found.values())) == 4


def test_everything_that_can_be_reported_is(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--by", "weather", "--by", "scene", "--boundary", "--per-image", "--report"]
    assert run(checkpoint, tmp_path, *asked, "--worst", "2") == 0
    text = capsys.readouterr().out
    for part in ("boundary IoU", "By weather", "By scene", "image_miou"):
        assert part in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bars.png", "by_scene.csv", "by_weather.csv", "confusion.png", "metrics.json",
        "per_class.csv", "per_image.csv", "report.html", "worst.png",
    ]  # fmt: skip
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert sum(row["images"] for row in document["by"]["weather"]) == 2
    with (tmp_path / "by_scene.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 2
    assert (tmp_path / "report.html").read_text().count("mean IoU") == 4  # alt text and caption


def test_images_are_kept_for_the_report_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []

    def remember(*given: Any, **options: Any) -> Any:
        kept.append(options["worst"])
        return score(*given, **options)

    monkeypatch.setattr("rtseg.evaluation.score", remember)
    for number, more in enumerate(([], ["--report", "--worst", "1"], ["--report"])):
        assert run(checkpoint, tmp_path / str(number), *more, "--quiet") == 0
    assert kept == [0, 1, 8]


def test_files_of_an_earlier_evaluation_are_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("by_weather.csv", "report.html"):
        (tmp_path / name).write_text("old")
    assert run(checkpoint, tmp_path) == 3
    assert "holds by_weather.csv already" in capsys.readouterr().err
    assert run(checkpoint, tmp_path, "--overwrite") == 0
    assert "left over from an earlier evaluation: by_weather.csv, report" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--scales", "0.5;1"], 2, "--scales: is '0.5;1'; write factors such as 0.5,0.75,1"),
        (["--scales", "1,0"], 2, "scale is 0; use a factor above 0"),
        (["--scale", "-1"], 2, "scale is -1"),
        (["--stride", "8", "8"], 2, "--stride: is given without --window; add --window H W"),
        (["--window", "32", "32", "--stride", "48", "16"], 2, "larger than the window"),
        (["--window", "40", "32"], 2, "40x32 is no multiple of the network's stride 16"),
        (["--by", "wether"], 3, "has no attribute 'wether' (it has: scene, timeofday, weather)"),
    ],
)
def test_wrong_options_are_one_sentence(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    message: str,
) -> None:
    assert run(checkpoint, tmp_path / "out", *more) == code
    found = capsys.readouterr().err
    assert message in found
    assert "Traceback" not in found
    assert not (tmp_path / "out").exists()


def test_factors_and_windows_are_read() -> None:
    assert read_scales("0.5, 0.75,1") == (0.5, 0.75, 1.0)
    assert read_windows(None, None) is None
    windows = read_windows((30, 60), None)
    assert windows is not None
    assert (windows.size, windows.steps) == ((30, 60), (20, 40))
    with pytest.raises(ConfigError):
        read_scales("")
