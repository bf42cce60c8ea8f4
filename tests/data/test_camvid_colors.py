from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.trees import half, write_image, write_mask
from rtseg.data.camvid import CamVid
from rtseg.data.camvid_classes import CLASSES_11, CLASSES_31, MERGED
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError

# Colors typed in by hand: road, lines on it and beside it, shoulder; sky, wall, child, void.
ROAD, DRIV, NON_DRIV, SHOULDER = (128, 64, 128), (128, 0, 192), (192, 0, 64), (128, 128, 192)
SKY, WALL, CHILD, VOID = (128, 128, 128), (64, 192, 0), (192, 128, 64), (0, 0, 0)
MASK = np.array([[ROAD, DRIV, NON_DRIV, SHOULDER], [SKY, WALL, CHILD, VOID]], np.uint8)
LABELS = {
    11: [[3, 3, 3, 4], [0, 1, 9, 255]],
    32: [[17, 10, 11, 18], [21, 30, 7, 255]],
}
DRIVABLE = [[1, 1, 0, 0], [0, 0, 0, 255]]
LANE = [[0, 1, 1, 0], [0, 0, 0, 255]]
FRAMES = {"train": ("f2", "f1"), "val": ("f3",), "test": ("f4",)}


def write_folders(root: Path, splits: Sequence[str] = ("train", "val", "test")) -> Path:
    for split in splits:
        for stem in FRAMES[split]:
            write_image(root / split / f"{stem}.png", seed=int(stem[1]), size=(2, 4))
            write_mask(root / f"{split}_labels" / f"{stem}_L.png", MASK)
    return root


def write_original(root: Path) -> Path:
    for stem in ("f1", "f2", "f3", "f4", "f5"):
        write_image(root / "701_StillsRaw_full" / f"{stem}.png", seed=int(stem[1]), size=(2, 4))
        write_mask(root / "LabeledApproved_full" / f"{stem}_L.png", MASK)
    return root


@pytest.mark.parametrize("classes", [11, 32])
def test_colors_become_classes(tmp_path: Path, classes: int) -> None:
    dataset = CamVid(write_folders(tmp_path), split="val", classes=classes)  # type: ignore[arg-type]
    assert isinstance(dataset, DiskDataset)
    labels = dataset[0].labels["semantic"]
    assert labels.tolist() == LABELS[classes]
    assert labels.dtype == np.uint8
    assert len(dataset.classes) == {11: 11, 32: 31}[classes]
    named = {dataset.classes[value].name for value in np.unique(labels) if value != 255}
    assert {11: "Pavement", 32: "RoadShoulder"}[classes] in named
    assert {11: "Pedestrian", 32: "Child"}[classes] in named


def test_drivable_and_lane_are_derived_from_the_32_labels(tmp_path: Path) -> None:
    root = write_folders(tmp_path)
    dataset = CamVid(root, split="train", kinds=["lane", "drivable", "semantic"])
    assert dataset.kinds == ("lane", "drivable", "semantic")
    assert dataset.files(1) == (root / "train/f2.png", *[root / "train_labels/f2_L.png"] * 3)
    labels = dataset[1].labels
    assert list(labels) == ["lane", "drivable", "semantic"]
    assert labels["drivable"].tolist() == DRIVABLE
    assert labels["lane"].tolist() == LANE
    assert labels["semantic"].tolist() == LABELS[11]
    assert list(CamVid(root, split="train")[0].labels) == ["semantic"]
    report = check_dataset(dataset)
    assert report.faults == ()
    assert report.splits["all"].statistics["drivable"].pixels == (2 * 5, 2 * 2)


@pytest.mark.parametrize(
    "line", ["{0}", "{0}.png", "/SegNet/CamVid/train/{0}.png /SegNet/CamVid/trainannot/{0}.png"]
)
def test_the_original_release_follows_added_lists(tmp_path: Path, line: str) -> None:
    root = write_original(tmp_path)
    for split, stems in FRAMES.items():
        text = "\n".join(line.format(stem) for stem in stems)
        (root / f"{split}.txt").write_text(text + "\n\n", encoding="utf-8")
    dataset = CamVid(root, split="trainval", classes=32)
    assert [dataset.files(index) for index in range(len(dataset))] == [
        (root / f"701_StillsRaw_full/{stem}.png", root / f"LabeledApproved_full/{stem}_L.png")
        for stem in ("f2", "f1", "f3")
    ]
    assert dataset[0].labels["semantic"].tolist() == LABELS[32]
    report = check_dataset(open_splits(f"camvid={root}"))  # f5 is in no list, which is no fault
    assert report.faults == ()
    assert [split.images for split in report.splits.values()] == [2, 1, 1]


def test_the_original_release_without_lists_says_what_to_add(tmp_path: Path) -> None:
    root = write_original(tmp_path)
    (found,) = find_data(root)
    gaps = [(gap.split, gap.path) for gap in found.missing]
    assert gaps == [(split, f"{split}.txt") for split in ("train", "val", "test")]
    with pytest.raises(DataError, match=r"train\.txt: cannot read .*lists of the release with 11"):
        CamVid(root, split="train")
    (root / "train.txt").write_text("f1\na b c\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.txt: line 2"):
        CamVid(root, split="train")
    (root / "train.txt").write_text("f1\nf9\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"701_StillsRaw_full/f9\.png: file is missing"):
        CamVid(root, split="train")[1]


def test_frames_of_folders_come_by_name_and_only_for_splits_that_are_there(tmp_path: Path) -> None:
    root = write_folders(tmp_path, ("train", "val"))
    sets = open_splits(f"camvid={root}")
    assert {name: len(dataset) for name, dataset in sets.items()} == {"train": 2, "val": 1}
    both = CamVid(root, split="trainval")
    names = [both.files(index)[0].name for index in range(3)]
    assert names == ["f1.png", "f2.png", "f3.png"]
    with pytest.raises(DataError, match=r"test: holds no images; set root"):
        CamVid(root, split="test")
    found = [item for item in find_data(tmp_path) if not item.error]
    assert [(item.spec, item.images) for item in found] == [
        (f"camvid={root}", {"train": 2, "val": 1})
    ]


def test_check_names_missing_and_stray_masks_of_folders(tmp_path: Path) -> None:
    root = write_folders(tmp_path)
    (root / "train_labels/f1_L.png").rename(root / "train_labels/f7_L.png")
    faults = check_dataset(CamVid(root, split="train", kinds=["semantic", "lane"])).faults
    assert {(fault.kind, Path(fault.file).name) for fault in faults} == {
        ("missing_mask", "f1_L.png"), ("missing_image", "f7_L.png"),
    }  # fmt: skip


def test_colors_that_no_label_has_are_refused_with_the_file(tmp_path: Path) -> None:
    root = write_folders(tmp_path)
    path = root / "val_labels/f3_L.png"
    mixed = MASK.copy()
    mixed[1, 3] = (128, 65, 128)
    write_mask(path, mixed)
    with pytest.raises(DataError, match=r"f3_L\.png: mask holds colours .* 128,65,128; use the"):
        CamVid(root, split="val", kinds=["drivable"])[0]
    write_mask(path, half(0, 3)[:2, 2:6])
    with pytest.raises(DataError, match=r"f3_L\.png: mask has 1 channel"):
        CamVid(root, split="val")[0]


# ---------------------------------------------------------------- the release with 11 classes
def test_masks_of_11_classes_give_drivable_but_neither_lane_nor_32(camvid_root: Path) -> None:
    dataset = CamVid(camvid_root, split="train", kinds=["semantic", "drivable"])
    for index in range(len(dataset)):
        labels = dataset[index].labels
        expected = np.where(labels["semantic"] == 255, 255, labels["semantic"] == 3)
        assert (labels["drivable"] == expected).all()
    with pytest.raises(ConfigError, match="do not tell lane lines apart; use the original"):
        CamVid(camvid_root, split="train", kinds=["lane"])
    with pytest.raises(ConfigError, match="do not tell 32 classes apart; use the original"):
        CamVid(camvid_root, split="train", classes=32)


def test_unknown_options_give_errors_that_say_what_to_do(camvid_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"camvid: label kind 'drive' is unknown; .*'drivable'"):
        CamVid(camvid_root, split="train", kinds=["drive"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="camvid: kinds is empty; name at least one of semantic"):
        CamVid(camvid_root, split="train", kinds=[])
    with pytest.raises(ConfigError, match="camvid: classes is 12; use 11 or 32"):
        CamVid(camvid_root, split="train", classes=12)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the table of labels
def test_table_of_labels_is_the_published_one(camvid32_classes: Path) -> None:
    with camvid32_classes.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["name"] != "Void"]
    colors = [(int(row["r"]), int(row["g"]), int(row["b"])) for row in rows]
    assert [(info.name, info.color) for info in CLASSES_31] == [
        (row["name"], color) for row, color in zip(rows, colors, strict=True)
    ]
    assert [int(row["camvid11_id"]) for row in rows] == list(MERGED)


def test_labels_that_move_are_things_and_keep_their_merged_kind() -> None:
    things = {info.name for info in CLASSES_31 if info.thing}
    assert things == {
        "Animal", "Bicyclist", "Car", "CartLuggagePram", "Child", "MotorcycleScooter",
        "OtherMoving", "Pedestrian", "SUVPickupTruck", "Train", "Truck_Bus",
    }  # fmt: skip
    assert set(MERGED) == set(range(11))
    same = {info.name for info in CLASSES_31} & {info.name for info in CLASSES_11}
    assert same == {
        "Bicyclist", "Building", "Car", "Fence", "Pedestrian", "Road", "SignSymbol", "Sky", "Tree",
    }  # fmt: skip
    pairs = zip(CLASSES_31, MERGED, strict=True)
    merged = {info.name: CLASSES_11[index].name for info, index in pairs}
    assert all(merged[name] == name for name in same)
