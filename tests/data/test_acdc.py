from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.trees import half, write_image, write_mask
from rtseg.data import DATASETS
from rtseg.data.acdc import Acdc
from rtseg.data.check import check_dataset
from rtseg.data.cityscapes import Cityscapes
from rtseg.data.dataset import Attributed, DiskDataset
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError

# Split, condition, sequence and frame; void is on the left, a car on the right.
FRAMES = (
    ("train", "night", "GOPR0351", 2),
    ("train", "fog", "GOPR0475", 7),
    ("train", "fog", "GOPR0475", 3),
    ("train", "fog", "GOPR0122", 9),
    ("train", "rain", "GOPR0400", 1),
    ("train", "snow", "GP010607", 1),
    ("val", "snow", "GP020607", 5),
    ("val", "fog", "GOPR0476", 4),
    ("val", "night", "GOPR0356", 6),
    ("val", "rain", "GP010571", 8),
)


def write_frame(root: Path, split: str, condition: str, sequence: str, number: int) -> str:
    frame = f"{sequence}_frame_{number:06d}"
    place = Path(condition) / split / sequence
    write_image(root / "rgb_anon" / place / f"{frame}_rgb_anon.png", seed=number)
    write_mask(root / "gt" / place / f"{frame}_gt_labelTrainIds.png", half(255, 13))
    write_mask(root / "gt" / place / f"{frame}_gt_labelIds.png", half(4, 26))
    return frame


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for frame in FRAMES:
        write_frame(tmp_path, *frame)
    ref = tmp_path / "rgb_anon/fog/train_ref/GOPR0475"  # the same places in good weather
    write_image(ref / "GOPR0475_frame_000003_rgb_ref_anon.png", seed=99)
    write_image(tmp_path / "rgb_anon/fog/train/GOPR0475/preview.png")
    return tmp_path


def test_frames_come_by_condition_sequence_and_name_with_their_condition(root: Path) -> None:
    dataset = Acdc(root, split="train")
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["acdc"] is Acdc
    stems = [dataset.files(index)[0].stem for index in range(len(dataset))]
    assert [stem.removesuffix("_rgb_anon") for stem in stems] == [
        "GOPR0122_frame_000009", "GOPR0475_frame_000003", "GOPR0475_frame_000007",
        "GOPR0351_frame_000002", "GOPR0400_frame_000001", "GP010607_frame_000001",
    ]  # fmt: skip
    assert isinstance(dataset, Attributed)
    conditions = [dataset[index].attributes for index in range(len(dataset))]
    assert conditions == [dataset.attributes(index) for index in range(len(dataset))]
    names = ["fog", "fog", "fog", "night", "rain", "snow"]
    assert conditions == [{"condition": name} for name in names]
    both = Acdc(root, split="trainval")
    assert [both[index].attributes["condition"] for index in range(6, len(both))] == [
        "fog", "night", "rain", "snow",
    ]  # fmt: skip


def test_both_kinds_of_mask_give_the_classes_of_cityscapes(root: Path) -> None:
    assert Acdc.classes == Cityscapes.classes
    for masks in ("labelTrainIds", "labelIds"):
        dataset = Acdc(root, split="val", masks=masks)
        assert dataset.files(0)[1].stem.endswith(masks)
        assert dataset.kinds == tuple(dataset[0].labels) == ("semantic",)
        assert dataset[0].labels["semantic"].tolist() == half(255, 13).tolist(), masks


@pytest.mark.parametrize("condition", ["fog", "night", "rain", "snow"])
def test_one_condition_can_be_chosen(root: Path, condition: str) -> None:
    dataset = Acdc(root, split="val", condition=condition)  # type: ignore[arg-type]
    assert len(dataset) == 1
    assert dataset[0].attributes == {"condition": condition}


def test_folders_named_after_the_archives_are_read(root: Path) -> None:
    for old, new in (("rgb_anon", "rgb_anon_trainvaltest"), ("gt", "gt_trainval")):
        (root / new).mkdir()
        (root / old).rename(root / new / old)
    sets = open_splits(f"acdc={root}")
    assert {name: len(dataset) for name, dataset in sets.items()} == {"train": 6, "val": 4}
    assert sets["val"][0].labels["semantic"].tolist() == half(255, 13).tolist()


def test_check_is_clean_and_names_missing_and_stray_masks(root: Path) -> None:
    report = check_dataset(open_splits(f"acdc={root}"))
    assert report.faults == ()
    counts = report.splits["val"].statistics["semantic"]
    assert (counts.pixels[13], counts.void) == (4 * 24, 4 * 24)
    (root / "gt/rain/train/GOPR0400/GOPR0400_frame_000001_gt_labelTrainIds.png").unlink()
    stray = root / "gt/night/train/GOPR0351/GOPR0351_frame_000009_gt_labelTrainIds.png"
    write_mask(stray, half(0, 1))
    write_mask(stray.with_name("._x_gt_labelTrainIds.png"), half(0, 1))  # left behind by macOS
    faults = check_dataset(Acdc(root, split="train")).faults
    assert sorted((fault.kind, Path(fault.file).name) for fault in faults) == [
        ("missing_image", "GOPR0351_frame_000009_gt_labelTrainIds.png"),
        ("missing_mask", "GOPR0400_frame_000001_gt_labelTrainIds.png"),
    ]


def test_wrong_options_and_roots_give_errors_that_say_what_to_do(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"acdc: condition 'foggy' is unknown; .*'fog'"):
        Acdc(root, split="val", condition="foggy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'labelIds'"):
        Acdc(root, split="val", masks="labelids")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="split 'valid' is unknown"):
        Acdc(root, split="valid")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="acdc test: labels are not published"):
        Acdc(root, split="test")
    with pytest.raises(DataError, match=r"rgb_anon/fog/train: holds no .*; set root"):
        Acdc(root / "gt", split="train")
    write_mask(root / "gt/fog/val/GOPR0476/GOPR0476_frame_000004_gt_labelTrainIds.png", half(0, 19))
    with pytest.raises(DataError, match=r"GOPR0476_frame_000004_gt_labelTrainIds\.png.* 19"):
        Acdc(root, split="val", condition="fog")[0]


def test_it_is_found_below_a_folder(root: Path) -> None:
    found = {item.spec: item for item in find_data(root)}
    assert found[f"acdc={root}"].images == {"train": 6, "val": 4}
    assert len(found[f"acdc={root}"].classes) == 19
    shutil.rmtree(root / "gt")
    assert [item.complete for item in find_data(root)] == [{"train": 0, "val": 0}]


def test_the_file_of_a_real_frame_reads_alike(cityscapes_sample: Path, tmp_path: Path) -> None:
    # No frame of ACDC is at hand; its masks have the encoding of those of Cityscapes.
    stem = "frankfurt_000000_000294"
    for source, target in (
        (f"leftImg8bit/{stem}_leftImg8bit", "rgb_anon/rain/val/s/a_rgb_anon"),
        (f"gtFine/{stem}_gtFine_labelIds", "gt/rain/val/s/a_gt_labelIds"),
    ):
        path = tmp_path / f"{target}.png"
        path.parent.mkdir(parents=True)
        path.symlink_to(cityscapes_sample / f"{source}.png")
    sample = Acdc(tmp_path, split="val", condition="rain", masks="labelIds")[0]
    assert sample.image.shape == (128, 256, 3)
    assert (sample.labels["semantic"][64:110] == 0).mean() > 0.4
    assert np.unique(sample.labels["semantic"]).max() == 255
