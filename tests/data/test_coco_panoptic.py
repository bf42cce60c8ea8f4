"""Sets in the COCO panoptic format: two published images, and small trees with one fault each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.trees import HEIGHT, WIDTH, write_image
from rtseg.data import DATASETS
from rtseg.data.check import check_dataset
from rtseg.data.coco_panoptic import CocoPanoptic
from rtseg.data.dataset import DiskDataset
from rtseg.data.panoptic_png import write_panoptic_json, write_panoptic_png
from rtseg.data.spec import find_data, open_data, open_splits
from rtseg.errors import ConfigError, DataError
from rtseg.structures import ClassInfo, InstanceResult, PanopticResult, Segment
from rtseg.tasks.instance import InstanceTask
from rtseg.tasks.panoptic import PanopticTask

ROAD, CAR, MAN = 21, 3, 7
CATEGORIES = {
    ROAD: ClassInfo("road", (128, 64, 128)),
    CAR: ClassInfo("car", (0, 0, 142), thing=True),
    MAN: ClassInfo("man", (220, 20, 60), thing=True),
}
SEGMENTS = (Segment(70000, ROAD), Segment(5, CAR), Segment(300, CAR, crowd=True), Segment(6, MAN))


def ids_of(number: int) -> np.ndarray:
    """Return road above a void row, with two cars and a man of one column each."""
    ids = np.full((HEIGHT, WIDTH), 70000, np.int32)
    ids[1:4, number], ids[1:4, 5], ids[2, 6], ids[5] = 5, 300, 6, 0
    return ids


def write_tree(root: Path, *, images: str = "{split}2017") -> Path:
    for split, stems in (("train", ("000000000042", "000000000007")), ("val", ("000000000009",))):
        items = []
        for number, stem in enumerate(stems):
            folder = root / images.replace("{split}", split)
            write_image(folder / f"{stem}.jpg", seed=number + 10 * len(split))
            picture = root / "annotations" / f"panoptic_{split}2017" / f"{stem}.png"
            write_panoptic_png(picture, ids_of(number))
            items.append((f"{stem}.jpg", f"{stem}.png", ids_of(number), SEGMENTS))
        write_panoptic_json(root / f"annotations/panoptic_{split}2017.json", CATEGORIES, items)
    return root


def change_json(
    root: Path, change: Callable[[dict[str, Any]], None], *, split: str = "val"
) -> None:
    file = root / f"annotations/panoptic_{split}2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


# ---------------------------------------------------------------- the layout
def test_categories_with_gaps_become_classes_in_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = CocoPanoptic(write_tree(tmp_path), split="train")
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["coco_panoptic"] is CocoPanoptic
    assert dataset.classes == tuple(CATEGORIES.values())
    assert dataset.kinds == ("panoptic", "semantic")
    assert [dataset.files(index)[0].stem[-2:] for index in (0, 1)] == ["42", "07"]
    sample = dataset[1]
    assert sample.labels["panoptic"].dtype == np.int32
    assert np.array_equal(sample.labels["panoptic"], ids_of(1))
    crowd = Segment(300, 1, crowd=True)
    assert sample.segments == (Segment(70000, 0), Segment(5, 1), crowd, Segment(6, 2))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:4, 1], expected[1:4, 5], expected[2, 6], expected[5] = 1, 1, 2, 255
    assert sample.labels["semantic"].dtype == np.uint8
    assert sample.labels["semantic"].tolist() == expected.tolist()
    picture = tmp_path / "annotations/panoptic_train2017/000000000007.png"
    assert dataset.files(1) == (tmp_path / "train2017/000000000007.jpg", picture, picture)


def test_kinds_can_be_chosen(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    semantic = CocoPanoptic(root, split="val", kinds=["semantic"])
    assert (semantic.kinds, tuple(semantic[0].labels)) == (("semantic",), ("semantic",))
    assert semantic[0].segments == ()
    assert len(semantic.files(0)) == 2
    both = CocoPanoptic(root, split="val", kinds=["semantic", "panoptic"])
    assert tuple(both[0].labels) == ("semantic", "panoptic")
    assert len(both[0].segments) == 4
    with pytest.raises(ConfigError, match="label kind 'semantics' is unknown"):
        CocoPanoptic(root, split="val", kinds=["semantics"])  # type: ignore[list-item]


def test_pictures_may_lie_beside_the_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (root / "annotations/panoptic_val2017").rename(root / "panoptic_val2017")
    assert CocoPanoptic(root, split="val").files(0)[1].parent == root / "panoptic_val2017"
    assert check_dataset(open_splits(f"coco_panoptic={root}")).faults == ()


def test_other_places_are_options(tmp_path: Path) -> None:
    root = write_tree(tmp_path, images="photos")
    (root / "annotations").rename(root / "labels")
    options = {"annotations": "labels/panoptic_{split}2017.json", "images": "photos"}
    splits = open_splits(f"coco_panoptic={root}", options=options)
    assert {name: len(dataset) for name, dataset in splits.items()} == {"train": 2, "val": 1}
    assert check_dataset(splits).faults == ()
    (root / "labels/panoptic_val2017").rename(root / "ids_val")
    options["masks"] = "ids_{split}"
    moved = open_data(f"coco_panoptic={root}", "val", options=options)
    assert np.array_equal(moved[0].labels["panoptic"], ids_of(0))
    (root / "labels/panoptic_val2017.json").rename(root / "labels/panoptic_mine2017.json")
    options["masks"] = "ids_val"
    assert len(open_data(f"coco_panoptic={root}", "mine", options=options)) == 1


def test_a_set_is_found_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "coco")
    (item,) = find_data(tmp_path)
    assert (item.spec, item.images) == (f"coco_panoptic={root}", {"train": 2, "val": 1})
    assert (item.missing, item.complete) == ((), item.images)
    assert item.classes == ("road", "car", "man")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    with pytest.raises(ConfigError, match=r"annotations is 'a\.json', one file for all splits"):
        CocoPanoptic(root, split="val", annotations="a.json")
    with pytest.raises(DataError, match="coco_panoptic test: labels are not published"):
        CocoPanoptic(root, split="test")
    with pytest.raises(DataError, match=r"panoptic_val2017\.json: file is missing"):
        CocoPanoptic(root / "annotations", split="val")
    (root / "val2017").rename(root / "gone")
    with pytest.raises(DataError, match=r"val2017: there is no such folder of images; unpack"):
        CocoPanoptic(root, split="val")
    (root / "annotations/panoptic_val2017").rename(root / "other")
    with pytest.raises(DataError, match=r"panoptic_val2017: .* of pictures of ids; unpack"):
        CocoPanoptic(root, split="val")
    change_json(root, lambda document: document.update(images=[], annotations=[]), split="train")
    with pytest.raises(DataError, match="describes no image"):
        CocoPanoptic(root, split="train")


def test_too_many_categories_are_no_semantic_labels(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    more = [
        {"id": 100 + index, "name": str(index), "isthing": 0, "color": [0, 0, 0]}
        for index in range(253)
    ]
    change_json(root, lambda document: document["categories"].extend(more))
    with pytest.raises(ConfigError, match=r"256 categories.*write kinds: \[panoptic\]"):
        CocoPanoptic(root, split="val")
    assert len(CocoPanoptic(root, split="val", kinds=["panoptic"]).classes) == 256
    change_json(root, lambda document: document["categories"].pop())
    assert CocoPanoptic(root, split="val").kinds == ("panoptic", "semantic")


# ---------------------------------------------------------------- faults
def info(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = document["annotations"][0]["segments_info"]
    return entries


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "unlisted_segment": lambda document: info(document).pop(),
    "missing_segment": lambda document: info(document).append({"id": 9, "category_id": CAR}),
    "overlapping_segments": lambda document: info(document).append({"id": 5, "category_id": MAN}),
    "value_outside_map": lambda document: info(document)[1].update(category_id=99),
    "wrong_area": lambda document: info(document)[1].update(area=100),
    "missing_entry": lambda document: document["annotations"].clear(),
    "duplicate_stem": lambda document: document["annotations"].append(document["annotations"][0]),
    "missing_image": lambda document: document["images"].clear(),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_check_names_the_picture_that_the_json_file_lies_about(tmp_path: Path, kind: str) -> None:
    root = write_tree(tmp_path)
    assert check_dataset(CocoPanoptic(root, split="val")).faults == ()
    change_json(root, FAULTS[kind])
    for kinds in (["panoptic"], ["semantic"], ["panoptic", "semantic"]):
        dataset = CocoPanoptic(root, split="val", kinds=kinds)  # type: ignore[arg-type]
        (fault,) = set(check_dataset(dataset).faults)
        assert (fault.kind, Path(fault.file).name) == (kind, "000000000009.png")
        with pytest.raises(DataError, match=r"000000000009\.png"):
            dataset[0]


def test_files_that_only_one_side_has_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    stray = write_panoptic_png(root / "annotations/panoptic_train2017/1.png", ids_of(0))
    (root / "annotations/panoptic_train2017/000000000007.png").unlink()
    (root / "train2017/000000000042.jpg").unlink()
    dataset = CocoPanoptic(root, split="train", kinds=["panoptic"])
    assert dataset.strays() == (stray,)
    faults = {(item.kind, Path(item.file).name) for item in check_dataset(dataset).faults}
    assert faults == {
        ("missing_image", "000000000042.jpg"),
        ("missing_mask", "000000000007.png"),
        ("missing_image", "1.png"),
    }


def test_a_changed_json_file_is_checked_again(tmp_path: Path) -> None:
    root, cache = write_tree(tmp_path / "set"), tmp_path / "cache"
    assert check_dataset(CocoPanoptic(root, split="val"), cache=cache).ok
    change_json(root, FAULTS["wrong_area"])
    assert not check_dataset(CocoPanoptic(root, split="val"), cache=cache).ok


# ---------------------------------------------------------------- training and scoring
def test_targets_leave_void_out_and_mark_crowds(tmp_path: Path) -> None:
    dataset = CocoPanoptic(write_tree(tmp_path), split="val")
    target = PanopticTask(dataset.classes).target([dataset[0]])
    assert target.labels[0].tolist() == [0, 1, 1, 2]
    assert target.crowd[0].tolist() == [False, False, True, False]
    assert target.masks[0].sum(dim=(1, 2)).tolist() == [33, 3, 3, 1]
    assert target.ignore[0].nonzero()[:, 0].unique().tolist() == [5]
    assert target.ignore.sum() == WIDTH


def open_sample(folder: Path) -> CocoPanoptic:
    """Open the two published images; their JSON file is called `gt`."""
    return CocoPanoptic(folder, split="gt", annotations="{split}.json", images="images")


def test_published_images_are_read_without_a_fault(coco_panoptic_sample: Path) -> None:
    dataset = open_sample(coco_panoptic_sample)
    assert (len(dataset), len(dataset.classes)) == (2, 133)
    assert sum(item.thing for item in dataset.classes) == 80
    assert (dataset.classes[0].name, dataset.classes[132].name) == ("person", "rug-merged")
    assert check_dataset(dataset).faults == ()
    for index in range(2):
        sample = dataset[index]
        assert sample.image.shape[:2] == sample.labels["panoptic"].shape
        assert any(item.crowd for item in sample.segments)
        for item in sample.segments:
            found = sample.labels["semantic"][sample.labels["panoptic"] == item.id]
            assert set(found.tolist()) == {item.class_id}
        void = sample.labels["panoptic"] == 0
        assert (sample.labels["semantic"][void] == 255).all()


def test_published_images_score_one_against_themselves(coco_panoptic_sample: Path) -> None:
    pytest.importorskip("pycocotools")
    dataset = open_sample(coco_panoptic_sample)
    instance, panoptic = InstanceTask(dataset.classes), PanopticTask(dataset.classes)
    precision, quality = instance.new_metric(), panoptic.new_metric()
    names = tuple(item.name for item in dataset.classes)
    colors = tuple(item.color for item in dataset.classes)
    for index in range(len(dataset)):
        sample = dataset[index]
        target = instance.target([sample])
        objects = ~target.crowd[0]
        precision.update(
            InstanceResult(
                target.masks[0][objects].numpy(),
                target.labels[0][objects].numpy(),
                torch.ones(int(objects.sum())).numpy(),
                names,
                colors,
            ),
            target,
        )
        scores = (1.0,) * len(sample.segments)
        found = PanopticResult(sample.labels["panoptic"], sample.segments, scores, names, colors)
        quality.update(found, panoptic.target([sample]))
    assert precision.compute() == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1}, abs=1e-9)
    total = quality.compute()
    assert [total[name] for name in ("pq", "sq", "rq")] == pytest.approx([1, 1, 1], abs=1e-12)
    assert total["classes_in_mean"] == 8
