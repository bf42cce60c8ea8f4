"""Augmentation and preprocessing: the same numbers everywhere, image and labels in step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtseg.data.augment import DRAWS
from rtseg.data.transforms import Augment, Preprocess
from rtseg.errors import ConfigError
from rtseg.structures import Sample

GRAY = (10.0, 20.0, 30.0)


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


def applied(augment: Augment, sample: Sample, seed: int = 0) -> Sample:
    return augment(sample, np.random.default_rng(seed), padding_color=GRAY)


# ---------------------------------------------------------------- augmentation
def test_with_all_switches_off_nothing_changes() -> None:
    sample = noise(33, 47)
    result = applied(Augment(), sample)
    assert result.image.dtype == np.float32
    assert np.array_equal(result.image, sample.image.astype(np.float32))
    assert result.labels["semantic"].tobytes() == sample.labels["semantic"].tobytes()


def test_the_same_generator_gives_the_same_sample_and_another_one_another() -> None:
    augment = Augment(
        crop=(20, 24), scale_range=(0.5, 2.0), flip=0.5,
        brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1,
    )  # fmt: skip
    first, again, other = (applied(augment, noise(33, 47), seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels["semantic"], again.labels["semantic"])
    assert not np.array_equal(first.image, other.image)


def test_a_switch_draws_as_many_numbers_on_as_off() -> None:
    for augment in (Augment(), Augment(crop=(4, 4), scales=(0.5, 1.0), flip=0.5, brightness=0.2)):
        rng, reference = np.random.default_rng(5), np.random.default_rng(5)
        augment(sample_of(), rng, padding_color=GRAY)
        reference.random(DRAWS)
        assert rng.random() == reference.random()


@pytest.mark.parametrize("seed", range(20))
def test_image_and_labels_stay_together_under_crop_and_mirror(seed: int) -> None:
    result = applied(Augment(crop=(4, 5), flip=0.5), sample_of(9, 11), seed)
    assert np.array_equal(result.image[..., 2], result.labels["semantic"].astype(np.float32))
    assert np.array_equal(result.labels["panoptic"], result.labels["semantic"] + 1)
    top = result.image[0, 0, 0]
    assert np.array_equal(result.image[:, 0, 0], top + np.arange(4))


def test_crops_reach_every_position_and_no_other() -> None:
    corners = {
        tuple(applied(Augment(crop=(4, 6)), sample_of(6, 8), seed).image[0, 0, :2].tolist())
        for seed in range(200)
    }
    assert corners == {(float(row), float(column)) for row in range(3) for column in range(3)}


@pytest.mark.parametrize("seed", range(10))
def test_image_and_labels_stay_together_when_both_are_scaled(seed: int) -> None:
    height, width = 60, 80
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 4, columns * 3, rows * 0], axis=-1).astype(np.uint8)
    sample = Sample(image, {"semantic": rows.astype(np.uint8), "column": columns.astype(np.uint8)})
    result = applied(Augment(crop=(40, 40), scale_range=(0.8, 1.6), flip=0.5), sample, seed)
    known = result.labels["semantic"] != 255
    assert known.mean() > 0.9
    for channel, (kind, step) in enumerate((("semantic", 4), ("column", 3))):
        off = np.abs(result.image[..., channel] / step - result.labels[kind])[known]
        assert off.max() <= 1.0  # at most one source pixel, also at the borders


def test_a_mirror_turns_image_and_labels_around() -> None:
    sample = sample_of()
    result = applied(Augment(flip=1.0), sample)
    assert np.array_equal(result.image, sample.image[:, ::-1].astype(np.float32))
    assert np.array_equal(result.labels["panoptic"], sample.labels["panoptic"][:, ::-1])


def test_flip_is_a_probability() -> None:
    mirrored = sum(
        int(applied(Augment(flip=0.25), sample_of(), seed).image[0, 0, 1] == 7)
        for seed in range(400)
    )
    assert 70 <= mirrored <= 130  # 100 expected, standard deviation 8.7


def test_scaled_labels_hold_no_value_that_was_not_there() -> None:
    sample = noise(40, 50)
    sparse = (sample.labels["semantic"] * 50).astype(np.uint8)
    for seed in range(10):
        result = applied(
            Augment(scale_range=(0.5, 2.0)), Sample(sample.image, {"semantic": sparse}), seed
        )
        assert set(np.unique(result.labels["semantic"])) <= {0, 50, 100, 150, 200}


def test_scales_are_a_grid_and_a_scale_range_is_continuous() -> None:
    sample = noise(100, 100)
    grid = {applied(Augment(scales=(0.5, 1.0, 2.0)), sample, s).image.shape[0] for s in range(30)}
    assert grid == {50, 100, 200}
    sides = {applied(Augment(scale_range=(0.5, 2.0)), sample, s).image.shape[0] for s in range(30)}
    assert len(sides) > 15
    assert min(sides) >= 50
    assert max(sides) <= 200


def test_a_crop_pads_below_and_at_the_right_with_color_and_void() -> None:
    result = applied(Augment(crop=(8, 12)), sample_of(6, 8))
    assert result.image.shape == (8, 12, 3)
    assert np.array_equal(result.image[:6, :8], sample_of(6, 8).image.astype(np.float32))
    outside = np.ones((8, 12), bool)
    outside[:6, :8] = False
    assert (result.image[outside] == GRAY).all()
    assert (result.labels["semantic"][outside] == 255).all()
    assert (result.labels["panoptic"][outside] == 0).all()
    assert np.array_equal(result.labels["semantic"][:6, :8], sample_of(6, 8).labels["semantic"])


def test_padding_of_a_crop_is_exactly_zero_after_normalization() -> None:
    preprocess = Preprocess(stride=1)
    augmented = Augment(crop=(8, 12))(
        sample_of(6, 8), np.random.default_rng(0), padding_color=preprocess.padding_color
    )
    image = preprocess.fit(augmented.image).image
    assert (image[:, 6:] == 0).all()
    assert (image[:, :, 8:] == 0).all()
    assert (image[:, :6, :8] != 0).any()


def test_a_padding_color_of_whole_numbers_does_not_round_the_image() -> None:
    sample = noise(10, 10)
    bright = Augment(brightness=0.5, crop=(12, 12))
    result = bright(
        Sample(sample.image.astype(np.float32) + 0.25, sample.labels),
        np.random.default_rng(0),
        padding_color=(0, 0, 0),
    )
    assert (result.image % 1 != 0).any()


def test_brightness_multiplies_all_channels_alike() -> None:
    flat = Sample(np.full((4, 4, 3), 100, np.uint8), {})
    values = [applied(Augment(brightness=0.2), flat, seed).image for seed in range(50)]
    assert all(np.ptp(value) == 0 for value in values)
    assert min(value[0, 0, 0] for value in values) < 85
    assert max(value[0, 0, 0] for value in values) > 115
    assert all(80 <= value[0, 0, 0] <= 120 for value in values)


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (1.0,), "scale_range": (1.0, 2.0)}, {"flip": 1.5}, {"flip": -0.1}, {"hue": 0.6},
        {"scale_range": (2.0, 1.0)}, {"scales": (0.0,)}, {"crop": (0, 4)}, {"brightness": -0.1},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.augment"):
        Augment(**options)


# ---------------------------------------------------------------- samples of published recipes
PINNED = {
    "nothing": (Augment(), (69122464, 69122464), (1291666, 1291666)),
    "scales": (
        Augment(crop=(40, 56), scales=(0.5, 1.0, 1.75), flip=0.5),
        (44013727, 45443071),
        (853879, 838520),
    ),
    "range": (
        Augment(
            crop=(64, 64), scale_range=(0.5, 2.0), flip=0.5,
            brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
        ),
        (62565876, 95992301),
        (1530816, 3931090),
    ),
}  # fmt: skip


def checksum(values: np.ndarray) -> float:
    """A sum that moves with every value and with its place."""
    flat = values.astype(np.float64).ravel()
    return float(flat @ (1 + np.arange(flat.size) % 97))


@pytest.mark.parametrize("name", PINNED)
def test_a_configuration_goes_on_to_give_the_samples_it_always_gave(name: str) -> None:
    rows, columns = np.mgrid[:48, :80]
    image = np.stack([rows * 5 + columns, columns * 3, rows * columns], axis=-1) % 256
    classes = (rows // 7 + columns // 9) % 19
    sample = Sample(image.astype(np.uint8), {"semantic": classes.astype(np.uint8)})
    augment, images, labels = PINNED[name]
    results = [applied(augment, sample, seed) for seed in (0, 1)]
    assert [checksum(item.image) for item in results] == pytest.approx(images, rel=1e-5)
    assert [checksum(item.labels["semantic"]) for item in results] == list(labels)


# ---------------------------------------------------------------- preprocessing
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
