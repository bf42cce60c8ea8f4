from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from data.trees import half, write_image, write_mask
from rtseg.data import DATASETS
from rtseg.data.ade20k import Ade20k
from rtseg.data.ade20k_classes import ADE20K_CLASSES
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError
from rtseg.structures import Segment

ROAD, CAR, PERSON = 6, 20, 12
STUFF, FIRST, SECOND = 0x8C8C8C, 0x010203, 0x030201  # id = R + 256 G + 65536 B


def picture(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def write_tree(root: Path, *, panoptic: bool = False) -> Path:
    for split, folder, stems in (
        ("train", "training", ("ADE_train_00000002", "ADE_train_00000001")),
        ("val", "validation", ("ADE_val_00000001",)),
    ):
        annotations = []
        for number, stem in enumerate(stems):
            seed = number + 10 * len(folder)
            write_image(root / "images" / folder / f"{stem}.jpg", seed=seed)
            write_mask(root / "annotations" / folder / f"{stem}.png", half(0, 150))
            ids = np.full((6, 8), STUFF)
            ids[1:3, 2:4], ids[4, :5], ids[5] = FIRST, SECOND, 0
            write_mask(root / f"ade20k_panoptic_{split}" / f"{stem}.png", picture(ids))
            entries = [(STUFF, ROAD), (FIRST, CAR), (SECOND, CAR), (77, PERSON)]
            infos = [{"id": key, "category_id": item, "iscrowd": 0} for key, item in entries]
            annotations.append(
                {"image_id": stem, "file_name": f"{stem}.png", "segments_info": infos}
            )
        categories = [
            {"id": index, "name": item.name, "isthing": item.thing, "color": item.color}
            for index, item in enumerate(ADE20K_CLASSES)
        ]
        images = [{"id": stem, "file_name": f"{stem}.jpg"} for stem in stems]
        document = {"images": images, "annotations": annotations, "categories": categories}
        if panoptic:
            (root / f"ade20k_panoptic_{split}.json").write_text(json.dumps(document))
    return root


def test_classes_are_150_of_which_100_are_things() -> None:
    assert len(ADE20K_CLASSES) == len({item.name for item in ADE20K_CLASSES}) == 150
    assert len({item.color for item in ADE20K_CLASSES}) == 150
    assert sum(item.thing for item in ADE20K_CLASSES) == 100
    assert [ADE20K_CLASSES[index].name for index in (0, ROAD, PERSON, CAR, 149)] == [
        "wall", "road", "person", "car", "flag",
    ]  # fmt: skip
    assert ADE20K_CLASSES[CAR].color == (0, 102, 200)
    assert (ADE20K_CLASSES[CAR].thing, ADE20K_CLASSES[ROAD].thing) == (True, False)


def test_values_are_classes_plus_one_and_zero_is_ignored(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    values[5] = range(143, 151)
    write_mask(root / "annotations/validation/ADE_val_00000001.png", values)
    labels = Ade20k(root, split="val")[0].labels["semantic"]
    expected = values.astype(int) - 1
    expected[0, 0] = 255
    assert labels.tolist() == expected.tolist()
    assert labels.dtype == np.uint8


def test_value_151_is_refused_with_its_file(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    write_mask(root / "annotations/validation/ADE_val_00000001.png", half(1, 151))
    with pytest.raises(DataError, match=r"ADE_val_00000001\.png: .* 151"):
        Ade20k(root, split="val")[0]


def test_the_root_may_be_the_folder_above_and_is_found_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "ADEChallengeData2016")
    for place in (root, tmp_path):
        splits = open_splits(f"ade20k={place}")
        assert {name: len(dataset) for name, dataset in splits.items()} == {"train": 2, "val": 1}
    train = splits["train"]
    assert isinstance(train, DiskDataset)
    assert [train.files(index)[0].stem[-1] for index in (0, 1)] == ["1", "2"]
    assert train.kinds == ("semantic",)
    assert [item.spec for item in find_data(tmp_path)] == [f"ade20k={root}"]
    assert DATASETS["ade20k"] is Ade20k


def test_panoptic_labels_bring_the_segments_that_are_visible(tmp_path: Path) -> None:
    dataset = Ade20k(write_tree(tmp_path, panoptic=True), split="val", panoptic=True)
    assert dataset.kinds == ("semantic", "panoptic")
    sample = dataset[0]
    ids = sample.labels["panoptic"]
    assert ids.dtype == np.int32
    assert (ids[0, 0], ids[1, 2], ids[4, 4], ids[5, 0]) == (STUFF, FIRST, SECOND, 0)
    # Segment 77 has no pixel: the conversion lists what things cover.
    assert sample.segments == (Segment(STUFF, ROAD), Segment(FIRST, CAR), Segment(SECOND, CAR))
    assert sample.labels["semantic"].tolist() == np.where(half(0, 150) == 0, 255, 149).tolist()
    assert check_dataset(dataset).faults == ()


def test_check_names_faults_of_panoptic_pictures(tmp_path: Path) -> None:
    root = write_tree(tmp_path, panoptic=True)
    folder = root / "ade20k_panoptic_train"
    write_mask(folder / "ADE_train_00000001.png", picture(np.full((6, 8), 78)))
    write_mask(folder / "ADE_train_00000002.png", picture(np.zeros((6, 8), int)))
    faults = check_dataset(Ade20k(root, split="train", panoptic=True)).faults
    assert [(item.kind, Path(item.file).name) for item in faults] == [
        ("unlisted_segment", "ADE_train_00000001.png"), ("all_ignore", "ADE_train_00000002.png"),
    ]  # fmt: skip
    assert "segment 78" in faults[0].message
    write_mask(folder / "ADE_train_00000001.png", picture(np.full((5, 8), STUFF)))
    faults = check_dataset(Ade20k(root, split="train", panoptic=True)).faults
    assert [item.kind for item in faults] == ["size_mismatch", "all_ignore"]


def test_segments_of_other_categories_are_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path, panoptic=True)
    file = root / "ade20k_panoptic_val.json"
    text = file.read_text()
    document = json.loads(text)
    for item in document["categories"]:
        item["id"] += 1
    for info in document["annotations"][0]["segments_info"]:
        info["category_id"] += 1
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"val\.json: its 150 categories are not the 150 classes"):
        Ade20k(root, split="val", panoptic=True)
    document = json.loads(text)
    document["categories"][CAR]["isthing"] = 0
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match="numbered 0 to 149; use the conversion"):
        Ade20k(root, split="val", panoptic=True)


def test_changed_segments_are_checked_again(tmp_path: Path) -> None:
    root, cache = write_tree(tmp_path / "set", panoptic=True), tmp_path / "cache"
    assert check_dataset(Ade20k(root, split="val", panoptic=True), cache=cache).ok
    file = root / "ade20k_panoptic_val.json"
    file.write_text(file.read_text().replace(str(FIRST), "99"))
    assert not check_dataset(Ade20k(root, split="val", panoptic=True), cache=cache).ok


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    with pytest.raises(DataError, match=r"ade20k_panoptic_val\.json"):
        Ade20k(root, split="val", panoptic=True)
    whole = write_tree(tmp_path / "whole", panoptic=True)
    (whole / "ade20k_panoptic_val").rename(whole / "elsewhere")
    with pytest.raises(DataError, match=r"panoptic_val: there is no such folder; unpack"):
        Ade20k(whole, split="val", panoptic=True)
    with pytest.raises(DataError, match=r"images/training: holds no images; set root"):
        Ade20k(root / "images", split="train")
    with pytest.raises(DataError, match="ade20k test: labels are not published"):
        Ade20k(root, split="test")
    with pytest.raises(ConfigError, match="did you mean 'val'"):
        Ade20k(root, split="vale")  # type: ignore[arg-type]


def test_names_agree_with_the_published_table(ade20k_sample: Path) -> None:
    with (ade20k_sample / "objectInfo150.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    for row, item in zip(rows, ADE20K_CLASSES, strict=True):
        assert set(item.name.split()) <= set(row["Name"].split(";"))


def test_real_images(ade20k_sample: Path) -> None:
    splits = open_splits(f"ade20k={ade20k_sample}")
    assert list(splits) == ["val"]
    assert check_dataset(splits).ok
    samples = [splits["val"][index] for index in range(2)]
    assert [sample.image.shape for sample in samples] == [(512, 683, 3), (364, 500, 3)]
    for sample in samples:
        labels = sample.labels["semantic"]
        assert set(np.unique(labels)) <= {*range(150), 255}
        assert (labels == 0).any()  # both rooms have walls
