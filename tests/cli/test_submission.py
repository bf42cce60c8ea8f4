"""`rtseg predict --submission`: a folder that a benchmark's server takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.tiny import write_checkpoint, write_image
from rtseg.checkpoint import ModelInfo, create_model, save
from rtseg.cli.main import main
from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES

FRAMES = ("ulm_000000_000019_leftImg8bit", "ulm_000001_000019_leftImg8bit")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "dabnet"
    weights = create_model("dabnet", 19).state_dict()
    save(folder, weights, ModelInfo("dabnet", {}, "semantic", CITYSCAPES_CLASSES, {}))
    return folder


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for seed, name in enumerate(FRAMES):
        write_image(tmp_path / "frames" / f"{name}.png", 33, 66, seed=seed)
    return tmp_path / "frames"


def run(checkpoint: Path, source: Path, output: Path, *more: str) -> int:
    return main(["predict", str(checkpoint), str(source), "--output", str(output), *more])


def test_label_ids_are_written_beside_the_usual_maps(
    checkpoint: Path, frames: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, frames, out, "--submission", "cityscapes", "--quiet") == 0
    folder = out / "submission"
    written = sorted(path.name for path in folder.iterdir())
    assert written == [f"{name.removesuffix('_leftImg8bit')}_pred_labelIds.png" for name in FRAMES]
    for name, file in zip(FRAMES, written, strict=True):
        classes = np.asarray(Image.open(out / f"{name}.png"))
        ids = np.asarray(Image.open(folder / file))
        assert ids.shape == (33, 66)
        assert set(zip(classes.ravel().tolist(), ids.ravel().tolist(), strict=True)) <= {
            (0, 7), (1, 8), (2, 11), (3, 12), (4, 13), (5, 17), (6, 19), (7, 20), (8, 21), (9, 22),
            (10, 23), (11, 24), (12, 25), (13, 26), (14, 27), (15, 28), (16, 31), (17, 32),
            (18, 33),
        }  # fmt: skip
    line = json.loads((out / "results.jsonl").read_text().splitlines()[0])
    assert line["files"]["submission"] == str(folder / written[0])


def test_without_the_option_there_is_no_such_folder(
    checkpoint: Path, frames: Path, tmp_path: Path
) -> None:
    assert run(checkpoint, frames, tmp_path / "out", "--quiet") == 0
    assert not (tmp_path / "out" / "submission").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(
    checkpoint: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(checkpoint, frames, out, "--submission", "cityscape") == 2
    assert "--submission: 'cityscape' is unknown; use cityscapes" in capsys.readouterr().err
    three = write_checkpoint(tmp_path / "three")
    assert run(three, frames, out, "--submission", "cityscapes") == 2
    assert "does not predict the 19 classes" in capsys.readouterr().err
    write_image(frames / "holiday.png")
    assert run(checkpoint, frames, out, "--submission", "cityscapes") == 3
    assert "holiday.png: the name does not begin with" in capsys.readouterr().err
    assert not out.exists()


def test_a_network_that_gives_no_classes_of_pixels_is_refused(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = ModelInfo("twinmixing_nano", {}, "road_lane", CITYSCAPES_CLASSES, {})
    save(tmp_path / "roads", create_model("twinmixing_nano").state_dict(), info)
    assert run(tmp_path / "roads", frames, tmp_path / "out", "--submission", "cityscapes") == 2
    assert "one class per pixel" in capsys.readouterr().err


def test_files_of_a_submission_are_replaced_with_overwrite_only(
    checkpoint: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "out" / "submission" / "ulm_000000_000019_pred_labelIds.png"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    arguments = (checkpoint, frames, tmp_path / "out", "--submission", "cityscapes", "--quiet")
    assert run(*arguments) == 3
    assert f"holds {kept.name} already" in capsys.readouterr().err
    assert kept.read_text() == "kept"
    assert run(*arguments, "--overwrite") == 0
    assert Image.open(kept).mode == "L"
