from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.broken import write_clean
from rtseg.cli.main import main
from rtseg.data.spec import open_data
from rtseg.data.synthetic import Synthetic


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_clean(tmp_path / "clean")


def test_a_copy_of_all_splits_opens_like_the_original(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "cache", "clean", "copy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["data"], document["output"]) == ("clean", "copy")
    assert {name: item["samples"] for name, item in document["splits"].items()} == {
        "train": 3,
        "val": 2,
    }
    for split, item in document["splits"].items():
        files = list((tmp_path / "copy" / split).iterdir())
        assert sum(path.stat().st_size for path in files) == item["bytes"]
        original, copy = open_data(str(clean), split), open_data("cached=copy", split)
        assert len(copy) == len(original)
        for index in range(len(copy)):
            assert np.array_equal(copy[index].image, original[index].image)
            labels = original[index].labels["semantic"]
            assert np.array_equal(copy[index].labels["semantic"], labels)
    assert main(["data", "stats", "cached=copy"]) == 0


@pytest.mark.usefixtures("clean")
def test_options_and_seed_are_part_of_the_copy(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "cache", "synthetic", "copy", "--split", "val", "--seed", "5"]
    assert main([*words, "--set", "length=2", "--set", "size=[32,48]"]) == 0
    shown = capsys.readouterr().out
    assert "val: 2 samples, " in shown
    assert "open it as cached=copy" in shown
    copy = open_data("cached=copy", "val")  # compares itself with the original
    scene = Synthetic(split="val", size=(32, 48), length=2, seed=5)[1]
    assert np.array_equal(copy[1].image, scene.image)


@pytest.mark.usefixtures("clean")
def test_nothing_is_written_if_one_split_is_there_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "cache", "clean", "copy", "--split", "val"]) == 0
    assert main(["data", "cache", "clean", "copy"]) == 3
    assert "copy/val: exists already; replace it with --overwrite" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["val"]
    assert main(["data", "cache", "clean", "copy", "--overwrite"]) == 0
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["train", "val"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "copy"], 3, "nowhere: does not exist"),
        (["clean", "copy", "--split", "tran"], 2, "split 'tran' is unknown"),
        (["clean"], 2, "Missing argument 'output'"),
        (["clean", "clean/data.yaml"], 3, "cannot be written"),
    ],
)
@pytest.mark.usefixtures("clean")
def test_wrong_input_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    assert main(["data", "cache", *words]) == code
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]
