"""Which int8 exports of a checkpoint are remembered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from inference.kept import write_network
from rtseg.errors import CheckpointError
from rtseg.export.known import remember, remembered
from rtseg.runtimes import Manifest
from runtimes.files import write_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "network")


def make(folder: Path, precision: str = "int8") -> Manifest:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"layers")
    return write_manifest(folder, precision=precision)


def test_exports_are_found_by_the_content_of_their_checkpoint(
    network: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        remember(network, folder, make(folder))
    assert list(remembered(network)) == [second, first]
    remember(network, first, make(tmp_path / "other"))  # exported again
    assert list(remembered(network)) == [first, second]
    copy = shutil.copytree(network, tmp_path / "copy")
    assert list(remembered(copy)) == [first, second]
    assert remembered(write_network(tmp_path / "trained on", seed=1)) == {}


def test_a_relative_folder_is_found_from_elsewhere(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    remember(network, Path("here"), manifest)
    monkeypatch.chdir("/")
    assert list(remembered(network)) == [tmp_path / "here"]


def test_deleted_and_damaged_exports_are_forgotten(network: Path, tmp_path: Path) -> None:
    for name in ("deleted", "damaged", "whole"):
        remember(network, tmp_path / name, make(tmp_path / name))
    shutil.rmtree(tmp_path / "deleted")
    (tmp_path / "damaged" / "model.onnx").write_bytes(b"half")
    assert list(remembered(network)) == [tmp_path / "whole"]


def test_other_precisions_are_not_remembered(network: Path, tmp_path: Path, cache: Path) -> None:
    remember(network, tmp_path / "bf16", make(tmp_path / "bf16", "bf16"))
    assert remembered(network) == {}
    assert list((cache / "int8").iterdir()) == []


def test_without_a_cache_or_files_nothing_is_remembered(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make(tmp_path / "export")
    remember(tmp_path / "a network in memory", tmp_path / "export", manifest)
    with pytest.raises(CheckpointError, match="cannot be read"):
        remembered(tmp_path / "a network in memory")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "file" / "cache"))
    remember(network, tmp_path / "export", manifest)
    assert remembered(network) == {}
