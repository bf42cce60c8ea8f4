from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtseg.data.camvid import CamVid
from rtseg.data.camvid_classes import CLASSES_11
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.weights import class_statistics, class_weights
from rtseg.errors import ConfigError, DataError

RAW = np.array([[0, 3, 10], [11, 5, 11]], dtype=np.uint8)


def write_old_release(root: Path, *, prefix: str = "/SegNet/CamVid/") -> Path:
    """Write frames as listed in the first release: absolute names, `.png`, masks in 8-bit grey."""
    for split, stems in (("train", ("f2", "f1")), ("val", ("f3",))):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        lines = [f"{prefix}{split}/{stem}.png {prefix}{split}annot/{stem}.png" for stem in stems]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        for number, stem in enumerate(stems):
            image = np.full((2, 3, 3), 10 * number, dtype=np.uint8)
            Image.fromarray(image).save(root / split / f"{stem}.webp", lossless=True)
            Image.fromarray(RAW).save(root / f"{split}annot" / f"{stem}.png")
    return root


@pytest.mark.parametrize("prefix", ["/SegNet/CamVid/", "", "./"])
def test_lists_are_resolved_by_folder_and_stem_in_their_order(tmp_path: Path, prefix: str) -> None:
    dataset = CamVid(write_old_release(tmp_path, prefix=prefix), split="trainval")
    images = [dataset.files(index)[0] for index in range(len(dataset))]
    assert images == [tmp_path / name for name in ("train/f2.webp", "train/f1.webp", "val/f3.webp")]
    assert dataset[1].image[0, 0].tolist() == [10, 10, 10]
    assert isinstance(dataset, DiskDataset)


def test_void_becomes_255_in_grey_and_in_palette_masks(tmp_path: Path) -> None:
    root = write_old_release(tmp_path)
    palette = Image.fromarray(RAW)
    palette.putpalette([1, 2, 3] * 12)
    palette.save(root / "trainannot" / "f1.png", bits=4)
    dataset = CamVid(root, split="train")
    for index in range(2):
        labels = dataset[index].labels["semantic"]
        assert labels.tolist() == [[0, 3, 10], [255, 5, 255]]
        assert labels.dtype == np.uint8


def test_listed_file_is_preferred_over_one_with_another_suffix(tmp_path: Path) -> None:
    root = write_old_release(tmp_path)
    Image.fromarray(np.full((2, 3, 3), 99, dtype=np.uint8)).save(root / "train" / "f1.png")
    assert CamVid(root, split="train")[1].image[0, 0].tolist() == [99, 99, 99]


def test_label_12_is_refused_with_the_name_of_the_mask(tmp_path: Path) -> None:
    root = write_old_release(tmp_path)
    Image.fromarray(np.full((2, 3), 12, dtype=np.uint8)).save(root / "valannot" / "f3.png")
    with pytest.raises(DataError, match=r"valannot/f3\.png.* 12"):
        CamVid(root, split="val")[0]


def test_listed_frame_that_is_missing_is_named_on_reading(tmp_path: Path) -> None:
    root = write_old_release(tmp_path)
    (root / "train" / "f2.webp").unlink()
    with pytest.raises(DataError, match=r"train/f2\.png.*missing"):
        CamVid(root, split="train")[0]


def test_bad_lists_and_splits_give_errors_that_say_where(tmp_path: Path) -> None:
    root = write_old_release(tmp_path)
    with pytest.raises(DataError, match=r"test\.txt"):
        CamVid(root, split="test")
    (root / "test.txt").write_text("test/a.png testannot/a.png\ntest/b.png\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.txt: line 2"):
        CamVid(root, split="test")
    (root / "test.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="names no frame"):
        CamVid(root, split="test")
    with pytest.raises(ConfigError, match="'training' is unknown"):
        CamVid(root, split="training")  # type: ignore[arg-type]


def test_sample_frames_have_11_classes_and_a_clean_check(camvid_root: Path) -> None:
    splits = {name: CamVid(camvid_root, split=name) for name in ("train", "val", "test")}
    assert [len(dataset) for dataset in splits.values()] == [4, 2, 2]
    assert len(CamVid(camvid_root, split="trainval")) == 6
    sample = splits["train"][0]
    assert sample.image.shape == (360, 480, 3)
    assert set(np.unique(sample.labels["semantic"])) <= {*range(11), 255}
    # The frame shows sky above and road below.
    assert (sample.labels["semantic"][:60] == 0).mean() > 0.2
    assert (sample.labels["semantic"][250:] == 3).mean() > 0.5
    report = check_dataset(splits)
    assert report.faults == ()
    assert report.splits["train"].sizes == {(360, 480): 4}


# Counted once over all published masks, independently of this package.
PIXELS = {
    "train": (
        10_682_767, 14_750_079, 623_349, 20_076_880, 2_845_085, 6_166_762,
        743_859, 714_595, 3_719_877, 405_385, 184_967,
    ),
    "val": (
        1_601_620, 4_531_180, 98_499, 5_053_176, 1_521_751, 2_851_125,
        155_724, 537_197, 304_716, 113_531, 387_010,
    ),
    "test": (
        6_870_982, 9_906_732, 473_895, 10_390_661, 3_731_857, 4_530_895,
        406_612, 476_807, 1_599_124, 255_232, 76_220,
    ),
}  # fmt: skip
VOID = {"train": 2_503_995, "val": 297_271, "test": 1_543_383}
TRAIN_FRAMES = (366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201)
SHARES = (
    17.5376, 24.2148, 1.0233, 32.9596, 4.6707, 10.1238, 1.2212, 1.1731, 6.1068, 0.6655, 0.3037
)  # fmt: skip
MEDIAN = (
    0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587
)  # fmt: skip
LOG = (
    5.6035, 4.2953, 33.5736, 3.3355, 15.4856, 8.7387, 31.5420, 32.0120, 12.8288, 38.0141, 43.9074
)  # fmt: skip
LOG_110_TRAIN = (
    4.1112, 3.3982, 9.5630, 2.7980, 7.3049, 5.4540, 9.4029, 9.4412, 6.6961, 9.8676, 10.1971
)  # fmt: skip
LOG_110_TRAINVAL = (
    4.3667, 3.3573, 9.6450, 2.8410, 6.9008, 5.1239, 9.4580, 9.1090, 7.0867, 9.8683, 9.8089
)  # fmt: skip


@pytest.mark.slow
def test_class_pixels_and_weights_of_all_frames_are_the_published_ones(
    camvid_full_root: Path,
) -> None:
    counted = {name: class_statistics(CamVid(camvid_full_root, split=name)) for name in PIXELS}
    for name, statistics in counted.items():
        assert statistics.pixels == PIXELS[name], name
        assert statistics.void == VOID[name], name
        roads = class_statistics(
            CamVid(camvid_full_root, split=name, kinds=["drivable"]), kind="drivable"
        )
        others = sum(PIXELS[name]) - PIXELS[name][3]
        assert (roads.pixels, roads.void) == ((others, PIXELS[name][3]), VOID[name]), name
    train = counted["train"]
    assert train.frames == TRAIN_FRAMES
    assert train.names == tuple(info.name for info in CLASSES_11)
    assert [round(100 * share, 4) for share in train.shares] == list(SHARES)
    for scheme, expected in (("median_frequency", MEDIAN), ("inverse_log", LOG)):
        assert [round(w, 4) for w in class_weights(train, scheme=scheme)] == list(expected)
    both = class_statistics(CamVid(camvid_full_root, split="trainval"))
    for statistics, expected in ((train, LOG_110_TRAIN), (both, LOG_110_TRAINVAL)):
        weights = class_weights(statistics, scheme="inverse_log", offset=1.10)
        assert [round(weight, 4) for weight in weights] == list(expected)


@pytest.mark.slow
def test_all_frames_pass_the_check_and_have_the_published_channel_means(
    camvid_full_root: Path,
) -> None:
    report = check_dataset(
        {name: CamVid(camvid_full_root, split=name) for name in ("train", "val", "test")}
    )
    assert (report.faults, report.warnings) == ((), ())
    assert [split.images for split in report.splits.values()] == [367, 101, 233]
    mean = report.splits["train"].channel_mean
    assert mean is not None
    # The published means are of the PNG release; the frames here went through WebP.
    for channel, published in zip(mean, (105.0332, 108.4089, 110.3310), strict=True):
        assert math.isclose(channel, published, abs_tol=0.2)
