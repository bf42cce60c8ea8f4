from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.broken import write_clean
from rtseg.cli.main import main

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


def test_a_recipe_shows_what_training_sees(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SCENES, "--count", "2")
    plain, augmented = (
        (run_json(capsys, *words, *more), np.asarray(Image.open(folder / "preview.png")))
        for more in ((), ("--augment", "lsa_binet/synthetic"))
    )
    assert augmented[0]["augment"] == "lsa_binet/synthetic"
    assert plain[0]["images"] == augmented[0]["images"]
    assert plain[1].shape != augmented[1].shape or (plain[1] != augmented[1]).any()
    again = run_json(capsys, *words, "--augment", "lsa_binet/synthetic")
    assert again == augmented[0]
    assert np.array_equal(np.asarray(Image.open(folder / "preview.png")), augmented[1])


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
    assert main(["data", "preview", "clean"]) == 3
    assert "clean/masks/train/b.png: is truncated or no image" in capsys.readouterr().err


def test_an_incomplete_recipe_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = folder / "r.yaml"
    recipe.write_text("data: {augment: {crop: [-3, 8]}}\n", encoding="utf-8")
    assert main(["data", "preview", "clean", "--augment", "r.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
