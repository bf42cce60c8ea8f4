from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.broken import write_clean
from data.trees import write_image
from rtseg.cli.main import main
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic

SCENES = ("--set", "length=2", "--set", "size=[32,48]")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_clean(tmp_path / "clean")


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["data", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_set_with_a_label_map_becomes_one_without(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    code, document = run_json(capsys, "convert", clean, output)
    assert code == 0
    assert document == {
        "data": str(clean), "output": str(output), "labels": ["semantic"],
        "classes": ["road", "car", "sky"], "images": {"train": 3, "val": 2},
        "copied": 5, "linked": 0, "encoded": 0,
    }  # fmt: skip
    assert "label_map" not in (output / "data.yaml").read_text(encoding="utf-8")
    for split in ("train", "val"):
        before, after = (NativeFolder(root, split=split) for root in (clean, output))
        assert before.limits == after.limits
        for index in range(len(before)):
            for kind, labels in before[index].labels.items():
                assert np.array_equal(after[index].labels[kind], labels)
    assert main(["data", "check", str(output)]) == 0


def test_chosen_splits_and_options_are_converted_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    splits = ("--split", "test", "--split", "val")
    assert main(["data", "convert", "synthetic", str(output), *splits, *SCENES, "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert "test 2, val 2 images: 4 saved as PNG" in text
    assert f"rtseg data preview {output}" in text
    native = NativeFolder(output, split="val")
    scene = Synthetic(split="val", length=2, size=(32, 48), seed=3)[1]
    assert np.array_equal(native[1].image, scene.image)
    picture = str(tmp_path / "sheet.png")
    assert main(["data", "preview", str(output), "--output", picture]) == 0
    assert "2 of 2 images of test drawn" in capsys.readouterr().out


def test_images_are_linked_on_request(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "convert", str(clean), str(tmp_path / "o"), "--images", "link"]) == 0
    assert "train 3, val 2 images: 5 linked\n" in capsys.readouterr().out
    assert (tmp_path / "o" / "images" / "train" / "a.png").is_symlink()


def test_overwrite_replaces_what_is_there(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "convert", str(clean), str(tmp_path / "out"), "--split", "val"]
    assert main(words) == 0
    assert main(words) == 3
    assert "out: exists already; replace it with --overwrite" in capsys.readouterr().err
    assert main([*words[:-1], "train", "--overwrite"]) == 0
    assert not (tmp_path / "out" / "images" / "val").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "out"], 3, "nowhere: does not exist; give a folder with a data.yaml"),
        (["clean", "out", "--split", "tran"], 2, "split 'tran' is unknown; did you mean: train"),
        (["clean", "out", "--images", "move"], 2, "'move' is not one of 'copy', 'link'"),
        (["clean"], 2, "Missing argument 'output'"),
        (["image_folder=photos", "out"], 2, "labels of kind 'class' have no place"),
        (["clean", "clean", "--overwrite"], 3, "holds the data that are to be converted"),
        (["clean", "photos", "--overwrite"], 3, "is not replaced, because it holds train"),
        (["clean", "clean/data.yaml"], 3, "is a file; choose another folder"),
    ],
)
@pytest.mark.usefixtures("clean")
def test_wrong_input_is_named_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    write_image(tmp_path / "photos" / "train" / "cat" / "1.png")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "convert", *words]) == code
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fault_ends_the_conversion(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean / "masks" / "train" / "b.png").unlink()
    code, document = run_json(capsys, "convert", clean, tmp_path / "out")
    assert code == 3
    assert document["error"]["where"] == str(clean / "masks" / "train" / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]
