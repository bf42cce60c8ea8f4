"""Preprocessing: one way from an image to the input of a network, and labels that follow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError
from rtseg.structures import Sample


def sample_of(height: int = 6, width: int = 8) -> Sample:
    """An image whose channels are row, column and class, and labels that say the same."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    classes = (rows * width + columns) % 200
    image = np.stack([rows, columns, classes], axis=-1)
    labels = {"semantic": classes, "panoptic": classes.astype(np.int32) + 1}
    return Sample(image, labels, path="coded")


def noise(height: int, width: int) -> Sample:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(image, {"semantic": rng.integers(0, 5, (height, width), dtype=np.uint8)})


def test_every_channel_has_its_own_mean_and_deviation() -> None:
    preprocess = Preprocess(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0), stride=1)
    image = np.array([[[12, 28, 40]]], np.uint8)
    assert preprocess.fit(image).image.flatten().tolist() == [1.0, 2.0, 2.0]


def test_padding_is_at_the_bottom_and_right_only_and_ends_at_the_stride() -> None:
    preprocess = Preprocess(stride=8)
    sample = noise(13, 30)
    fitted = preprocess.fit(sample.image, path="a.png")
    assert tuple(fitted.image.shape) == (3, 16, 32)
    assert fitted.meta == ("a.png", (13, 30), (13, 30), (3, 2), (0, 0))
    assert torch.equal(fitted.image[:, :13, :30], Preprocess(stride=1).fit(sample.image).image)
    assert (fitted.image[:, 13:] == 0).all()
    assert (fitted.image[:, :, 30:] == 0).all()


def test_a_size_that_fits_the_stride_is_not_padded() -> None:
    assert Preprocess(stride=8).fit(noise(16, 32).image).meta.padding == (0, 0)


def test_pad_value_is_a_pixel_value_before_normalization() -> None:
    preprocess = Preprocess(
        (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), pad_value=(12.0, 12.0, 40.0), stride=2
    )
    corner = preprocess.fit(np.zeros((1, 1, 3), np.uint8)).image[:, 1, 1]
    assert corner.tolist() == [1.0, -2.0, 2.0]


def test_the_size_rule_resizes_before_padding() -> None:
    fitted = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), stride=8, size=(12, 20)).fit(
        np.full((30, 40, 3), 7, np.uint8)
    )
    assert tuple(fitted.image.shape) == (3, 16, 24)
    assert fitted.meta == ("", (30, 40), (12, 20), (4, 4), (0, 0))
    assert (fitted.image[:, :12, :20] == 7).all()


def test_training_labels_follow_the_image_through_padding() -> None:
    sample = sample_of(6, 8)
    preprocess = Preprocess(stride=5)
    labels = preprocess.fit_labels(sample.labels, preprocess.fit(sample.image).meta)
    assert labels["semantic"].shape == (10, 10)
    assert np.array_equal(labels["semantic"][:6, :8], sample.labels["semantic"])
    assert (labels["semantic"][6:] == 255).all()
    assert (labels["panoptic"][:, 8:] == 0).all()


def test_training_labels_follow_the_image_through_the_size_rule() -> None:
    sample = sample_of(6, 8)
    preprocess = Preprocess(stride=1, size=(12, 16))
    labels = preprocess.fit_labels(sample.labels, preprocess.fit(sample.image).meta)
    doubled = sample.labels["semantic"].repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(labels["semantic"], doubled)


@pytest.mark.parametrize(
    "options", [{"stride": 0}, {"std": (1.0, 0.0, 1.0)}, {"size": (0, 4)}], ids=str
)
def test_preprocessing_that_divides_by_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.preprocess"):
        Preprocess(**options)


# ---------------------------------------------------------------- other size rules
def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3, columns * 2, rows + columns], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("source", "short_side", "cap", "expected"),
    [
        ((30, 60), 15, None, (15, 30)),
        ((60, 30), 15, None, (30, 15)),
        ((30, 60), 15, 20, (10, 20)),
        ((30, 61), 20, None, (20, 41)),  # 40.67
        ((30, 60), 60, 100, (50, 100)),
        ((61, 30), 20, None, (41, 20)),
        ((4, 400), 2, 50, (1, 50)),  # 0.5 becomes 1
        ((2, 400), 1, 50, (1, 50)),  # and so does 0.25
        ((400, 2), 1, 50, (50, 1)),
    ],
)
def test_short_side_keeps_the_ratio_below_a_cap(
    source: tuple[int, int], short_side: int, cap: int | None, expected: tuple[int, int]
) -> None:
    preprocess = Preprocess(stride=1, short_side=short_side, max_long_side=cap)
    fitted = preprocess.fit(gradient(*source))
    assert fitted.meta == ("", source, expected, (0, 0), (0, 0))
    assert tuple(fitted.image.shape) == (3, *expected)


def test_letterbox_pads_on_all_sides_and_says_where() -> None:
    preprocess = Preprocess(
        mean=(0, 0, 0), std=(1, 1, 1), pad_value=(114, 115, 116), stride=2, size=(6, 10),
        letterbox=(10, 14),
    )  # fmt: skip
    fitted = preprocess.fit(np.full((12, 20, 3), 7, np.uint8), path="a")
    assert fitted.meta == ("a", (12, 20), (6, 10), (4, 4), (2, 2))
    assert (fitted.image[:, 2:8, 2:12] == 7).all()
    fitted.image[:, 2:8, 2:12] = torch.tensor([114.0, 115.0, 116.0]).view(3, 1, 1)
    assert (fitted.image == torch.tensor([114.0, 115.0, 116.0]).view(3, 1, 1)).all()


def test_the_odd_row_of_a_letterbox_lies_below() -> None:
    for size, padding, offset in (((4, 4), (3, 1), (1, 0)), ((4, 5), (3, 0), (1, 0))):
        fitted = Preprocess(stride=1, size=size, letterbox=(7, 5)).fit(gradient(8, 8))
        assert (fitted.meta.padding, fitted.meta.offset) == (padding, offset)


@pytest.mark.parametrize(
    ("source", "inner"), [((10, 40), (4, 16)), ((40, 10), (16, 4)), ((8, 8), (16, 16))]
)
def test_letterbox_without_a_size_fits_the_image_into_it(
    source: tuple[int, int], inner: tuple[int, int]
) -> None:
    meta = Preprocess(stride=16, letterbox=(16, 16)).fit(gradient(*source)).meta
    assert meta.input_size == inner
    assert meta.offset == ((16 - inner[0]) // 2, (16 - inner[1]) // 2)


def test_labels_follow_a_letterbox() -> None:
    sample = sample_of(6, 8)
    preprocess = Preprocess(stride=1, size=(6, 8), letterbox=(9, 12))
    labels = preprocess.fit_labels(sample.labels, preprocess.fit(sample.image).meta)
    assert np.array_equal(labels["semantic"][1:7, 2:10], sample.labels["semantic"])
    assert np.array_equal(labels["panoptic"][1:7, 2:10], sample.labels["panoptic"])
    assert (labels["semantic"] == 255).sum() == (labels["panoptic"] == 0).sum() == 9 * 12 - 48


def test_half_a_size_without_antialiasing_is_the_mean_of_four_pixels() -> None:
    image = noise(8, 12).image.astype(np.float32)
    plain = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), stride=1, size=(4, 6), antialias=False)
    means = image.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.allclose(plain.fit(image).image.permute(1, 2, 0), means, atol=1e-4)
    smooth = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), stride=1, size=(4, 6))
    assert not np.allclose(smooth.fit(image).image.permute(1, 2, 0), means, atol=1.0)


# ---------------------------------------------------------------- labels
def test_maximum_keeps_a_line_of_one_pixel_and_nearest_does_not() -> None:
    lane = np.zeros((8, 8), np.uint8)
    lane[:, 2] = 1
    semantic = lane * 5
    meta = Preprocess(stride=1, size=(4, 4)).fit(gradient(8, 8)).meta
    kept = Preprocess(stride=1, size=(4, 4), mask_resize="max").fit_labels(
        {"lane": lane, "drivable": lane, "semantic": semantic}, meta
    )
    for kind in ("lane", "drivable"):
        assert kept[kind].tolist() == [[0, 1, 0, 0]] * 4
        assert kept[kind].dtype == np.uint8
    nearest = Preprocess(stride=1, size=(4, 4)).fit_labels(
        {"lane": lane, "semantic": semantic}, meta
    )
    assert set(nearest["lane"].ravel()) == {0}
    assert np.array_equal(kept["semantic"], nearest["semantic"])  # class ids have no maximum


def test_maximum_at_other_ratios_is_coverage_above_zero() -> None:
    rng = np.random.default_rng(1)
    for source, target in (((7, 9), (4, 5)), ((10, 11), (3, 7)), ((3, 4), (5, 9))):
        lane = (rng.random(source) < 0.2).astype(np.uint8)
        preprocess = Preprocess(stride=1, size=target, mask_resize="max")
        labels = preprocess.fit_labels({"lane": lane}, preprocess.fit(gradient(*source)).meta)
        for row in range(target[0]):
            for column in range(target[1]):
                touched = [
                    lane[y, x]
                    for y in range(source[0])
                    for x in range(source[1])
                    if y * target[0] < (row + 1) * source[0]
                    and (y + 1) * target[0] > row * source[0]
                    and x * target[1] < (column + 1) * source[1]
                    and (x + 1) * target[1] > column * source[1]
                ]
                assert labels["lane"][row, column] == max(touched)


def test_in_a_maximum_one_beats_void_and_void_beats_zero() -> None:
    lane = np.array([[0, 255, 1, 255, 0, 0]], np.uint8)
    preprocess = Preprocess(stride=1, size=(1, 3), mask_resize="max")
    labels = preprocess.fit_labels({"lane": lane}, preprocess.fit(gradient(1, 6)).meta)
    assert labels["lane"].tolist() == [[255, 1, 0]]


def test_a_label_of_the_whole_image_stays() -> None:
    labels = {"class": np.array(3, dtype=np.int64)}
    preprocess = Preprocess(stride=1, size=(4, 4), letterbox=(6, 6), score_at="input")
    meta = preprocess.fit(gradient(8, 8)).meta
    assert preprocess.fit_labels(labels, meta) == labels
    assert preprocess.scored(Sample(gradient(8, 8), labels), meta)[0].labels == labels


def test_scores_at_native_size_leave_sample_and_meta_alone() -> None:
    sample = sample_of(6, 8)
    preprocess = Preprocess(stride=1, size=(3, 4), letterbox=(5, 5))
    meta = preprocess.fit(sample.image).meta
    assert preprocess.scored(sample, meta) == (sample, meta)


def test_scores_at_the_input_shrink_labels_but_do_not_pad_them() -> None:
    rows = np.repeat(np.arange(3, dtype=np.uint8), 2)[:, None].repeat(8, axis=1)
    lane = np.zeros((6, 8), np.uint8)
    lane[0, 0] = 1
    sample = Sample(
        gradient(6, 8), {"semantic": rows, "lane": lane, "panoptic": rows.astype(np.int32)}
    )
    preprocess = Preprocess(
        stride=1, size=(3, 4), letterbox=(5, 6), mask_resize="max", score_at="input"
    )
    fitted = preprocess.fit(sample.image, path="x")
    scored, meta = preprocess.scored(sample, fitted.meta)
    assert meta == ("x", (3, 4), (3, 4), (2, 2), (1, 1))
    assert scored.labels["semantic"].tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert scored.labels["panoptic"].tolist() == scored.labels["semantic"].tolist()
    assert scored.labels["lane"].sum() == scored.labels["lane"][0, 0] == 1
    assert scored.image is sample.image


@pytest.mark.parametrize(
    "options",
    [
        {"short_side": 4, "size": (4, 4)}, {"short_side": 4, "letterbox": (32, 32)},
        {"max_long_side": 9}, {"letterbox": (64, 33)}, {"size": (40, 30), "letterbox": (32, 32)},
        {"short_side": 0}, {"short_side": 4, "max_long_side": 0}, {"letterbox": (0, 32)},
    ],
    ids=str,
)  # fmt: skip
def test_size_rules_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.preprocess"):
        Preprocess(**options)
