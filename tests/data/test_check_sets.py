"""The data check over whole sets: lists that name files twice, attributes, warnings of Pillow."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from data.broken import CORPUS, image_of, png, write, write_clean
from data.trees import half, write_image, write_mask
from rtseg.data.check import check_dataset
from rtseg.data.spec import open_splits


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Write the layout of CamVid, whose lists may name any file: two frames per split."""
    for number, split in enumerate(("train", "val", "test")):
        lines = []
        for index in range(2):
            name = f"{split}{index}.png"
            write_image(tmp_path / split / name, seed=2 * number + index)
            write_mask(tmp_path / f"{split}annot" / name, half(0, 11))
            lines.append(f"{split}/{name} {split}annot/{name}")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def faults_of(root: Path) -> list[tuple[str, str, str]]:
    found = check_dataset(open_splits(f"camvid={root}")).faults
    return [(fault.kind, fault.file, fault.message) for fault in found]


def _list_also(root: Path, split: str, line: str) -> None:
    file = root / f"{split}.txt"
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def test_a_list_may_name_a_frame_twice(lists: Path) -> None:
    assert faults_of(lists) == []
    _list_also(lists, "train", "train/train0.png trainannot/train0.png")
    assert faults_of(lists) == []


def test_two_frames_of_a_list_must_not_share_a_mask(lists: Path) -> None:
    _list_also(lists, "train", "train/train0.png trainannot/train1.png")
    shared, owner = lists / "trainannot/train1.png", lists / "train/train1.png"
    text = f"shares the mask {shared} with {owner}; keep one image per mask"
    assert faults_of(lists) == [("duplicate_stem", str(lists / "train/train0.png"), text)]


@pytest.mark.parametrize("readable", [True, False])
def test_a_frame_in_the_lists_of_two_splits_leaks(lists: Path, readable: bool) -> None:
    frame = str(lists / "train/train0.png")
    if not readable:
        Path(frame).write_bytes(b"")
    _list_also(lists, "test", "train/train0.png trainannot/train0.png")
    text = f"is the same file as {frame} of split train; keep it in one split"
    assert ("leakage", frame, text) in faults_of(lists)
    assert [kind for kind, _, _ in faults_of(lists)].count("leakage") == 1


def test_attributes_are_counted_without_the_cache_hiding_their_changes(tmp_path: Path) -> None:
    root, cache = write_clean(tmp_path / "set"), tmp_path / "cache"
    file = root / "attributes" / "train.json"
    file.parent.mkdir()
    for rain, expected in ((["a"], {"rain": 1, "sun": 1}), (["a", "b"], {"rain": 2})):
        facts = {stem: {"weather": "rain" if stem in rain else "sun"} for stem in "ab"}
        file.write_text(json.dumps(facts), encoding="utf-8")
        report = check_dataset(open_splits(str(root)), cache=cache)
        assert report.splits["train"].attributes == {"weather": expected}
        assert report.splits["val"].attributes == {}


def test_what_pillow_warns_of_stands_in_the_report_only(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "set")
    CORPUS["truncated JPEG image"][1](root, "a")
    write(image_of(root), png([bytes(8)], width=10_000, height=10_000, depth=8, color_type=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check_dataset(open_splits(str(root)))
    assert [fault.kind for fault in report.faults] == ["unreadable", "too_large"]
    assert "10000x10000" in report.faults[1].message
