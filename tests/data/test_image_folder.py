from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.trees import write_image
from rtseg.data import DATASETS
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.image_folder import ImageFolder
from rtseg.data.spec import find_data, open_splits
from rtseg.data.weights import class_statistics, class_weights
from rtseg.errors import DataError

TREE = {
    "train/n02": ("a", "b", "c"), "train/n01": ("d",), "train/n10": ("e",),
    "val/n02": ("f",), "val/n10": ("g", "h"),
}  # fmt: skip


def write_tree(root: Path) -> Path:
    for folder, stems in TREE.items():
        for stem in stems:
            write_image(root / folder / f"{stem}.jpg", seed=ord(stem))
    (root / "train" / ".cache").mkdir()
    return root


def test_ids_count_the_folders_of_train_by_name_in_every_split(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    train, val = (ImageFolder(root, split=split) for split in ("train", "val"))
    assert isinstance(train, DiskDataset)
    assert DATASETS["image_folder"] is ImageFolder
    assert [item.name for item in train.classes] == ["n01", "n02", "n10"]
    assert val.classes == train.classes
    assert [int(train[index].labels["class"]) for index in range(5)] == [0, 1, 1, 1, 2]
    # n01 has no image in val: ids must not move up.
    assert [int(val[index].labels["class"]) for index in range(3)] == [1, 2, 2]
    label = val[0].labels["class"]
    assert (label.shape, label.dtype) == ((), np.int64)
    assert val[0].path == str(root / "val/n02/f.jpg")


def test_without_train_the_split_counts_its_own_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "test/cat/a.png")
    assert [item.name for item in ImageFolder(tmp_path, split="test").classes] == ["cat"]


def test_class_that_train_lacks_and_missing_split_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    with pytest.raises(DataError, match=r"test: holds no <class>/<image>; set root"):
        ImageFolder(root, split="test")
    write_image(root / "val/n99/z.jpg")
    with pytest.raises(DataError, match=r"val/n99: is a class that .*train does not have"):
        ImageFolder(root, split="val")


def test_check_and_statistics_count_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    splits = open_splits(f"image_folder={root}")
    report = check_dataset(splits)
    assert report.faults == ()
    assert [(item.kind, item.file) for item in report.warnings] == [
        ("empty_class", str(root / "val"))
    ]
    counted = report.splits["train"].statistics["class"]
    assert counted == class_statistics(splits["train"], kind="class")
    assert (counted.names, counted.pixels, counted.void) == (("n01", "n02", "n10"), (1, 3, 1), 0)
    assert class_weights(counted, scheme="median_frequency") == (1.0, 1.0, 1.0)
    (root / "train/n02/b.jpg").write_bytes(b"no image")
    faults = check_dataset(ImageFolder(root, split="train")).faults
    assert [(item.kind, Path(item.file).name) for item in faults] == [("unreadable", "b.jpg")]


def test_class_255_is_a_class_where_there_are_so_many(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / "train" / f"c{index:03d}").mkdir(parents=True)
    for name, seed in (("c255", 1), ("c299", 2)):
        write_image(tmp_path / "train" / name / "a.png", seed=seed)
    dataset = ImageFolder(tmp_path, split="train")
    assert [int(dataset[index].labels["class"]) for index in range(2)] == [255, 299]
    counted = check_dataset(dataset).splits["all"].statistics["class"]
    assert (counted.pixels[255], counted.pixels[299], sum(counted.pixels)) == (1, 1, 2)
    assert counted.void == 0


def test_it_is_found_but_not_inside_of_other_sets(tmp_path: Path) -> None:
    write_tree(tmp_path / "own")
    city = tmp_path / "cityscapes"
    write_image(city / "leftImg8bit/train/ulm/ulm_000000_000001_leftImg8bit.png")
    specs = [item.spec for item in find_data(tmp_path)]
    assert specs == [f"cityscapes={city}", f"image_folder={tmp_path / 'own'}"]
