"""What `find_data` says of data sets of which a part is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data.broken import DESCRIPTION, write_clean
from data.test_ade20k import write_tree as write_ade20k
from data.test_coco_panoptic import write_tree as write_coco
from data.test_voc import write_tree as write_voc
from data.trees import half, write_image, write_mask
from rtseg.data.spec import Found, Gap, find_data, parse_spec


def only(root: Path) -> Found:
    (item,) = find_data(root)
    return item


def write_cityscapes(root: Path, *, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for name in "abc":
            write_image(root / f"leftImg8bit/{split}/ulm/{name}_leftImg8bit.png")
            write_mask(root / f"gtFine/{split}/ulm/{name}_gtFine_labelIds.png", half(7, 26))
    return root


def test_a_whole_set_lacks_nothing(tmp_path: Path) -> None:
    item = only(write_cityscapes(tmp_path))
    assert item.images == item.complete == {"train": 3, "val": 3}
    assert item.missing == ()  # labels of test are not published, so it is not missed


def test_single_files_are_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    for name in "ac":
        (root / f"gtFine/val/ulm/{name}_gtFine_labelIds.png").unlink()
    item = only(root)
    assert (item.images, item.complete) == ({"train": 3, "val": 3}, {"train": 3, "val": 1})
    assert item.missing == tuple(
        Gap("val", "file", f"gtFine/val/ulm/{name}_gtFine_labelIds.png") for name in "ac"
    )


def test_an_absent_folder_is_named_once_with_its_files(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    shutil.rmtree(root / "gtFine/val")
    assert only(root).missing == (Gap("val", "folder", "gtFine/val", 3),)
    shutil.rmtree(root / "gtFine")
    assert only(root).missing == (
        Gap("train", "folder", "gtFine", 3),
        Gap("val", "folder", "gtFine", 3),
    )


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("train",))
    assert only(root).missing == (Gap("val", "split", "leftImg8bit/val", 0),)
    (root / "leftImg8bit/val").mkdir()
    (gap,) = only(root).missing
    assert (gap.kind, gap.path, gap.files) == ("split", "leftImg8bit/val", 0)
    assert gap.what.startswith("holds no ")


def test_labels_without_images_are_found_by_their_marks(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path / "city")
    shutil.rmtree(root / "leftImg8bit")
    write_image(tmp_path / "photos/train.png")
    item = only(tmp_path)
    assert (item.spec, item.images) == (f"cityscapes={root}", {})
    assert item.missing == (
        Gap("train", "split", "leftImg8bit", 0),
        Gap("val", "split", "leftImg8bit", 0),
    )


def test_lists_without_images_are_found_by_their_marks(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    shutil.rmtree(root / "JPEGImages")
    item = only(root)
    assert (item.images, item.complete) == ({"train": 2, "val": 2}, {"train": 0, "val": 0})
    assert item.missing[0] == Gap("train", "folder", "JPEGImages", 2)
    (root / "ImageSets/Segmentation/val.txt").unlink()
    assert Gap("val", "split", "ImageSets/Segmentation/val.txt", 0) in only(root).missing


def test_parts_of_ade20k_and_coco_are_found(tmp_path: Path) -> None:
    ade20k, coco = write_ade20k(tmp_path / "a"), write_coco(tmp_path / "c")
    shutil.rmtree(ade20k / "images/training")
    shutil.rmtree(coco / "train2017")
    shutil.rmtree(coco / "annotations/panoptic_val2017")
    first, second = find_data(tmp_path)
    assert (first.spec, first.images) == (f"ade20k={ade20k}", {"val": 1})
    assert first.missing == (Gap("train", "split", "images/training", 0),)
    assert (second.spec, second.images) == (f"coco_panoptic={coco}", {})
    assert second.missing == (
        Gap("train", "split", "train2017", 0),
        Gap("val", "split", "annotations/panoptic_val2017", 0),
    )


def test_a_picture_of_two_kinds_is_missed_once(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "annotations/panoptic_val2017/000000000009.png").unlink()
    gap = Gap("val", "file", "annotations/panoptic_val2017/000000000009.png")
    assert only(root).missing == (gap,)


def test_native_folders_lack_declared_splits_and_masks(tmp_path: Path) -> None:
    root = write_clean(tmp_path)
    (root / "data.yaml").write_text(DESCRIPTION.replace("[train, val]", "[train, val, test]"))
    (root / "masks/train/b.png").unlink()
    shutil.rmtree(root / "masks/val")
    item = only(root)
    assert (item.spec, item.complete) == (str(root), {"train": 2, "val": 0})
    assert item.missing == (
        Gap("test", "split", "images/test", 0),
        Gap("train", "file", "masks/train/b.png"),
        Gap("val", "folder", "masks/val", 2),
    )


def test_layouts_of_nobody_need_no_other_split(tmp_path: Path) -> None:
    write_image(tmp_path / "own/train/cat/a.png")
    item = only(tmp_path)
    assert (item.spec, item.images, item.missing) == (
        f"image_folder={tmp_path / 'own'}",
        {"train": 1},
        (),
    )


def test_from_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cityscapes(tmp_path / "city")
    write_clean(tmp_path / "voc")  # a native folder with the name of a reader
    monkeypatch.chdir(tmp_path)
    found = {item.spec: item for item in find_data(Path())}
    assert found.keys() == {"cityscapes=city", "native=voc"}
    assert all(item.missing == () for item in found.values())
    assert parse_spec("native=voc") == ("native", Path("voc"))
    monkeypatch.chdir(tmp_path / "city")
    item = only(Path())
    assert (item.spec, item.missing) == ("cityscapes=.", ())


def test_a_folder_that_may_not_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_cityscapes(tmp_path / "city")
    (tmp_path / "closed").mkdir()
    scan = __import__("os").scandir

    def scandir(path: object = ".") -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    assert [item.spec for item in find_data(tmp_path)] == [f"cityscapes={root}"]
