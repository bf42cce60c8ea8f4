from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtseg.data import DATASETS
from rtseg.data.check import check_dataset
from rtseg.data.cityscapes import Cityscapes
from rtseg.data.dataset import DiskDataset
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError
from rtseg.structures import InstanceResult, Segment
from rtseg.tasks.instance import InstanceTask

# Raw ids and the train ids that the label definition gives them, typed in by hand.
RAW = [[0, 7, 8, 11, 12, 13, 17], [19, 20, 21, 22, 23, 24, 25], [26, 27, 28, 31, 32, 33, 9]]
TRAIN = [[255, 0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18, 255]]
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip


def write_frame(root: Path, split: str, city: str, number: int) -> None:
    frame = f"{city}_000000_{number:06d}"
    image = root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (3, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    write_mask(root, split, frame, "labelIds", RAW)
    write_mask(root, split, frame, "labelTrainIds", TRAIN)


def write_mask(root: Path, split: str, frame: str, kind: str, values: list[list[int]]) -> Path:
    path = root / "gtFine" / split / frame.split("_")[0] / f"{frame}_gtFine_{kind}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)
    return path


def link_sample(sample: Path, root: Path) -> None:
    """Give the sample the folders of split and city, which it lacks."""
    for kind in ("leftImg8bit", "gtFine"):
        folder = root / kind / "val" / "frankfurt"
        folder.mkdir(parents=True)
        for file in (sample / kind).iterdir():
            (folder / file.name).symlink_to(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, city, number in (
        ("train", "ulm", 2), ("train", "aachen", 9), ("train", "aachen", 1), ("val", "lindau", 5),
    ):  # fmt: skip
        write_frame(tmp_path, split, city, number)
    return tmp_path


def test_both_kinds_of_mask_give_the_same_labels(root: Path) -> None:
    for masks in ("labelIds", "labelTrainIds"):
        labels = Cityscapes(root, split="val", masks=masks)[0].labels["semantic"]
        assert labels.tolist() == TRAIN, masks
        assert labels.dtype == np.uint8


def test_train_ids_have_the_published_names() -> None:
    assert tuple(info.name for info in Cityscapes.classes) == NAMES


def test_every_unscored_id_is_ignored(root: Path) -> None:
    frame = "lindau_000000_000005"
    scored = {value for row in RAW for value in row} - {0, 9}
    others = [value for value in range(34) if value not in scored]
    assert len(others) == 15
    write_mask(root, "val", frame, "labelIds", [(others * 2)[:21][i : i + 7] for i in (0, 7, 14)])
    labels = Cityscapes(root, split="val")[0].labels["semantic"]
    assert set(labels.ravel().tolist()) == {255}


def test_frames_are_sorted_by_city_and_trainval_is_train_then_val(root: Path) -> None:
    dataset = Cityscapes(root, split="trainval")
    stems = [dataset.files(index)[0].stem for index in range(len(dataset))]
    frames = ["aachen_000000_000001", "aachen_000000_000009", "ulm_000000_000002",
              "lindau_000000_000005"]  # fmt: skip
    assert stems == [f"{frame}_leftImg8bit" for frame in frames]
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["cityscapes"] is Cityscapes


def test_value_that_is_no_label_id_is_refused_with_the_file(root: Path) -> None:
    write_mask(root, "val", "lindau_000000_000005", "labelIds", [[34] * 7] * 3)
    with pytest.raises(DataError, match=r"lindau_000000_000005_gtFine_labelIds\.png.* 34"):
        Cityscapes(root, split="val")[0]


def test_check_is_clean_and_names_missing_and_stray_masks(root: Path) -> None:
    # The two small frames of a split are different noise: no leakage, no fault.
    assert check_dataset(Cityscapes(root, split="train")).faults == ()
    write_mask(root, "train", "ulm_000000_000077", "labelIds", RAW)
    write_mask(root, "train", "bonn_000000_000001", "labelIds", RAW)  # a city without images
    write_mask(root, "train", "ulm_000000_000078", "instanceIds", RAW)  # of no interest
    (root / "gtFine/train/aachen/aachen_000000_000009_gtFine_labelIds.png").unlink()
    faults = check_dataset(Cityscapes(root, split="train")).faults
    assert sorted((fault.kind, Path(fault.file).name) for fault in faults) == [
        ("missing_image", "bonn_000000_000001_gtFine_labelIds.png"),
        ("missing_image", "ulm_000000_000077_gtFine_labelIds.png"),
        ("missing_mask", "aachen_000000_000009_gtFine_labelIds.png"),
    ]


def test_wrong_root_split_and_masks_give_errors_that_say_what_to_do(root: Path) -> None:
    with pytest.raises(DataError, match=r"leftImg8bit.*holds no .*set root"):
        Cityscapes(root / "gtFine", split="train")
    with pytest.raises(ConfigError, match="'training' is unknown"):
        Cityscapes(root, split="training")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'labelIds'"):
        Cityscapes(root, split="val", masks="labelids")  # type: ignore[arg-type]


def test_hidden_test_split_is_refused_and_left_out_of_the_splits_on_disk(root: Path) -> None:
    write_frame(root, "test", "berlin", 1)
    with pytest.raises(DataError, match="cityscapes test: labels are not published"):
        Cityscapes(root, split="test")
    assert list(open_splits(f"cityscapes={root}")) == ["train", "val"]


def test_images_without_labels_are_found_as_a_part(root: Path) -> None:
    shutil.rmtree(root / "gtFine")
    (found,) = find_data(root)
    assert (found.spec, found.images) == (f"cityscapes={root}", {"train": 3, "val": 1})
    assert found.complete == {"train": 0, "val": 0}


def test_coarse_labels_and_their_extra_frames_are_read_on_request(root: Path) -> None:
    write_frame(root, "train_extra", "bonn", 3)
    for split, city, number in (("train_extra", "bonn", 3), ("train", "ulm", 2)):
        fine = root / f"gtFine/{split}/{city}/{city}_000000_{number:06d}_gtFine_labelIds.png"
        coarse = Path(str(fine).replace("gtFine", "gtCoarse"))
        coarse.parent.mkdir(parents=True)
        Image.fromarray(np.full((3, 7), 26, np.uint8)).save(coarse)
    for split, index, city in (("train_extra", 0, "bonn"), ("train", 2, "ulm")):
        dataset = Cityscapes(root, split=split, annotations="coarse")  # type: ignore[arg-type]
        assert dataset.files(index)[1].parent == root / "gtCoarse" / split / city
        assert dataset[index].labels["semantic"].tolist() == [[13] * 7] * 3
    assert len(Cityscapes(root, split="trainval", annotations="coarse")) == 4
    with pytest.raises(ConfigError, match="'train_extra' has coarse labels only; set annotations"):
        Cityscapes(root, split="train_extra")
    with pytest.raises(ConfigError, match=r"annotations 'gtFine' is unknown; did you mean 'fine'"):
        Cityscapes(root, split="train", annotations="gtFine")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cityscapes test: labels are not published"):
        Cityscapes(root, split="test", annotations="coarse")


def test_real_frame_reads_alike_from_both_masks(cityscapes_sample: Path, tmp_path: Path) -> None:
    link_sample(cityscapes_sample, tmp_path)
    ids = Cityscapes(tmp_path, split="val")
    train_ids = Cityscapes(tmp_path, split="val", masks="labelTrainIds")
    assert len(ids) == 1
    sample = ids[0]
    assert sample.image.shape == (128, 256, 3)
    labels = sample.labels["semantic"]
    # The sample's two masks were shrunk one by one, so that some pixels on edges differ.
    assert (labels == train_ids[0].labels["semantic"]).mean() > 0.995
    # The car drives on a road: the lower half is mostly class 0, and own bonnet is ignored.
    assert (labels[64:110] == 0).mean() > 0.4
    assert 0.02 < (labels == 255).mean() < 0.4


# ---------------------------------------------------------------- panoptic labels
def write_ids(root: Path, split: str, frame: str, values: object) -> None:
    path = root / "gtFine" / split / frame.split("_")[0] / f"{frame}_gtFine_instanceIds.png"
    Image.fromarray(np.asarray(values, np.uint16)).save(path)


def test_instance_ids_become_segments_and_groups_crowds(root: Path) -> None:
    # road 7, sky 23, cars 26000 and 26012, a group of cars 26, a person 24001, ego vehicle 1,
    # a caravan 29003, which is not scored, bicycles 33000, and 1000, which counts ego vehicles.
    values = [[7, 7, 23, 26000, 26012, 26, 26], [24001, 0, 1, 29003, 1000, 33000, 7], [255] * 7]
    write_ids(root, "val", "lindau_000000_000005", values)
    dataset = Cityscapes(root, split="val", panoptic=True)
    assert dataset.kinds == ("semantic", "panoptic")
    sample = dataset[0]
    ids = sample.labels["panoptic"]
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [7, 7, 23, 26000, 26012, 26, 26], [24001, 0, 0, 0, 0, 33000, 7], [0] * 7,
    ]  # fmt: skip
    assert sample.segments == (
        Segment(7, 0), Segment(23, 10), Segment(26, 13, crowd=True), Segment(24001, 11),
        Segment(26000, 13), Segment(26012, 13), Segment(33000, 18),
    )  # fmt: skip
    assert sample.labels["semantic"].tolist() == TRAIN


def test_panoptic_labels_go_with_either_semantic_mask(root: Path) -> None:
    write_ids(root, "val", "lindau_000000_000005", [[7] * 7] * 3)
    dataset = Cityscapes(root, split="val", masks="labelTrainIds", panoptic=True)
    assert dataset[0].labels["semantic"].tolist() == TRAIN
    assert dataset[0].segments == (Segment(7, 0),)
    assert Cityscapes(root, split="val")[0].segments == ()


@pytest.mark.parametrize("wrong", [34, 254, 34000, 65535])
def test_instance_id_of_no_label_is_refused_with_the_file(root: Path, wrong: int) -> None:
    write_ids(root, "val", "lindau_000000_000005", [[7] * 6 + [wrong]] * 3)
    with pytest.raises(DataError, match=rf"000005_gtFine_instanceIds\.png: .* {wrong}, which"):
        Cityscapes(root, split="val", panoptic=True)[0]


def test_check_reads_panoptic_masks_too(root: Path) -> None:
    for frame in ("ulm_000000_000002", "aachen_000000_000001"):
        write_ids(root, "train", frame, [[26001] * 7] * 3)
    write_ids(root, "train", "aachen_000000_000009", [[0] * 7] * 3)
    write_ids(root, "train", "aachen_000000_000010", [[7] * 7] * 3)
    report = check_dataset(Cityscapes(root, split="train", panoptic=True))
    assert [(fault.kind, Path(fault.file).name) for fault in report.faults] == [
        ("all_ignore", "aachen_000000_000009_gtFine_instanceIds.png"),
        ("missing_image", "aachen_000000_000010_gtFine_instanceIds.png"),
    ]
    assert list(report.splits["all"].statistics) == ["semantic"]


def test_real_frame_has_cars_and_people_as_segments(
    cityscapes_sample: Path, tmp_path: Path
) -> None:
    link_sample(cityscapes_sample, tmp_path)
    sample = Cityscapes(tmp_path, split="val", panoptic=True)[0]
    things = [segment for segment in sample.segments if Cityscapes.classes[segment.class_id].thing]
    assert [segment.id for segment in things] == [24000, 24001, 24002, 24003, 26000, 26001, 26002]
    assert {segment.class_id for segment in things} == {11, 13}
    stuff = {segment.class_id for segment in sample.segments} - {11, 13}
    assert stuff == {0, 1, 2, 4, 5, 7, 8, 10}
    ids, semantic = sample.labels["panoptic"], sample.labels["semantic"]
    for segment in sample.segments:
        # The masks of the sample were shrunk one by one, so that edges differ.
        inside = semantic[ids == segment.id]
        assert (inside == segment.class_id).mean() > 0.75, segment


def test_objects_of_a_real_frame_serve_the_instance_task(
    cityscapes_sample: Path, tmp_path: Path
) -> None:
    link_sample(cityscapes_sample, tmp_path)
    sample = Cityscapes(tmp_path, split="val", panoptic=True)[0]
    task = InstanceTask(Cityscapes.classes)
    target = task.target([sample])
    (labels,), (masks,) = target.labels, target.masks
    assert labels.tolist() == [11] * 4 + [13] * 3
    assert not target.crowd[0].any()
    assert [int(mask.sum()) for mask in masks] == [
        int((sample.labels["panoptic"] == segment).sum())
        for segment in (24000, 24001, 24002, 24003, 26000, 26001, 26002)
    ]
    names = tuple(info.name for info in Cityscapes.classes)
    palette = tuple(info.color for info in Cityscapes.classes)
    found = InstanceResult(
        masks.numpy(), labels.numpy(), np.ones(len(labels), np.float32), names, palette
    )
    metric = task.new_metric()
    metric.update(found, target)
    assert metric.compute()["ap"] == 1.0
