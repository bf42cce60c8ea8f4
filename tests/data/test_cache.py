"""Decoded copies: equal to the original, refused when it has changed, whole or not there."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.trees import write_image, write_mask
from rtseg.data import DATASETS, cache
from rtseg.data.cache import INDEX, SAMPLES, Cached, write_cache
from rtseg.data.dataset import Attributed, Dataset, DiskDataset
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic
from rtseg.data.weights import class_statistics
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Sample, Segment

YAML = """
splits: [train]
classes: {0: {name: road, color: [1, 2, 3]}, 1: {name: car, color: [4, 5, 6], thing: true}}
label_map: {0: 0, 7: 1, 9: ignore}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A native folder with three frames of two sizes."""
    root = tmp_path / "own"
    for index, size in enumerate([(6, 8), (6, 8), (5, 9)]):
        write_image(root / "images" / "train" / f"{index}.png", seed=index, size=size)
        mask = np.random.default_rng(index).choice([0, 7, 9], size).astype(np.uint8)
        write_mask(root / "masks" / "train" / f"{index}.png", mask)
    (root / "data.yaml").write_text(YAML)
    return root


def source_of(folder: Path, **options: Any) -> dict[str, Any]:
    return {"name": "native", "root": str(folder), "split": "train", **options}


def cached(folder: Path, place: Path, **options: Any) -> Cached:
    """Write a copy of a native folder, and open it."""
    dataset = NativeFolder(folder, split="train")
    write_cache(dataset, place / "train", source=source_of(folder), **options)
    return Cached(place, split="train")


def assert_equal(copy: Dataset, original: Dataset) -> None:
    assert len(copy) == len(original)
    assert copy.classes == original.classes
    assert copy.kinds == original.kinds
    for index in range(len(original)):
        one, two = copy[index], original[index]
        assert (one.path, one.segments) == (two.path, two.segments)
        assert dict(one.attributes) == dict(two.attributes)
        assert list(one.labels) == list(two.labels)
        for array, other in (
            (one.image, two.image), *((one.labels[kind], two.labels[kind]) for kind in two.labels)
        ):  # fmt: skip
            assert (array.dtype, array.shape) == (other.dtype, other.shape)
            assert array.tobytes() == other.tobytes()


class Panoptic:
    """Two drawn samples with labels of every kind and type, segments and attributes."""

    classes = (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (1, 1, 1), thing=True))
    kinds = ("semantic", "panoptic", "class")

    def __init__(self, *, shift: int = 0, length: int = 2) -> None:
        self.shift, self.length = shift, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        rng = np.random.default_rng(index)
        size = (7 + index, 5)
        labels = {
            "semantic": rng.integers(0, 2, size, dtype=np.uint8),
            "panoptic": rng.integers(0, 1 << 20, size, dtype=np.int32) + self.shift,
            "class": np.array(index, np.int64),
        }
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        segments = (Segment(3, 1, crowd=True), Segment(70_000, 0))
        return Sample(image, labels, segments, f"drawn/{index}", {"weather": f"fög {index}"})


# ---------------------------------------------------------------- equal
def test_a_copy_equals_its_original(folder: Path, tmp_path: Path) -> None:
    assert_equal(cached(folder, tmp_path / "copy"), NativeFolder(folder, split="train"))


def test_segments_attributes_and_labels_of_all_types_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "panoptic", Panoptic)
    write_cache(Panoptic(), tmp_path / "all", source={"name": "panoptic"})
    copy = Cached(tmp_path, split="all")
    assert_equal(copy, Panoptic())
    assert isinstance(copy, Attributed)
    assert copy.attributes(1) == {"weather": "fög 1"}
    assert not isinstance(copy, DiskDataset)  # there is no file per sample to look at


def test_scenes_that_are_drawn_can_be_kept(tmp_path: Path) -> None:
    options = {"split": "val", "size": [40, 64], "length": 3, "seed": 5}
    scenes = Synthetic(split="val", size=(40, 64), length=3, seed=5)
    write_cache(scenes, tmp_path / "val", source={"name": "synthetic", **options})
    assert_equal(Cached(tmp_path, split="val"), scenes)


def test_samples_can_be_written_to_and_do_not_share_memory(folder: Path, tmp_path: Path) -> None:
    copy = cached(folder, tmp_path / "copy")
    first = copy[0]
    first.image[:] = 0
    first.labels["semantic"][:] = 3
    assert_equal(copy, NativeFolder(folder, split="train"))


def test_a_copy_travels_to_reading_processes_without_its_pixels(
    folder: Path, tmp_path: Path
) -> None:
    copy = cached(folder, tmp_path / "copy")
    assert_equal(pickle.loads(pickle.dumps(copy)), NativeFolder(folder, split="train"))


def test_classes_are_counted_on_a_copy_as_on_the_original(folder: Path, tmp_path: Path) -> None:
    counted = class_statistics(cached(folder, tmp_path / "copy"))
    assert counted == class_statistics(NativeFolder(folder, split="train"))


def test_the_summary_and_the_progress_say_what_was_written(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    place = tmp_path / "copy" / "train"
    summary = write_cache(
        NativeFolder(folder, split="train"), place, source=source_of(folder),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    size = sum(path.stat().st_size for path in place.iterdir())
    assert summary == cache.CacheSummary(place, 3, size)
    # 6 x 8 x 3 = 144 -> 192 and 48 -> 64, twice; 5 x 9 x 3 = 135 -> 192 and 45 -> 64
    assert (place / SAMPLES).stat().st_size == 3 * 256


def test_many_samples_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "panoptic", Panoptic)
    monkeypatch.setattr(cache, "_CHUNK", 3)
    write_cache(Panoptic(length=11), tmp_path / "s", source={"name": "panoptic", "length": 11})
    assert_equal(Cached(tmp_path, split="s"), Panoptic(length=11))


# ---------------------------------------------------------------- out of date
def stale(place: Path, says: str) -> None:
    with pytest.raises(DataError) as caught:
        Cached(place, split="train")
    assert says in str(caught.value)
    assert "rtseg data cache --overwrite" in str(caught.value)
    assert "verify: false" in str(caught.value)
    assert len(Cached(place, split="train", verify=False)) == 3


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("name", ["images/train/2.png", "masks/train/0.png"])
def test_a_file_that_has_changed_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    cached(folder, tmp_path / "copy")
    touch(folder / name)
    stale(tmp_path / "copy", f"{folder / name} has changed")


def test_a_file_of_another_size_is_named(folder: Path, tmp_path: Path) -> None:
    cached(folder, tmp_path / "copy")
    file = folder / "images" / "train" / "1.png"
    status = file.stat()
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    stale(tmp_path / "copy", "1.png has changed")


def test_samples_that_were_added_or_removed_are_noticed(folder: Path, tmp_path: Path) -> None:
    cached(folder, tmp_path / "copy")
    write_image(folder / "images" / "train" / "9.png")
    stale(tmp_path / "copy", "the original has 4 samples, the copy 3")
    (folder / "images" / "train" / "9.png").rename(folder / "images" / "train" / "00.png")
    (folder / "images" / "train" / "0.png").unlink()
    stale(tmp_path / "copy", "has changed")
    shutil.rmtree(folder / "images")
    stale(tmp_path / "copy", "the original cannot be read any more")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("9: ignore", "9: 1", "label values of the original have changed"),
        ("name: car", "name: lorry", "classes of the original have changed"),
        ("thing: true", "thing: false", "classes of the original have changed"),
        ("splits:", "min_size: 2\nsplits:", "label values of the original have changed"),
        ("splits: [train]", "splits: [val]", "the original cannot be read any more"),
    ],
)
def test_a_description_that_has_changed_is_noticed(
    folder: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    cached(folder, tmp_path / "copy")
    (folder / "data.yaml").write_text(YAML.replace(old, new))
    stale(tmp_path / "copy", says)


def test_another_set_of_label_kinds_is_noticed(folder: Path, tmp_path: Path) -> None:
    cached(folder, tmp_path / "copy")
    shutil.move(folder / "masks", folder / "old")
    for kind in ("semantic", "lane"):
        for index, size in enumerate([(6, 8), (6, 8), (5, 9)]):
            write_mask(folder / "masks" / kind / "train" / f"{index}.png", np.zeros(size, np.uint8))
    (folder / "data.yaml").write_text(YAML.replace("splits", "labels: [semantic, lane]\nsplits"))
    stale(tmp_path / "copy", "0.png has changed")


def test_a_drawn_set_is_compared_by_its_first_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "panoptic", Panoptic)
    write_cache(Panoptic(), tmp_path / "all", source={"name": "panoptic"})
    monkeypatch.setitem(DATASETS, "panoptic", lambda: Panoptic(shift=1))
    with pytest.raises(DataError, match="reads its first sample anew"):
        Cached(tmp_path, split="all")
    monkeypatch.delitem(DATASETS, "panoptic")
    with pytest.raises(DataError, match="cannot be read any more"):
        Cached(tmp_path, split="all")


def test_a_copy_made_with_a_relative_root_is_opened_from_anywhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    relative = NativeFolder("own", split="train")
    write_cache(relative, tmp_path / "copy" / "train", source=source_of(Path("own")))
    monkeypatch.chdir("/")
    copy = Cached(tmp_path / "copy", split="train")
    assert copy[0].path == "own/images/train/0.png"  # as it was read


# ---------------------------------------------------------------- whole or not there
def test_what_is_no_copy_or_a_damaged_one_is_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    with pytest.raises(DataError, match=r"holds no decoded copy.*folder above its splits"):
        Cached(place, split="train")
    copy = cached(folder, place)
    samples, index = place / "train" / SAMPLES, place / "train" / INDEX
    content, text = samples.read_bytes(), index.read_text()
    samples.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"samples\.bin: has another size than its index says"):
        Cached(place, split="train")
    with pytest.raises(DataError, match=r"samples\.bin: is shorter than its index says"):
        copy[2]
    samples.unlink()
    with pytest.raises(DataError, match=r"samples\.bin: cannot be read"):
        copy[0]
    samples.write_bytes(content)
    for broken, says in (
        (text[:-5], "is damaged"), (text.replace('"format": 1', '"format": 0'), "another version"),
        ("[]", "is damaged"),
    ):  # fmt: skip
        index.write_text(broken)
        with pytest.raises(DataError, match=says):
            Cached(place, split="train")


def test_an_old_copy_is_replaced_on_request_only(folder: Path, tmp_path: Path) -> None:
    cached(folder, tmp_path / "copy")
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        cached(folder, tmp_path / "copy")
    (folder / "images" / "train" / "2.png").unlink()
    (folder / "masks" / "train" / "2.png").unlink()
    assert len(cached(folder, tmp_path / "copy", overwrite=True)) == 2
    (tmp_path / "copy" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt"):
        cached(folder, tmp_path / "copy", overwrite=True)


@pytest.mark.parametrize("probes", [1, 16])
def test_an_unreadable_sample_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: int
) -> None:
    monkeypatch.setattr(cache, "_PROBES", probes)
    (folder / "images" / "train" / "1.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"1\.png"):
        cached(folder, tmp_path / "copy")
    assert not list(tmp_path.glob("copy/*"))


def test_an_interrupted_build_leaves_nothing_behind_and_keeps_the_old_copy(
    folder: Path, tmp_path: Path
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(folder, tmp_path / "copy", progress=interrupt)
    assert not list((tmp_path / "copy").iterdir())
    cached(folder, tmp_path / "copy")
    with pytest.raises(KeyboardInterrupt):
        cached(folder, tmp_path / "copy", progress=interrupt, overwrite=True)
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["train"]
    assert len(Cached(tmp_path / "copy", split="train")) == 3


def test_a_disk_that_is_too_small_is_noticed_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(3 * 256 - 1))
    with pytest.raises(DataError, match=r"needs about 0\.00 GiB, and 0\.00 GiB are free.*another"):
        cached(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(3 * 256))
    cached(folder, tmp_path / "copy")


def test_recipes_name_the_reader_and_a_copy_knows_where_it_is_from(
    folder: Path, tmp_path: Path
) -> None:
    cached(folder, tmp_path / "copy")
    assert DATASETS["cached"] is Cached
    index = json.loads((tmp_path / "copy" / "train" / INDEX).read_text())
    assert index["source"] == source_of(folder)
    with pytest.raises(DataError, match="no decoded copy"):
        Cached(tmp_path / "copy", split="val")
