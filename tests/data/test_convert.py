from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.trees import half, write_image, write_mask
from rtseg.data.convert import Conversion, convert
from rtseg.data.dataset import Dataset
from rtseg.data.files import FileFaultError, LabelTable, Limits, read_sample
from rtseg.data.native import NativeFolder
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError, DataError
from rtseg.structures import ClassInfo, Sample, Segment

CLASSES = (ClassInfo("road", (1, 2, 3)), ClassInfo("a: 'b' \"c\" ${d} é", (9, 0, 255), thing=True))
FRAMES = ("aachen/1.png", "bonn/1.png", "bonn/2.jpg")


class Frames:
    """Images below a folder with masks of 0, 1 and 9 (ignored), as a reader of a layout has it."""

    classes = CLASSES
    kinds: tuple[str, ...] = ("semantic",)
    limits = Limits(min_size=4)
    tables: Mapping[str, LabelTable] = {"semantic": LabelTable({0: 1, 1: 0, 9: 255})}

    def __init__(self, root: Path, names: Sequence[str] = FRAMES) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Sample:
        return read_sample(self.files(index), self.tables)

    def files(self, index: int, /) -> tuple[Path, ...]:
        name = self.names[index]
        return self.root / "x" / name, self.root / "y" / f"{name}.png"

    def strays(self) -> tuple[Path, ...]:
        return ()


def frames(root: Path, names: Sequence[str] = FRAMES) -> Frames:
    for seed, name in enumerate(names):
        write_image(root / "x" / name, seed=seed)
        write_mask(root / "y" / f"{name}.png", half(seed % 2, 9))
    return Frames(root, names)


class Drawn:
    """Samples in memory."""

    def __init__(self, samples: Sequence[Sample], kinds: tuple[str, ...]) -> None:
        self.samples, self.kinds, self.classes = samples, kinds, CLASSES

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self.samples[index]


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_equal(found: Sample, wanted: Sample) -> None:
    assert np.array_equal(found.image, wanted.image)
    assert found.labels.keys() == wanted.labels.keys()
    for kind, labels in wanted.labels.items():
        assert found.labels[kind].dtype == labels.dtype
        assert np.array_equal(found.labels[kind], labels)
    assert found.segments == wanted.segments
    assert found.attributes == wanted.attributes


# ---------------------------------------------------------------- round trips
def test_scenes_come_back_with_all_labels_segments_and_attributes(tmp_path: Path) -> None:
    scenes = {s: Synthetic(split=s, size=(48, 64), length=3) for s in ("val", "train")}
    report = convert(scenes, tmp_path / "out", workers=2)
    assert report == Conversion({"val": 3, "train": 3}, copied=0, linked=0, encoded=6)
    for split, dataset in scenes.items():
        native = NativeFolder(tmp_path / "out", split=split)
        assert native.classes == dataset.classes
        assert native.kinds == dataset.kinds
        assert len(native) == 3
        for index in range(3):
            assert_equal(native[index], dataset[index])
            assert Path(native[index].path).name == f"{index:06d}.png"


def test_frames_of_camvid_come_back_and_their_files_are_the_same(
    camvid_root: Path, tmp_path: Path
) -> None:
    from rtseg.data.camvid import CamVid

    camvid = {split: CamVid(camvid_root, split=split) for split in ("train", "test")}
    report = convert(camvid, tmp_path / "out")
    assert (report.images, report.copied) == ({"train": 4, "test": 2}, 6)
    for split, dataset in camvid.items():
        native = NativeFolder(tmp_path / "out", split=split)
        assert native.classes == dataset.classes
        wanted = {Path(dataset.files(i)[0]).name: dataset[i] for i in range(len(dataset))}
        assert len(native) == len(wanted)
        for sample in (native[i] for i in range(len(native))):
            original = wanted[Path(sample.path).name]
            assert_equal(sample, original)
            assert Path(sample.path).read_bytes() == Path(original.path).read_bytes()


def test_labels_become_class_ids_and_names_and_limits_are_kept(tmp_path: Path) -> None:
    convert({"day 1": frames(tmp_path / "in")}, tmp_path / "out")
    mask = Image.open(tmp_path / "out" / "masks" / "day 1" / "2.png")
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), half(1, 255))
    palette = mask.getpalette()
    assert palette is not None
    assert palette[:6] == [1, 2, 3, 9, 0, 255]
    native = NativeFolder(tmp_path / "out", split="day 1")
    assert native.classes == CLASSES
    assert native.limits == Limits(min_size=4)


def test_binary_labels_are_0_1_and_255_and_need_no_classes(tmp_path: Path) -> None:
    mask = half(0, 1)
    mask[0] = 255
    sample = Sample(
        np.zeros((*mask.shape, 3), np.uint8), {"drivable": mask, "lane": 1 - half(0, 1)}
    )
    data = Drawn([sample], ("drivable", "lane"))
    data.classes = ()
    convert({"val": data}, tmp_path / "out")
    written = Image.open(tmp_path / "out/masks/drivable/val/000000.png")
    assert np.array_equal(np.asarray(written), mask)
    native = NativeFolder(tmp_path / "out", split="val")
    assert native.classes == ()
    assert_equal(native[0], sample)


def test_segments_without_a_pixel_are_left_out(tmp_path: Path) -> None:
    ids = half(0, 1).astype(np.int32) * 70_000
    segments = (Segment(3, 0), Segment(70_000, 1, crowd=True))
    sample = Sample(np.zeros((*ids.shape, 3), np.uint8), {"panoptic": ids}, segments)
    convert({"val": Drawn([sample], ("panoptic",))}, tmp_path / "out")
    assert entries(tmp_path / "out/masks") == ["val.json", "val/000000.png"]
    native = NativeFolder(tmp_path / "out", split="val")
    assert_equal(native[0], replace(sample, segments=segments[1:]))


# ---------------------------------------------------------------- names and image files
def test_equal_names_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    convert({"val": frames(tmp_path / "in")}, tmp_path / "out")
    assert entries(tmp_path / "out") == [
        "data.yaml",
        *(f"images/val/{name}" for name in ("2.jpg", "aachen_1.png", "bonn_1.png")),
        *(f"masks/val/{name}.png" for name in ("2", "aachen_1", "bonn_1")),
    ]
    native = NativeFolder(tmp_path / "out", split="val")
    found = [np.unique(native[i].labels["semantic"]).tolist() for i in range(3)]
    assert found == [[1, 255], [1, 255], [0, 255]]  # in the order 2, aachen_1, bonn_1


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a/1.png", "a/1.jpg", "b/1.png"], ["a_1.png", "a_1_2.jpg", "b_1.png"]),
        (["a/1.png", "b/1.png", "c/a_1.png"], ["a_1.png", "b_1.png", "c_a_1.png"]),
        (["a/F.png", "b/f.png"], ["a_F.png", "b_f.png"]),  # some disks know no case
        (["a/F.png", "A/f.png"], ["a_F.png", "A_f_2.png"]),
        (["a/1.png", "a/1.2.png"], ["1.2.png", "1.png"]),
        (["a/.1.png", "a/2.png"], ["1.png", "2.png"]),  # names with a dot in front are hidden
    ],
)
def test_no_two_samples_get_the_same_name(
    tmp_path: Path, names: list[str], wanted: list[str]
) -> None:
    convert({"val": frames(tmp_path / "in", names)}, tmp_path / "out")
    assert entries(tmp_path / "out/images/val") == sorted(wanted)
    assert len(NativeFolder(tmp_path / "out", split="val")) == len(names)


def test_images_are_linked_to_the_real_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = frames(Path("in"))
    report = convert({"val": data}, tmp_path / "out", images="link")
    assert (report.linked, report.copied) == (3, 0)
    link = tmp_path / "out/images/val/2.jpg"
    assert link.is_symlink()
    assert link.readlink() == (tmp_path / "in/x/bonn/2.jpg").resolve()
    assert not (tmp_path / "out/masks/val/2.png").is_symlink()


def test_a_turned_image_is_saved_with_the_pixels_that_its_mask_fits(tmp_path: Path) -> None:
    data = frames(tmp_path / "in", ["a/1.jpg", "a/2.jpg", "a/3.jp2"])
    picture = Image.open(tmp_path / "in/x/a/1.jpg")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "in/x/a/1.jpg", exif=exif)
    shutil.copyfile(tmp_path / "in/x/a/2.jpg", tmp_path / "in/x/a/3.jp2")
    report = convert({"val": data}, tmp_path / "out", images="link")
    assert (report.encoded, report.linked) == (2, 1)
    assert entries(tmp_path / "out/images/val") == ["1.png", "2.jpg", "3.png"]
    native = NativeFolder(tmp_path / "out", split="val")
    for index in range(3):
        assert_equal(native[index], data[index])


def test_progress_counts_samples_of_all_splits(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    data = frames(tmp_path / "in")
    convert({"a": data, "b": data}, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_samples_are_written_in_order_and_few_are_held_in_memory(tmp_path: Path) -> None:
    read: list[int] = []

    class Counted(Drawn):
        def __getitem__(self, index: int, /) -> Sample:
            read.append(index)
            return super().__getitem__(index)

    def stop_a_while(done: int, _total: int) -> None:
        if done == 1:
            time.sleep(0.2)  # the thread goes on as far as it may
            assert len(read) <= 4

    image, labels = np.zeros((6, 8, 3), np.uint8), {"lane": half(0, 1)}
    samples = [Sample(image, labels, attributes={"number": str(index)}) for index in range(12)]
    data = Counted(samples, ("lane",))
    convert({"val": data}, tmp_path / "out", workers=1, progress=stop_a_while)
    assert read == list(range(12))
    facts = json.loads((tmp_path / "out/attributes/val.json").read_text(encoding="utf-8"))
    assert list(facts.items()) == [(f"{i:06d}", {"number": str(i)}) for i in range(12)]


# ---------------------------------------------------------------- what goes wrong
def test_a_broken_file_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    data = frames(tmp_path / "in", [f"a/{index}.png" for index in range(20)])
    convert({"val": data}, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in entries(tmp_path / "out")}
    (tmp_path / "in/x/a/11.png").write_bytes(b"no image")
    with pytest.raises(FileFaultError, match=r"11\.png: is truncated or no image"):
        convert({"val": data}, tmp_path / "out", overwrite=True)
    with pytest.raises(FileFaultError):
        convert({"val": data}, tmp_path / "new/deeper")
    after = {name: (tmp_path / "out" / name).read_bytes() for name in entries(tmp_path / "out")}
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "new", "out"]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frames(tmp_path / "in")

    def full(_source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"out: cannot be written \(no space left on device\)"):
        convert({"val": data}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_old_results_are_replaced_only_on_request_and_only_if_nothing_else_is_there(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    convert({"old": frames(tmp_path / "in")}, out)
    new = {"new": frames(tmp_path / "in2", ["a/7.png"])}
    with pytest.raises(DataError, match=r"exists already; replace it with --overwrite"):
        convert(new, out)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"is not replaced, because it holds notes\.txt"):
        convert(new, out, overwrite=True)
    (out / "notes.txt").unlink()
    convert(new, out, overwrite=True)
    assert entries(out) == ["data.yaml", "images/new/7.png", "masks/new/7.png"]


def test_a_folder_is_not_replaced_by_what_is_read_from_it(tmp_path: Path) -> None:
    convert({"val": frames(tmp_path / "in")}, tmp_path / "a")
    native = NativeFolder(tmp_path / "a", split="val")
    with pytest.raises(DataError, match="holds the data that are to be converted"):
        convert({"val": native}, tmp_path / "a", overwrite=True)
    convert({"val": native}, tmp_path / "b", images="link")
    linked = NativeFolder(tmp_path / "b", split="val")
    with pytest.raises(DataError, match="holds the data that are to be converted"):
        convert({"val": linked}, tmp_path / "a", overwrite=True)
    assert len(NativeFolder(tmp_path / "b", split="val")[0].labels) == 1


def test_labels_without_a_place_and_splits_that_differ_are_refused(tmp_path: Path) -> None:
    label: Any = {"class": np.array(0)}
    image = np.zeros((6, 8, 3), np.uint8)
    photos: Dataset = Drawn([Sample(image, label)], ("class",))
    with pytest.raises(ConfigError, match="kind 'class' have no place in the native layout"):
        convert({"train": photos}, tmp_path / "out")
    one = frames(tmp_path / "in")
    other = frames(tmp_path / "in2")
    other.classes = CLASSES[:1]
    with pytest.raises(ConfigError, match="val: classes of val differ from those of train"):
        convert({"train": one, "val": other}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
