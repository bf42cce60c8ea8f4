"""SBD as it is downloaded, and the training set that it makes together with VOC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from data.test_voc import TRAIN, VAL, stems
from data.test_voc import write_tree as write_voc
from data.trees import half, write_image
from rtseg.data.check import check_dataset
from rtseg.data.sbd import read_class_mat, sbd_folder, sbd_stems
from rtseg.data.voc import Voc
from rtseg.errors import ConfigError, DataError

# Of VOC's images, one of train and one of val are in each list; two are in SBD alone.
LISTS = {"train": (TRAIN[0], VAL[0], "2010_8"), "val": (TRAIN[1], VAL[1], "2008_9")}
ALONE = ("2008_9", "2010_8")


def write_mat(path: Path, values: Any) -> None:
    """Write a mask with the fields of the published files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    present = np.unique(values)[:, None]
    fields = {"Boundaries": np.zeros((20, 1)), "Segmentation": values, "CategoriesPresent": present}
    savemat(path, {"GTcls": fields}, do_compression=True)


def write_sbd(root: Path) -> Path:
    folder = root / "benchmark_RELEASE" / "dataset"
    for split, names in LISTS.items():
        for number, stem in enumerate(names):
            write_image(folder / "img" / f"{stem}.jpg", seed=100 + number + len(split))
            write_mat(folder / "cls" / f"{stem}.mat", half(0, 20))
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def test_training_is_both_sets_but_for_what_is_scored(tmp_path: Path) -> None:
    root, sbd = write_voc(tmp_path / "voc", extended=False), write_sbd(tmp_path / "sbd")
    train = Voc(root, split="train", sbd=True, sbd_root=sbd)
    assert stems(train) == sorted({*TRAIN, *LISTS["train"], *LISTS["val"]} - {*VAL})
    assert stems(train) == sorted([*TRAIN, *ALONE])
    folder = sbd / "benchmark_RELEASE/dataset"
    for index, stem in enumerate(stems(train)):
        expected = (root / f"JPEGImages/{stem}.jpg", root / f"SegmentationClass/{stem}.png")
        if stem in ALONE:
            expected = (folder / f"img/{stem}.jpg", folder / f"cls/{stem}.mat")
        assert train.files(index) == expected
    assert stems(Voc(root, split="val", sbd=True, sbd_root=sbd)) == list(VAL)
    both = Voc(root, split="trainval", sbd=True, sbd_root=sbd)
    assert stems(both) == [*stems(train), *VAL]
    assert check_dataset(both).faults == ()
    labels = train[stems(train).index("2010_8")].labels["semantic"]
    assert labels.dtype == np.uint8
    assert labels.tolist() == half(0, 20).tolist()


def test_both_ways_to_the_extension_give_the_same_images(tmp_path: Path) -> None:
    root, sbd = write_voc(tmp_path / "voc", extended=False), write_sbd(tmp_path / "sbd")
    for stem in (*TRAIN, *VAL, *ALONE):
        write_image(root / "SegmentationClassAug" / f"{stem}.png")
    converted = Voc(root, split="train", sbd=True)
    assert stems(converted) == stems(Voc(root, split="train", sbd=True, sbd_root=sbd))


@pytest.mark.parametrize("shared_train", [1134, 1000])
def test_the_published_counts_give_10582_images(tmp_path: Path, shared_train: int) -> None:
    """VOC has 1,464 and 1,449, SBD 11,355, both together 12,031, so that they share 2,237.

    How these are divided among VOC's train and val changes nothing.
    """
    train = [f"t{number}" for number in range(1464)]
    val = [f"v{number}" for number in range(1449)]
    shared = [*train[:shared_train], *val[: 2237 - shared_train]]
    names = [*shared, *(f"s{number}" for number in range(11355 - len(shared)))]
    assert len({*train, *val, *names}) == 12031
    lists, folder = tmp_path / "voc/ImageSets/Segmentation", tmp_path / "sbd/dataset"
    for place in (lists, folder / "cls"):
        place.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(train))
    (lists / "val.txt").write_text("\n".join(val))
    (folder / "train.txt").write_text("\n".join(names[:8498]))
    (folder / "val.txt").write_text("\n".join(names[8498:]))
    extended = Voc(tmp_path / "voc", split="train", sbd=True, sbd_root=tmp_path / "sbd")
    assert len(extended) == 10582


def test_any_folder_of_the_download_is_its_root(tmp_path: Path) -> None:
    inner = write_sbd(tmp_path) / "benchmark_RELEASE" / "dataset"
    for root in (tmp_path, inner.parent, inner):
        assert sbd_folder(root) == inner
    with pytest.raises(DataError, match=r"holds no folder cls; set sbd_root to the folder"):
        sbd_folder(inner / "img")
    assert sbd_stems(inner) == {*LISTS["train"], *LISTS["val"]}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root, sbd = write_voc(tmp_path / "voc", extended=False), write_sbd(tmp_path / "sbd")
    with pytest.raises(ConfigError, match="sbd_root is given, but sbd is not"):
        Voc(root, split="train", sbd_root=sbd)
    folder = sbd / "benchmark_RELEASE/dataset"
    (folder / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: names no image"):
        Voc(root, split="train", sbd=True, sbd_root=sbd)
    (folder / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt: cannot read the list of images \(No such"):
        Voc(root, split="train", sbd=True, sbd_root=sbd)


def test_check_names_broken_matlab_files(tmp_path: Path) -> None:
    root, sbd = write_voc(tmp_path / "voc", extended=False), write_sbd(tmp_path / "sbd")
    folder = sbd / "benchmark_RELEASE/dataset"
    write_mat(folder / "cls/2008_9.mat", half(1, 21))
    mat = folder / "cls/2010_8.mat"
    mat.write_bytes(mat.read_bytes()[:150])
    dataset = Voc(root, split="train", sbd=True, sbd_root=sbd)
    faults = {Path(item.file).name: item for item in check_dataset(dataset).faults}
    assert {name: item.kind for name, item in faults.items()} == {
        "2008_9.mat": "value_outside_map", "2010_8.mat": "unreadable",
    }  # fmt: skip
    assert "21" in faults["2008_9.mat"].message
    mat.unlink()
    write_mat(folder / "cls/2008_9.mat", half(1, 2)[:5])
    kinds = [item.kind for item in check_dataset(dataset).faults]
    assert kinds == ["size_mismatch", "missing_mask"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTinst": {"Segmentation": half(0, 1)}}, r"holds no GTcls\.Segmentation"),
        ({"GTcls": half(0, 1)}, r"holds no GTcls\.Segmentation"),
        ({"GTcls": {"Segmentation": half(0, 1).astype(float)}}, "with whole numbers"),
        ({"GTcls": {"Segmentation": half(0, 1).astype(np.int16) - 1}}, "no class ids"),
        ({"GTcls": {"Segmentation": half(0, 1).astype(np.int32) << 17}}, "no class ids"),
    ],
)
def test_other_matlab_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=rf"a\.mat: .*{message}"):
        read_class_mat(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(b"")
    with pytest.raises(DataError, match="truncated or no MATLAB file"):
        read_class_mat(tmp_path / "a.mat")
