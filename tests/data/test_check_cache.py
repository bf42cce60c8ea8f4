from __future__ import annotations

import os
from pathlib import Path

import pytest

import rtseg.data.check as check_module
from data.broken import CORPUS, DESCRIPTION, write_clean
from rtseg.data.check import CheckReport, check_dataset
from rtseg.data.check_cache import Record
from rtseg.data.dataset import DiskDataset
from rtseg.data.native import NativeFolder


def check(root: Path, *, cache: Path) -> CheckReport:
    splits = {name: NativeFolder(root, split=name) for name in ("train", "val")}
    return check_dataset(splits, cache=cache, workers=2)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    original = check_module.examine_files

    def counted(dataset: DiskDataset, files: tuple[Path, ...]) -> Record:
        read.append(files[0])
        return original(dataset, files)

    monkeypatch.setattr(check_module, "examine_files", counted)
    return read


def test_second_check_reads_only_what_changed_and_reports_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    first = check(root, cache=cache)
    read = count_reads(monkeypatch)
    assert check(root, cache=cache) == first
    assert read == []
    mask = root / "masks/train/b.png"
    os.utime(mask, ns=(1, 1))
    assert check(root, cache=cache) == first
    assert read == [root / "images/train/b.png"]
    assert not list(cache.glob("*.tmp"))


def test_a_change_that_keeps_size_and_date_is_seen(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    assert check(root, cache=cache).ok
    mask = root / "masks/train/b.png"
    state = mask.stat()
    mask.write_bytes(b"x" * state.st_size)
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert [fault.file for fault in check(root, cache=cache).faults] == [str(mask)]


def test_what_was_examined_before_an_interruption_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"

    def interrupt(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    splits = {name: NativeFolder(root, split=name) for name in ("train", "val")}
    with pytest.raises(KeyboardInterrupt):
        check_dataset(splits, cache=cache, progress=interrupt)
    read = count_reads(monkeypatch)
    assert check(root, cache=cache).ok
    assert sorted(read) == [root / "images/val/d.png", root / "images/val/e.png"]  # by threads


def test_folders_that_link_in_a_circle_do_not_stop_the_cache(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    masks = root / "masks/train"
    for path in masks.iterdir():
        path.unlink()
    masks.rmdir()
    masks.symlink_to("train")
    faults = check(root, cache=cache).faults
    assert [(fault.kind, fault.file) for fault in faults] == [
        ("unreadable", str(masks / f"{stem}.png")) for stem in "abc"
    ]


def test_changed_meaning_of_labels_starts_afresh(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    assert check(root, cache=cache).ok
    for changed in (
        DESCRIPTION.replace("7: ignore", "8: ignore"),
        DESCRIPTION.replace("min_size: 16", "min_size: 30"),
    ):
        (root / "data.yaml").write_text(changed, encoding="utf-8")
        assert len(check(root, cache=cache).faults) == 5
    # A class more, with the same map: counts have another length.
    extra = DESCRIPTION.replace("label_map", "  3: {name: bus, color: [1, 1, 1]}\nlabel_map")
    (root / "data.yaml").write_text(extra, encoding="utf-8")
    assert check(root, cache=cache).splits["val"].statistics["semantic"].frames == (2, 2, 2, 0)


def test_leakage_is_found_from_the_cache_too(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    CORPUS["train image again in val"][1](root)
    assert [fault.kind for _ in range(2) for fault in check(root, cache=cache).faults] == [
        "leakage",
        "leakage",
    ]


def test_faults_are_looked_at_again_and_a_damaged_cache_is_no_obstacle(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    mask = root / "masks/train/b.png"
    good, state = mask.read_bytes(), mask.stat()
    mask.write_bytes(b"x" * len(good))
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not check(root, cache=cache).ok
    mask.write_bytes(good)
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert check(root, cache=cache).ok
    for path in cache.iterdir():
        path.write_text('{"a": [1', encoding="utf-8")
    assert check(root, cache=cache).ok
