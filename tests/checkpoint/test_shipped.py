"""Shipped weights: found by name, compared with their sums, with their terms said."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rtseg
from rtseg.checkpoint import (
    ModelInfo,
    WeightsNotice,
    create_model,
    find_shipped,
    list_shipped,
    save,
    shipped,
    write_sums,
    zoo_folder,
)
from rtseg.cli.main import main
from rtseg.errors import CheckpointError, DataError
from rtseg.structures import ClassInfo

CLASSES = tuple(ClassInfo(f"class {index}", (index, 0, 255 - index)) for index in range(3))
NOTICE = "for non-commercial research only"
FACTS = {
    "license": "research", "notice": NOTICE, "scores": {"miou": 0.5}, "scored_on": "toy test",
}  # fmt: skip
INFO = ModelInfo("dabnet", {}, "semantic", CLASSES, {"stride": 8}, facts=FACTS)
SIZE_LIMIT = 25 * 2**20


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights with one network, and a working folder beside it."""
    root = tmp_path / "zoo"
    torch.manual_seed(0)
    weights = create_model("dabnet", 3).state_dict()
    save(root / "dabnet-toy", weights, INFO)
    write_sums(root / "dabnet-toy")
    monkeypatch.setattr(shipped, "zoo_folder", lambda: root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


def test_weights_are_found_by_name_and_say_their_terms(zoo: Path) -> None:
    assert list_shipped() == ["dabnet-toy"]
    with pytest.warns(WeightsNotice, match=f"dabnet-toy: {NOTICE}"):
        loaded = rtseg.load("dabnet-toy")
    assert loaded.path == zoo / "dabnet-toy"
    with pytest.warns(WeightsNotice):
        predictor = rtseg.Predictor.load("dabnet-toy", device="cpu")
    assert predictor(np.zeros((40, 48, 3), np.uint8)).mask.shape == (40, 48)
    card = (zoo / "dabnet-toy" / "README.md").read_text()
    assert f"- Notice: {NOTICE}\n- License" not in card
    assert f"- License: research\n- Notice: {NOTICE}\n" in card


def test_weights_without_terms_load_in_silence(zoo: Path) -> None:
    info = dataclasses.replace(INFO, facts={})
    save(zoo / "quiet", create_model("dabnet", 3).state_dict(), info)
    write_sums(zoo / "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rtseg.load("quiet")


@pytest.mark.usefixtures("zoo")
def test_a_folder_of_that_name_goes_first() -> None:
    info = dataclasses.replace(INFO, facts={})
    save(Path("dabnet-toy"), create_model("dabnet", 3).state_dict(), info)
    assert rtseg.load("dabnet-toy").path == Path("dabnet-toy")
    shutil.rmtree("dabnet-toy")
    Path("dabnet-toy").mkdir()
    with pytest.raises(CheckpointError, match="is no checkpoint folder"):
        rtseg.load("dabnet-toy")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "README.md"])
def test_one_changed_bit_is_an_error(zoo: Path, file: str) -> None:
    path = zoo / "dabnet-toy" / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file}: is not the file that was shipped"):
        rtseg.load("dabnet-toy")
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        rtseg.load("dabnet-toy")


def test_a_folder_without_sums_is_not_shipped(zoo: Path) -> None:
    shutil.copytree(zoo / "dabnet-toy", zoo / "other")
    (zoo / "other" / "SHA256SUMS").unlink()
    assert find_shipped("other") is None
    with pytest.raises(CheckpointError, match=r"other: does not exist.*such as dabnet-toy"):
        rtseg.load("other")
    sums = (zoo / "dabnet-toy" / "SHA256SUMS").read_text()
    write_sums(zoo / "dabnet-toy")  # the sums are not summed
    assert (zoo / "dabnet-toy" / "SHA256SUMS").read_text() == sums
    (zoo / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        write_sums(zoo / "empty")


@pytest.mark.usefixtures("zoo")
def test_names_are_no_paths() -> None:
    assert find_shipped("../zoo/dabnet-toy") is None
    with pytest.raises(CheckpointError, match=r"config.json$"):
        rtseg.load("runs/nothing")  # who gives a path is not told names


def test_command_line(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 48)).save("street.png")
    assert main(["predict", "dabnet-toy", "street.png", "--output", "out", "--device", "cpu"]) == 0
    assert f"note: dabnet-toy: {NOTICE}\n" in capsys.readouterr().err
    assert Path("out/street.png").is_file()
    assert main(["models", "dabnet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["shipped"]
    assert [item["name"] for item in found] == ["dabnet-toy"]
    assert main(["models", "lsa_b*"]) == 0
    assert "dabnet-toy" not in capsys.readouterr().out
    assert main(["models", "dab*"]) == 0
    assert "dabnet-toy" in (out := capsys.readouterr().out)
    assert "miou 0.5000 (toy test)" in out
    (zoo / "dabnet-toy" / "model.safetensors").write_bytes(b"")
    assert main(["predict", "dabnet-toy", "street.png", "--output", "again"]) == 4
    assert "install rtseg again" in capsys.readouterr().err


def test_what_the_package_ships_is_whole_and_small() -> None:
    names = list_shipped()
    assert all(find_shipped(name) == zoo_folder() / name for name in names)
    sizes = [path.stat().st_size for path in zoo_folder().rglob("*") if path.is_file()]
    assert sum(sizes) <= SIZE_LIMIT
    folders = {path.name for path in zoo_folder().iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(names)  # nothing lies there without sums
