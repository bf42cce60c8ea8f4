from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.broken import write_clean
from rtseg.cli.main import main
from rtseg.data.augment import Augment
from rtseg.data.counters import AUGMENTATION, counter_rng
from rtseg.data.preview import preview_sheet
from rtseg.data.synthetic import Synthetic

SCENES = ("synthetic", "--split", "train", "--set", "length=9", "--set", "size=[64,128]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_clean(tmp_path / "clean")
    return tmp_path


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["data", "preview", *map(str, words), "--json", "--overwrite"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_sheet_of_the_first_split_is_drawn(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run_json(capsys, "clean")
    size = Image.open(folder / "preview.png").size
    assert size == (document["width"], document["height"])
    del document["width"], document["height"]
    images = [
        {"index": index, "path": f"clean/images/train/{stem}.png"}
        for index, stem in enumerate("abc")
    ]
    assert document == {
        "data": "clean", "split": "train", "labels": ["semantic"], "augment": None,
        "output": "preview.png", "images": images,
    }  # fmt: skip


def test_seed_count_and_split_choose_the_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chosen(*words: str) -> list[int]:
        return [
            item["index"] for item in run_json(capsys, *SCENES, "--count", "4", *words)["images"]
        ]

    first = chosen()
    assert len(set(first)) == 4
    assert first == sorted(first) == chosen("--seed", "0")
    assert chosen("--seed", "1") != first
    document = run_json(capsys, "clean", "--split", "val", "--output", "a/val.jpg")
    assert [Path(item["path"]).stem for item in document["images"]] == ["d", "e"]
    assert Image.open(folder / "a" / "val.jpg").format == "JPEG"


def test_a_recipe_shows_what_training_sees_in_its_first_epoch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtseg.recipe import read_recipe

    changes = ["train.seed=7", "data.augment.scale_range=[0.5,2]", "data.augment.crop=[48,96]"]
    recipe = read_recipe("lsa_binet/synthetic", changes)
    (folder / "r.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    document = run_json(capsys, *SCENES, "--count", "3", "--augment", "r.yaml")
    assert document["augment"] == "r.yaml"
    scenes = Synthetic(split="train", length=9, size=(64, 128))
    augment = Augment(scale_range=(0.5, 2.0), crop=(48, 96), flip=0.5)
    samples = [
        augment(
            scenes[item["index"]],
            counter_rng(AUGMENTATION, 7, 0, item["index"]),
            padding_color=(123.675, 116.28, 103.53),
        )
        for item in document["images"]
    ]
    sheet = np.asarray(Image.open(folder / "preview.png"))
    wanted = preview_sheet(samples, scenes.classes, heading="")
    # below the heading, the note and the key, whose height differs with the heading
    rows = 3 * (5 * 48 + 12 + 26)
    assert np.array_equal(sheet[-rows:], wanted[-rows:])


def test_an_older_picture_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", "clean", "--count", "2"]) == 0
    assert "2 of 3 images of train drawn in preview.png" in capsys.readouterr().out
    before = (folder / "preview.png").read_bytes()
    assert main(["data", "preview", "clean", "--split", "val"]) == 3
    assert "preview.png: exists already; replace it with --overwrite" in capsys.readouterr().err
    assert (folder / "preview.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 3, "nowhere: does not exist"),
        (["clean", "--split", "tran"], 2, "split 'tran' is unknown"),
        (["clean", "--count", "0"], 2, "--count"),
        (["clean", "--output", "a.gif"], 3, "a.gif: picture format '.gif' is unknown; use one of"),
        (["clean", "--augment", "lsa_binet/camvit"], 2, "recipe 'lsa_binet/camvit' is unknown"),
        (["synthetic", "--set", "lenght=3"], 2, "synthetic.lenght is unknown"),
        (["synthetic", "--set", "split={a}.b"], 2, "--set: cannot be read: split={a}.b; write"),
    ],
)
def test_wrong_input_is_named(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    assert main(["data", "preview", *words]) == code
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["clean"]


def test_an_unreadable_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "clean" / "masks" / "train" / "b.png").write_bytes(b"no mask")
    for words in ([], ["--augment", "lsa_binet/synthetic"]):
        assert main(["data", "preview", "clean", *words]) == 3
        assert "clean/masks/train/b.png: is truncated or no image" in capsys.readouterr().err


def test_an_incomplete_recipe_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder / "r.yaml"
    recipe.write_text("data: {augment: {crop: [-3, 8]}}\n", encoding="utf-8")
    assert main(["data", "preview", "clean", "--augment", "r.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
