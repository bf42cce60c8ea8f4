from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtseg.checkpoint import ModelInfo, create_model, save
from rtseg.cli.common import Shared
from rtseg.cli.main import main
from rtseg.cli.val import FILES, refuse_existing, score_tables
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.synthetic import Synthetic
from rtseg.errors import DataError
from rtseg.evaluation import Evaluation
from rtseg.inference.predictor import Predictor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "dabnet"
    model = create_model("dabnet", 19)
    save(folder, model.state_dict(), ModelInfo("dabnet", {}, "semantic", CITYSCAPES_CLASSES, {}))
    return folder


def test_scores_equal_those_counted_by_hand_from_predictions(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["val", str(checkpoint), "--data", "synthetic", "--split", "test"]
    root = tmp_path / "set"
    write_native(root)
    arguments = ["val", str(checkpoint), "--data", str(root), "--split", "test"]
    assert main([*arguments, "--output", str(out), "--workers", "0", "--quiet"]) == 0
    document = json.loads((out / "metrics.json").read_text())
    predictor = Predictor.load(checkpoint)
    right = total = 0
    for path in sorted((root / "images" / "test").iterdir()):
        truth = np.asarray(Image.open(root / "masks" / "test" / path.name))
        valid = truth != 255
        right += int((predictor(path).mask[valid] == truth[valid]).sum())
        total += int(valid.sum())
    assert document["scores"]["pixel_accuracy"] == pytest.approx(right / total, abs=1e-12)
    assert document["images"] == 3
    rows = list(csv.DictReader((out / "per_class.csv").open()))
    assert [row["name"] for row in rows] == [item.name for item in CITYSCAPES_CLASSES]
    assert Image.open(out / "confusion.png").size[0] > 200


def write_native(root: Path) -> None:
    lines = ["splits: [test]", "classes:"]
    for index, item in enumerate(CITYSCAPES_CLASSES):
        lines.append(f"  {index}: {{name: {item.name}, color: {list(item.color)}}}")
    for kind in ("images", "masks"):
        (root / kind / "test").mkdir(parents=True)
    (root / "data.yaml").write_text("\n".join(lines) + "\n")
    for index, sample in enumerate(Synthetic(split="test", size=(33, 50), length=3)):
        Image.fromarray(sample.image).save(root / "images" / "test" / f"{index}.png")
        Image.fromarray(sample.labels["semantic"]).save(root / "masks" / "test" / f"{index}.png")


def evaluation(per_class: list[Any], **scores: float) -> Evaluation:
    return Evaluation(scores, per_class, None, 7, 1.0)


def test_tables_follow_the_columns_of_the_metric(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "car", "pq": 0.51234, "tp": 12345, "things": None},
        {"name": "sky", "pq": None, "tp": 3, "things": None, "late": 0.25},
    ]
    Shared().finish({}, *score_tables(evaluation(rows, pq=0.5, classes_in_mean=2)))
    text = capsys.readouterr().out
    assert text.index("Classes") < text.index("Scores over 7 images")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["class"] == ["class", "PQ", "tp", "things", "late"]
    assert lines["car"] == ["car", "0.5123", "12,345", "n/a", "n/a"]
    assert lines["sky"] == ["sky", "n/a", "3", "n/a", "0.2500"]
    assert lines["pq"] == ["pq", "0.5000"]
    assert lines["classes_in_mean"] == ["classes_in_mean", "2"]


def test_a_metric_without_classes_has_one_table() -> None:
    assert len(score_tables(evaluation([], accuracy=0.5))) == 1


@pytest.mark.parametrize("name", ["confusion.png", "confusion_lane.png", "per_class.csv"])
def test_any_file_of_an_evaluation_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("kept")
    with pytest.raises(DataError, match=f"holds {name} already"):
        refuse_existing(tmp_path, FILES, Shared())
    refuse_existing(tmp_path, FILES, Shared(overwrite=True))
    (tmp_path / name).rename(tmp_path / f"my_{name}")
    refuse_existing(tmp_path, FILES, Shared())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "length=31"], 0),
        (["--set", "length=32"], 1),
        (["--set", "length=31", "--workers", "2"], 2),
        (["--set", "length=32", "--workers", "0"], 0),
    ],
)
def test_a_reading_process_is_started_for_many_images(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], expected: int,
) -> None:  # fmt: skip
    started: list[int] = []

    def stop(*_: Any, workers: int, **__: Any) -> None:
        started.append(workers)
        raise DataError("stopped")

    monkeypatch.setattr("rtseg.evaluation.score", stop)
    arguments = ["val", str(checkpoint), "--data", "synthetic", "--output", str(tmp_path / "out")]
    assert main([*arguments, *words]) == 3
    assert started == [expected]


def test_options_reach_the_reader_and_the_protocol(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["val", str(checkpoint), "--data", "synthetic", "--split", "test", "--workers", "0"]
    options = ["--set", "length=2", "--set", "size=[32,48]", "--json"]
    assert main([*arguments, "--output", str(tmp_path / "out"), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["protocol"]["data_options"] == {"length": 2, "size": [32, 48]}
    assert document["protocol"]["size"] == "native"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 2
    assert main([*arguments, "--set", "length", "--output", str(tmp_path / "b")]) == 2
    assert "--set: is 'length'; write key=value" in capsys.readouterr().err


def test_existing_results_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    arguments = ["val", str(checkpoint), "--data", "synthetic", "--output", str(tmp_path)]
    assert main(arguments) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_other_classes_are_named(
    checkpoint: Path, camvid_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["val", str(checkpoint), "--data", f"camvid={camvid_root}", "--split", "test"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert "'road'" in message
    assert "'Sky'" in message
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_has_its_own_exit_code(tmp_path: Path) -> None:
    arguments = ["val", str(tmp_path / "none"), "--data", "synthetic"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 4
