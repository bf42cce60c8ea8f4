"""Panoptic masks and attributes of native folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.trees import HEIGHT, WIDTH, half, write_image, write_mask
from rtseg.data.check import check_dataset
from rtseg.data.native import NativeFolder, load_description
from rtseg.data.panoptic_png import write_panoptic_json, write_panoptic_png
from rtseg.data.spec import open_splits
from rtseg.errors import ConfigError, DataError
from rtseg.structures import Segment
from rtseg.tasks.instance import InstanceTask

DESCRIPTION = """\
splits: [train]
classes:
  0: {name: road, color: [128, 64, 128]}
  1: {name: car, color: [0, 0, 142], thing: true}
  2: {name: man, color: [220, 20, 60], thing: true}
labels: [panoptic]
"""
IDS = np.full((HEIGHT, WIDTH), 9, np.int32)
IDS[0], IDS[1:3, 2:4], IDS[4, 5] = 0, 70001, 70002
SEGMENTS = [
    {"id": 9, "category_id": 0, "area": 35},
    {"id": 70001, "category_id": 1, "iscrowd": 0},
    {"id": 70002, "category_id": 2, "iscrowd": 1},
]
READ = (Segment(9, 0), Segment(70001, 1), Segment(70002, 2, crowd=True))


def write_json(file: Path, segments: list[dict[str, Any]]) -> None:
    annotations = [{"file_name": "a.png", "segments_info": segments}]
    file.write_text(json.dumps({"annotations": annotations}))


def write_tree(root: Path, *, text: str = DESCRIPTION, kind: str = "") -> Path:
    write_image(root / "images/train/a.jpg")
    write_panoptic_png(root / "masks" / kind / "train/a.png", IDS)
    write_json(root / "masks" / kind / "train.json", SEGMENTS)
    (root / "data.yaml").write_text(text)
    return root


def test_masks_bring_their_segments(tmp_path: Path) -> None:
    dataset = NativeFolder(write_tree(tmp_path), split="train")
    assert dataset.kinds == ("panoptic",)
    sample = dataset[0]
    assert sample.labels["panoptic"].dtype == np.int32
    assert np.array_equal(sample.labels["panoptic"], IDS)
    assert sample.segments == READ
    assert check_dataset(dataset).faults == ()
    target = InstanceTask(dataset.classes).target([sample])
    assert target.masks[0].sum(dim=(1, 2)).tolist() == [4, 1]
    assert target.crowd[0].tolist() == [False, True]


def test_panoptic_masks_stand_beside_other_kinds(tmp_path: Path) -> None:
    text = DESCRIPTION.replace("[panoptic]", "[semantic, panoptic]")
    root = write_tree(tmp_path, text=text, kind="panoptic")
    write_mask(root / "masks/semantic/train/a.png", half(0, 1))
    dataset = NativeFolder(root, split="train")
    assert dataset.files(0)[2] == root / "masks/panoptic/train/a.png"
    sample = dataset[0]
    assert sample.segments == READ
    assert sample.labels["semantic"].tolist() == half(0, 1).tolist()
    semantic = NativeFolder(root, split="train", kinds=["semantic"])
    (root / "masks/panoptic/train.json").unlink()  # not read for other kinds
    assert semantic[0].segments == ()


def test_a_whole_file_of_the_coco_format_will_do(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    classes = dict(enumerate(load_description(root / "data.yaml").classes))
    write_panoptic_json(root / "masks/train.json", classes, [("a.jpg", "a.png", IDS, READ)])
    assert NativeFolder(root, split="train")[0].segments == READ


def test_label_map_gives_categories_their_classes(tmp_path: Path) -> None:
    root = write_tree(tmp_path, text=DESCRIPTION + "label_map: {0: 1, 1: ignore, 2: ignore}\n")
    sample = NativeFolder(root, split="train")[0]
    assert sample.segments == (Segment(9, 1),)
    assert np.array_equal(sample.labels["panoptic"], np.where(IDS == 9, 9, 0))
    (root / "data.yaml").write_text(DESCRIPTION + "label_map: {1: 0}\n")
    with pytest.raises(DataError, match=r"a\.png: segment 9 has the unknown category 0 in train"):
        NativeFolder(root, split="train")[0]
    (root / "data.yaml").write_text(DESCRIPTION + "label_map: {1: 0, 2: 1}\nunmapped: ignore\n")
    sample = NativeFolder(root, split="train")[0]
    assert sample.segments == (Segment(70001, 0), Segment(70002, 1, crowd=True))
    assert np.array_equal(sample.labels["panoptic"], np.where(IDS == 9, 0, IDS))


def test_descriptions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(DESCRIPTION + 'color_map: {"1,2,3": 0}\n')
    with pytest.raises(ConfigError, match="color_map does not apply to panoptic masks"):
        load_description(path)
    path.write_text("splits: [train]\nlabels: [panoptic]\n")
    with pytest.raises(ConfigError, match="classes is missing"):
        load_description(path)
    maps = 'labels: [semantic, panoptic]\ncolor_map: {semantic: {"1,2,3": 0}}\n'
    path.write_text(DESCRIPTION.replace("labels: [panoptic]\n", maps))
    tables = load_description(path).tables
    assert (tables["semantic"].color, tables["panoptic"].color) == (True, False)


FAULTS: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "unlisted_segment": lambda entries: entries.pop(0),
    "missing_segment": lambda entries: entries.append({"id": 8, "category_id": 1}),
    "overlapping_segments": lambda entries: entries.append({"id": 9, "category_id": 1}),
    "value_outside_map": lambda entries: entries[0].update(category_id=3),
    "wrong_area": lambda entries: entries[0].update(area=36),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_check_names_masks_and_segments_that_disagree(tmp_path: Path, kind: str) -> None:
    root = write_tree(tmp_path)
    entries = [dict(entry) for entry in SEGMENTS]
    FAULTS[kind](entries)
    write_json(root / "masks/train.json", entries)
    (fault,) = check_dataset(open_splits(str(root))).faults
    assert (fault.kind, fault.file) == (kind, str(root / "masks/train/a.png"))


def test_masks_that_are_not_described_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    for seed, name in ((1, "b"), (2, "c"), (3, "d")):
        write_image(root / f"images/train/{name}.png", seed=seed)
    write_panoptic_png(root / "masks/train/b.png", IDS)
    Image.fromarray(IDS.astype(np.uint16)).save(root / "masks/train/c.png")
    dataset = NativeFolder(root, split="train")
    faults = {Path(item.file).name: item.kind for item in check_dataset(dataset).faults}
    assert faults == {"b.png": "missing_entry", "c.png": "missing_entry", "d.png": "missing_mask"}
    Image.fromarray(IDS.astype(np.uint16)).save(root / "masks/train/a.png")
    with pytest.raises(DataError, match=r"a\.png: mask has 1 channel .*; save segment ids as"):
        NativeFolder(root, split="train")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"masks/train\.json: is truncated or no JSON"),
        ("[]", r"masks/train\.json: is no panoptic JSON file"),
        ('{"annotations": [{"file_name": "a.png"}]}', "key 'segments_info' is missing"),
        ('{"annotations": [{"segments_info": []}]}', "key 'file_name' is missing"),
    ],
)
def test_a_json_file_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    root = write_tree(tmp_path)
    (root / "masks/train.json").write_text(text)
    with pytest.raises(DataError, match=message):
        NativeFolder(root, split="train")
    (root / "masks/train.json").unlink()
    with pytest.raises(DataError, match=r"masks/train\.json: file is missing"):
        NativeFolder(root, split="train")


def test_changed_segments_are_checked_again(tmp_path: Path) -> None:
    root, cache = write_tree(tmp_path / "set"), tmp_path / "cache"
    assert check_dataset(NativeFolder(root, split="train"), cache=cache).ok
    write_json(root / "masks/train.json", SEGMENTS[:2])
    assert not check_dataset(NativeFolder(root, split="train"), cache=cache).ok


# ---------------------------------------------------------------- attributes
def test_attributes_are_read_by_stem(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    write_image(root / "images/train/b.png")
    (root / "attributes").mkdir()
    text = '{"a": {"weather": "rain", "hour": 7}, "c": {"weather": "fog"}}'
    (root / "attributes/train.json").write_text(text)
    dataset = NativeFolder(root, split="train")
    assert dataset[0].attributes == dataset.attributes(0) == {"weather": "rain", "hour": "7"}
    assert dataset.attributes(1) == {}
    (root / "attributes/train.json").write_text('{"a": "rain"}')
    with pytest.raises(DataError, match=r"attributes/train\.json: holds no attributes by image"):
        NativeFolder(root, split="train")
