from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtseg.checkpoint import ModelInfo, create_model, save
from rtseg.cli.main import main
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.synthetic import Synthetic
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
