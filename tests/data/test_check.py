from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rtseg.data.check as check_module
from data.broken import CORPUS, DESCRIPTION, HEIGHT, WIDTH, clean_mask, write_clean
from rtseg.data.check import CheckReport, check_dataset
from rtseg.data.native import NativeFolder
from rtseg.structures import ClassInfo, Sample


def check(root: Path, *, cache: Path | None = None) -> CheckReport:
    splits = {name: NativeFolder(root, split=name) for name in ("train", "val")}
    return check_dataset(splits, cache=cache, workers=2)


# ---------------------------------------------------------------- faults
def test_clean_set_has_no_fault_and_exact_counts(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    report = check(root)
    assert (report.faults, report.warnings) == ((), ())
    assert report.ok
    train = report.splits["train"]
    assert train.images == 3
    assert train.sizes == {(HEIGHT, WIDTH): 3}
    counted = train.statistics["semantic"]
    assert counted.names == ("road", "car", "sky")
    # Raw 0 (10 columns) is car, raw 1 (10) road, raw 2 (15) sky, raw 7 (5) void.
    assert counted.pixels == tuple(3 * HEIGHT * columns for columns in (10, 10, 15))
    assert counted.void == 3 * HEIGHT * 5
    assert counted.frames == (3, 3, 3)
    images = [np.asarray(Image.open(path)) for path in sorted((root / "images/train").iterdir())]
    np.testing.assert_allclose(train.channel_mean, np.mean(images, axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("case", CORPUS)
def test_every_fault_is_named_with_its_file(tmp_path: Path, case: str) -> None:
    kind, break_set = CORPUS[case]
    root = write_clean(tmp_path)
    bad = break_set(root)
    report = check(root)
    assert [(fault.kind, fault.file) for fault in report.faults] == [(kind, str(bad))]
    assert ";" in report.faults[0].message or "keep" in report.faults[0].message
    assert not report.ok


def test_all_faults_are_found_in_one_pass(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "masks/train/a.png").unlink()
    (root / "images/train/b.png").write_bytes(b"")
    Image.fromarray(np.full((HEIGHT, WIDTH), 9, dtype=np.uint8)).save(root / "masks/train/c.png")
    (root / "images/val/d.png").unlink()
    kinds = sorted(fault.kind for fault in check(root).faults)
    assert kinds == ["missing_image", "missing_mask", "unreadable", "value_outside_map"]


def test_both_halves_of_a_pair_are_examined_when_the_image_is_bad(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "images/train/b.png").write_bytes(b"")
    (root / "masks/train/b.png").write_bytes(b"")
    files = {fault.file for fault in check(root).faults}
    assert files == {str(root / "images/train/b.png"), str(root / "masks/train/b.png")}


def test_class_without_pixels_in_a_split_is_a_warning_only(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    raw = clean_mask()
    raw[raw == 2] = 7
    for stem in ("d", "e"):
        Image.fromarray(raw).save(root / "masks/val" / f"{stem}.png")
    report = check(root)
    assert report.ok
    assert [(warning.kind, warning.file) for warning in report.warnings] == [("empty_class", "val")]
    assert "'sky'" in report.warnings[0].message


def test_same_pixels_twice_in_one_split_are_no_leakage(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    Image.open(root / "images/train/a.png").save(root / "images/train/b.png")
    assert check(root).faults == ()


def test_leakage_names_both_files(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    Image.open(root / "images/train/a.png").save(root / "images/val/d.png", compress_level=0)
    (fault,) = check(root).faults
    assert (fault.kind, fault.file) == ("leakage", str(root / "images/val/d.png"))
    assert str(root / "images/train/a.png") in fault.message
    assert "train" in fault.message


def test_single_data_set_needs_no_split_name_and_progress_counts_up(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = NativeFolder(write_clean(tmp_path), split="train")
    report = check_dataset(dataset, progress=lambda done, total: calls.append((done, total)))
    assert list(report.splits) == ["all"]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_report_becomes_json(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "masks/train/a.png").unlink()
    stored = json.loads(json.dumps(check(root).to_dict()))
    assert stored["ok"] is False
    assert stored["faults"][0]["kind"] == "missing_mask"
    assert stored["splits"]["val"]["sizes"] == [{"height": HEIGHT, "width": WIDTH, "images": 2}]
    sky = stored["splits"]["train"]["labels"]["semantic"]["classes"][2]
    assert sky == {"id": 2, "name": "sky", "pixels": 2 * HEIGHT * 15, "share": 15 / 35, "frames": 2}


# ---------------------------------------------------------------- data sets in memory
class InMemory:
    classes = (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (1, 1, 1)))
    kinds = ("semantic", "panoptic")

    def __init__(self, semantic: np.ndarray) -> None:
        self.semantic = semantic

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Sample:
        labels = {"semantic": self.semantic, "panoptic": np.ones((2, 2), dtype=np.int32)}
        return Sample(np.zeros((2, 2, 3), dtype=np.uint8), labels, path=f"drawn/{index}")


def test_data_set_without_files_is_checked_too() -> None:
    good = check_dataset(InMemory(np.array([[0, 1], [1, 255]], dtype=np.uint8)))
    assert good.ok
    assert good.splits["all"].statistics["semantic"].pixels == (1, 2)
    for labels, kind in (
        (np.full((2, 2), 2), "value_outside_map"),
        (np.full((2, 2), 255), "all_ignore"),
        (np.zeros((2, 3)), "size_mismatch"),
    ):
        report = check_dataset(InMemory(labels.astype(np.uint8)))
        assert [(fault.kind, fault.file) for fault in report.faults] == [(kind, "drawn/0")]


# ---------------------------------------------------------------- cache
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    original = check_module.read_image

    def counted(path: Path, **options: object) -> np.ndarray:
        read.append(path)
        return original(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(check_module, "read_image", counted)
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
