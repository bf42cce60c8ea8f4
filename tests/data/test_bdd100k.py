from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.trees import HEIGHT, half, rgba, write_image, write_mask
from rtseg.data import DATASETS
from rtseg.data.bdd100k import Bdd100k, _downloaded_tables
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError

DRIVABLE = rgba([[0, 0, 0, 127, 127, 191, 0, 0]] * HEIGHT)
LANE = rgba([[0, 255, 0, 0, 0, 0, 0, 255]] * HEIGHT)


def write_released(root: Path) -> Path:
    for split, stems in (("train", ("b", "a")), ("val", ("c",))):
        for stem in stems:
            write_image(root / split / "images" / f"{stem}.jpg", seed=ord(stem))
            write_mask(root / split / "segment" / f"{stem}.png", DRIVABLE)
            write_mask(root / split / "lane" / f"{stem}.png", LANE)
    return root


def write_yolop(root: Path, drivable: str, lane: str) -> Path:
    for split, stem in (("train", "a"), ("val", "c")):
        write_image(root / "images" / split / f"{stem}.jpg", seed=ord(stem))
        write_mask(root / drivable / split / f"{stem}.png", half(0, 255))
        write_mask(root / lane / split / f"{stem}.png", LANE[..., :3])
    return root


def test_inside_and_outline_are_drivable_and_frames_come_by_name(tmp_path: Path) -> None:
    dataset = Bdd100k(write_released(tmp_path), split="train")
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["bdd100k"] is Bdd100k
    assert dataset.classes == ()
    assert [dataset.files(index)[0].stem for index in range(len(dataset))] == ["a", "b"]
    sample = dataset[0]
    assert list(sample.labels) == list(dataset.kinds) == ["drivable", "lane"]
    assert sample.labels["drivable"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]] * HEIGHT
    assert sample.labels["lane"].tolist() == [[0, 1, 0, 0, 0, 0, 0, 1]] * HEIGHT
    assert sample.labels["lane"].dtype == np.uint8
    assert sample.path == str(tmp_path / "train/images/a.jpg")


@pytest.mark.parametrize(
    ("drivable", "lane"),
    [
        ("drivable_are_annotations", "lane_line_annotations"),
        ("da_seg_annotations", "ll_seg_annotations"),
        ("segments", "lane"),
        ("bdd_seg_gt", "bdd_lane_gt"),
    ],
)
def test_folders_of_earlier_work_are_read(tmp_path: Path, drivable: str, lane: str) -> None:
    root = write_yolop(tmp_path, drivable, lane)
    sets = open_splits(f"bdd100k={root}")
    assert {name: len(dataset) for name, dataset in sets.items()} == {"train": 1, "val": 1}
    sample = sets["val"][0]
    assert sample.path == str(root / "images/val/c.jpg")
    assert sample.labels["drivable"].tolist() == half(0, 1).tolist()
    assert sample.labels["lane"][0].tolist() == [0, 1, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("value", [1, 2, 128, 254])
@pytest.mark.parametrize("folder", ["segment", "lane"])
def test_values_of_other_releases_are_refused(tmp_path: Path, folder: str, value: int) -> None:
    root = write_released(tmp_path)
    write_mask(root / "val" / folder / "c.png", half(0, value))
    with pytest.raises(DataError, match=rf"c\.png: mask holds values without a label: {value}; .*"):
        Bdd100k(root, split="val")[0]


def test_a_mask_with_colors_is_refused(tmp_path: Path) -> None:
    root = write_released(tmp_path)
    for channel in (1, 2):
        colored = DRIVABLE.copy()
        colored[0, 0, channel] = 127
        write_mask(root / "val/segment/c.png", colored)
        with pytest.raises(DataError, match="has colors"):
            Bdd100k(root, split="val")[0]


# As downloaded: drivable 0 own lane, 1 other lanes, 2 neither; lane bits 0-2 category, 3 no line,
# 4 style, 5 direction: a single yellow dashed line (7 + 16), a crosswalk across (0 + 32), nothing.
DOWNLOADED = {
    "drivable": ([0, 0, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0, 0]),
    "lane": ([255, 23, 32, 0, 55, 8, 63, 255], [0, 1, 1, 1, 1, 0, 0, 0]),
}


def write_downloaded(root: Path) -> Path:
    for split, stems in (("train", ("b", "a")), ("val", ("c",))):
        for stem in stems:
            write_image(root / "images/100k" / split / f"{stem}.jpg", seed=ord(stem))
            for kind, (row, _) in DOWNLOADED.items():
                place = root / "labels" / kind / "masks" / split / f"{stem}.png"
                write_mask(place, np.array([row] * HEIGHT, np.uint8))
    return root


def test_masks_as_downloaded_have_their_own_meaning(tmp_path: Path) -> None:
    root = write_downloaded(tmp_path)
    sets = open_splits(f"bdd100k={root}")
    assert {name: len(dataset) for name, dataset in sets.items()} == {"train": 2, "val": 1}
    sample = sets["train"][0]
    assert sample.path == str(root / "images/100k/train/a.jpg")
    for kind, (_, labels) in DOWNLOADED.items():
        assert sample.labels[kind].tolist() == [labels] * HEIGHT, kind
    assert check_dataset(sets).faults == ()
    found = [item.spec for item in find_data(tmp_path) if not item.error]
    assert found == [f"bdd100k={root}"]


def test_every_bit_field_without_bit_3_is_a_line() -> None:
    table = _downloaded_tables()["lane"]
    lines = [value for value in range(64) if f"{value:06b}"[2] == "0"]
    assert len(lines) == 32
    values = np.array([[*range(64), 255]], np.uint8)
    expected = [[int(value in lines) for value in [*range(64), 255]]]
    assert table.apply(values).tolist() == expected


@pytest.mark.parametrize(("kind", "value"), [("drivable", 3), ("drivable", 255), ("lane", 64)])
def test_values_that_no_download_holds_are_refused(tmp_path: Path, kind: str, value: int) -> None:
    root = write_downloaded(tmp_path)
    write_mask(root / "labels" / kind / "masks/val/c.png", half(0, value))
    with pytest.raises(DataError, match=rf"c\.png: mask holds .* {value}; use masks/, not color"):
        Bdd100k(root, split="val")[0]


def test_one_kind_needs_the_masks_of_that_kind_only(tmp_path: Path) -> None:
    root = write_downloaded(tmp_path)
    shutil.rmtree(root / "labels/lane")
    (found,) = find_data(root)
    assert [gap.split for gap in found.missing] == ["train", "val"]
    dataset = Bdd100k(root, split="val", kinds=["drivable"])
    assert dataset.kinds == tuple(dataset[0].labels) == ("drivable",)
    with pytest.raises(DataError, match=r"no folder .*labels/lane/masks/val with the lane masks"):
        Bdd100k(root, split="val")
    with pytest.raises(ConfigError, match=r"label kind 'lanes' is unknown; did you mean 'lane'"):
        Bdd100k(root, split="val", kinds=["lanes"])  # type: ignore[list-item]


def test_check_counts_both_kinds_and_names_missing_and_stray_masks(tmp_path: Path) -> None:
    root = write_released(tmp_path)
    report = check_dataset({name: Bdd100k(root, split=name) for name in ("train", "val")})
    assert (report.faults, report.warnings) == ((), ())
    counts = {kind: item.pixels for kind, item in report.splits["train"].statistics.items()}
    assert counts == {"drivable": (60, 36), "lane": (72, 24)}
    (root / "train/lane/a.png").unlink()
    write_mask(root / "train/segment/z.png", DRIVABLE)
    faults = check_dataset(Bdd100k(root, split="train")).faults
    assert sorted((item.kind, Path(item.file).name) for item in faults) == [
        ("missing_image", "z.png"), ("missing_mask", "a.png"),
    ]  # fmt: skip


def test_wrong_root_and_split_give_errors_that_say_what_to_do(tmp_path: Path) -> None:
    root = write_released(tmp_path / "set")
    with pytest.raises(DataError, match=r"train/images: there is no folder .*; set root"):
        Bdd100k(root / "train", split="train")
    with pytest.raises(DataError, match="bdd100k test: labels are not published"):
        Bdd100k(root, split="test")
    with pytest.raises(ConfigError, match=r"bdd100k: split 'trains' is unknown; .*'train'"):
        Bdd100k(root, split="trains")  # type: ignore[arg-type]
    other = tmp_path / "other"
    write_image(other / "images/val/a.jpg")
    write_mask(other / "segments/val/a.png", DRIVABLE)
    with pytest.raises(
        DataError, match=r"no folder lane_line_annotations/val or .* the lane masks"
    ):
        Bdd100k(other, split="val")


def test_it_is_found_once_and_only_as_what_it_is(tmp_path: Path) -> None:
    write_released(tmp_path / "a")
    write_yolop(tmp_path / "b", "segments", "lane")
    found = {item.spec: item for item in find_data(tmp_path)}
    assert set(found) == {f"bdd100k={tmp_path / name}" for name in "ab"}
    assert found[f"bdd100k={tmp_path / 'a'}"].images == {"train": 2, "val": 1}


def test_real_frames(bdd100k_sample: Path) -> None:
    splits = open_splits(f"bdd100k={bdd100k_sample}")
    assert {name: len(dataset) for name, dataset in splits.items()} == {"train": 3, "val": 1}
    report = check_dataset(splits)
    assert report.ok
    for index in range(3):
        sample = splits["train"][index]
        assert sample.image.shape == (720, 1280, 3)
        assert 0.1 < sample.labels["drivable"].mean() < 0.23
        assert 0.005 < sample.labels["lane"].mean() < 0.033
        # In a street scene there is no drivable area in the sky.
        assert sample.labels["drivable"][: 720 // 4].sum() == 0
