from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.trees import half, write_image, write_mask
from rtseg.data import DATASETS
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.palette import spread_color
from rtseg.data.spec import find_data, open_splits
from rtseg.data.voc import Voc
from rtseg.errors import ConfigError, DataError

TRAIN, VAL, EXTRA = ("2007_2", "2007_1"), ("2008_3", "2008_4"), ("2009_5", "2009_6")


def write_tree(root: Path, *, extended: bool = True) -> Path:
    for number, stem in enumerate((*TRAIN, *VAL, *EXTRA)):
        write_image(root / "JPEGImages" / f"{stem}.jpg", seed=number)
        if stem not in EXTRA:
            mask = root / "SegmentationClass" / f"{stem}.png"
            write_mask(mask, half(0, 255 if number else 20), palette=True)
        if extended:
            write_mask(root / "SegmentationClassAug" / f"{stem}.png", half(15, 1))
    write_image(root / "JPEGImages" / "2010_other_task.jpg", seed=99)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, stems in (("train", TRAIN), ("val", VAL)):
        (lists / f"{name}.txt").write_text("\n".join(stems) + "\n")
    return root


def stems(dataset: Voc) -> list[str]:
    return [dataset.files(index)[0].stem for index in range(len(dataset))]


def test_colors_are_those_of_the_published_palette() -> None:
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert [spread_color(index) for index in range(6)] == expected
    assert spread_color(15) == (192, 128, 128)
    assert spread_color(20) == (0, 64, 128)
    assert len({spread_color(index) for index in range(1000)}) == 1000


def test_palette_indices_are_classes_and_borders_are_ignored(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    dataset = Voc(root, split="train")
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["voc"] is Voc
    assert stems(dataset) == list(TRAIN)
    assert dataset[0].labels["semantic"].tolist() == half(0, 20).tolist()
    assert dataset[1].labels["semantic"].tolist() == half(0, 255).tolist()
    names = [item.name for item in dataset.classes]
    assert (len(names), names[0], names[15], names[20]) == (
        21,
        "background",
        "person",
        "tv monitor",
    )
    assert [item.thing for item in dataset.classes] == [False] + [True] * 20


def test_the_extension_trains_on_every_mask_that_is_not_scored(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    train = Voc(root, split="train", sbd=True)
    assert stems(train) == sorted([*TRAIN, *EXTRA])
    assert all(train.files(index)[1].parent.name == "SegmentationClassAug" for index in range(4))
    assert train[0].labels["semantic"].tolist() == half(15, 1).tolist()
    val = Voc(root, split="val", sbd=True)
    assert stems(val) == list(VAL)
    assert val.files(0) == Voc(root, split="val").files(0)
    assert stems(Voc(root, split="trainval", sbd=True)) == stems(train) + list(VAL)
    assert stems(Voc(root, split="trainval")) == [*TRAIN, *VAL]


def test_every_root_works_and_the_set_is_found_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "VOCdevkit" / "VOC2012")
    for place in (root, root.parent, tmp_path):
        splits = open_splits(f"voc={place}")
        assert {name: len(dataset) for name, dataset in splits.items()} == {"train": 2, "val": 2}
    assert [item.spec for item in find_data(tmp_path)] == [f"voc={root}"]


def test_check_is_clean_and_names_faults(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    assert check_dataset(Voc(root, split="trainval", sbd=True)).faults == ()
    write_mask(root / "SegmentationClass/2008_3.png", half(0, 21), palette=True)
    (root / "SegmentationClass/2008_4.png").unlink()
    faults = check_dataset(Voc(root, split="val")).faults
    assert [(item.kind, Path(item.file).name) for item in faults] == [
        ("value_outside_map", "2008_3.png"), ("missing_mask", "2008_4.png"),
    ]  # fmt: skip


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "a", extended=False)
    with pytest.raises(DataError, match=r"SegmentationClassAug: holds no masks; put"):
        Voc(root, split="train", sbd=True)
    with pytest.raises(DataError, match=r"train\.txt: cannot read the list .*; set root"):
        Voc(tmp_path, split="train")
    with pytest.raises(DataError, match="voc test: labels are not published"):
        Voc(root, split="test")
    with pytest.raises(ConfigError, match="did you mean 'train"):
        Voc(root, split="training")  # type: ignore[arg-type]
    (root / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: names no image"):
        Voc(root, split="val")


def test_real_images(voc_sample: Path, tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).symlink_to(voc_sample / folder)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2011_000003\n2011_000006\n")
    splits = open_splits(f"voc={tmp_path}")
    assert list(splits) == ["val"]
    assert check_dataset(splits).ok
    first, second = (splits["val"][index] for index in range(2))
    assert (first.image.shape, second.image.shape) == ((338, 500, 3), (375, 500, 3))
    assert set(np.unique(first.labels["semantic"])) == {0, 5, 15, 255}  # bottle and person
    assert set(np.unique(second.labels["semantic"])) == {0, 9, 15, 18, 255}
    palette = Image.open(voc_sample / "SegmentationClass/2011_000003.png").getpalette()
    assert palette is not None
    for index, item in enumerate(Voc.classes):
        assert tuple(palette[3 * index : 3 * index + 3]) == item.color
