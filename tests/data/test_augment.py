"""Scale, color, crop and mirror: the same numbers everywhere, image and labels in step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtseg.data.augment import DRAWS, Augment
from rtseg.data.preprocess import Preprocess
from rtseg.errors import ConfigError, DataError
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
    for augment in (
        Augment(), Augment(crop=(4, 4), scales=(0.5, 1.0), flip=0.5, brightness=0.2, recolor=0.5),
    ):  # fmt: skip
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


COLORS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def test_colors_change_with_a_probability_and_then_as_ever() -> None:
    sample = noise(6, 6)
    always, half, never = (Augment(**COLORS, recolor=share) for share in (1.0, 0.5, 0.0))
    changed = 0
    for seed in range(200):
        plain, full = sample.image.astype(np.float32), applied(always, sample, seed).image
        assert np.array_equal(full, applied(Augment(**COLORS), sample, seed).image)
        assert np.array_equal(applied(never, sample, seed).image, plain)
        expected = np.random.default_rng(seed).random(DRAWS)[-1] < 0.5
        found = applied(half, sample, seed).image
        assert np.array_equal(found, full if expected else plain)
        changed += int(expected)
    assert 70 <= changed <= 130


def test_whether_colors_change_leaves_the_geometry_alone() -> None:
    options: dict[str, Any] = {"crop": (20, 24), "scale_range": (0.5, 2.0), "flip": 0.5, **COLORS}
    for seed in range(10):
        labels = [
            applied(Augment(**options, recolor=share), noise(33, 47), seed).labels["semantic"]
            for share in (0.0, 1.0)
        ]
        assert np.array_equal(*labels)


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (1.0,), "scale_range": (1.0, 2.0)}, {"flip": 1.5}, {"flip": -0.1}, {"hue": 0.6},
        {"recolor": 1.1}, {"recolor": -0.1},
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


# ---------------------------------------------------------------- other scale rules
def sizes_of(augment: Augment, height: int, width: int, count: int = 40) -> set[tuple[int, int]]:
    sample = noise(height, width)
    results = [applied(augment, sample, seed).image.shape[:2] for seed in range(count)]
    return {(int(rows), int(columns)) for rows, columns in results}


def test_one_of_the_short_sides_is_chosen_and_the_long_side_capped() -> None:
    augment = Augment(short_side=(10, 20, 40), max_long_side=60)
    assert sizes_of(augment, 20, 40) == {(10, 20), (20, 40), (30, 60)}
    assert sizes_of(augment, 40, 20) == {(20, 10), (40, 20), (60, 30)}
    assert sizes_of(Augment(short_side=(20,)), 30, 45) == {(20, 30)}


@pytest.mark.parametrize(
    ("source", "base", "expected"),
    [
        ((20, 40), (10, 30), (10, 20)),  # height decides
        ((20, 40), (20, 30), (15, 30)),  # width decides
        ((40, 20), (10, 30), (20, 10)),  # an upright image gets the same frame, turned
        ((5, 10), (20, 40), (20, 40)),  # small images grow
        ((20, 40), (30, 10), (10, 20)),  # and so is the frame
    ],
)
def test_the_image_first_fits_the_base_size(
    source: tuple[int, int], base: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert sizes_of(Augment(base_size=base), *source, count=1) == {expected}


def test_factors_count_from_the_base_size() -> None:
    augment = Augment(base_size=(10, 20), scales=(0.5, 3.0))
    assert sizes_of(augment, 40, 80) == {(5, 10), (30, 60)}
    sides = {
        rows for rows, _ in sizes_of(Augment(base_size=(100, 200), scale_range=(0.5, 1.5)), 20, 40)
    }
    assert len(sides) > 20
    assert 50 <= min(sides) < 60
    assert 140 < max(sides) <= 150


# ---------------------------------------------------------------- crops that are not of one class
def striped(share: float, width: int = 40) -> Sample:
    """Class 0 on the left, class 1 from there on; rows and columns in the image."""
    sample = sample_of(20, width)
    classes = (np.arange(width) >= share * width).astype(np.uint8)[None].repeat(20, axis=0)
    return Sample(sample.image, {"semantic": classes}, path="striped")


@pytest.mark.parametrize("seed", range(30))
def test_a_crop_of_one_class_is_drawn_again(seed: int) -> None:
    # Crops of 10 columns begin at 0 to 30; those from 13 to 17 hold at least 3 columns of each
    # class, 5 of 31: eleven tries find one with probability 0.85.
    sample = striped(0.5)
    result = applied(Augment(crop=(20, 10), max_class_share=0.7), sample, seed)
    draws = np.random.default_rng(seed).random(DRAWS)
    starts = [int(draw * 31) for draw in [draws[6], *draws[18::2]]]
    assert len(starts) == 11
    good = [start for start in starts if 13 <= start <= 17]
    assert result.image[0, 0, 1] == (good[0] if good else starts[-1])


def test_void_does_not_count_in_the_share() -> None:
    sample = striped(0.5, width=16)
    labels = sample.labels["semantic"].copy()
    labels[:, 4:8] = 255  # 4 columns of class 0, 8 of class 1, 4 void; the crop is the image
    for share, moved in ((0.66, True), (0.67, False)):
        augment = Augment(crop=(10, 16), max_class_share=share)
        rows = [
            applied(augment, Sample(sample.image, {"semantic": labels}), seed).image[0, 0, 0]
            for seed in range(20)
        ]
        plain = [applied(Augment(crop=(10, 16)), sample, seed).image[0, 0, 0] for seed in range(20)]
        assert (rows != plain) == moved


def test_a_crop_without_labels_is_drawn_again_too() -> None:
    sample = striped(0.5)
    labels = np.full_like(sample.labels["semantic"], 255)
    labels[:, 30:35], labels[:, 35:] = 3, 4
    augment = Augment(crop=(20, 30), max_class_share=0.99)
    found = [
        applied(augment, Sample(sample.image, {"semantic": labels}), seed) for seed in range(30)
    ]
    assert sum(bool((item.labels["semantic"] != 255).any()) for item in found) == 30


def test_the_share_needs_semantic_labels() -> None:
    sample = Sample(noise(8, 8).image, {"lane": noise(8, 8).labels["semantic"]}, path="x.png")
    with pytest.raises(DataError, match=r"x\.png: has no semantic labels"):
        applied(Augment(crop=(4, 4), max_class_share=0.5), sample)


# ---------------------------------------------------------------- color and padding
def test_distortion_changes_pixels_but_neither_padding_nor_labels() -> None:
    augment = Augment(crop=(40, 60), distort=True, pad_value=(128, 127, 126))
    sample = noise(33, 47)
    changed = 0
    for seed in range(20):
        result = applied(augment, sample, seed)
        assert (result.image[33:] == (128, 127, 126)).all()
        assert (result.image[:, 47:] == (128, 127, 126)).all()
        assert np.array_equal(result.labels["semantic"][:33, :47], sample.labels["semantic"])
        changed += int(not np.array_equal(result.image[:33, :47], sample.image))
        assert result.image.min() >= 0
        assert result.image.max() <= 255
    assert changed >= 16  # 15 of 16 on average


def test_distortion_works_without_a_crop_and_leaves_geometry_alone() -> None:
    both = [
        applied(
            Augment(crop=(20, 24), scale_range=(0.5, 2), flip=0.5, distort=on), noise(33, 47), 4
        )
        for on in (False, True)
    ]
    assert np.array_equal(both[0].labels["semantic"], both[1].labels["semantic"])
    assert not np.array_equal(both[0].image, both[1].image)
    assert applied(Augment(distort=True), noise(9, 11), 4).image.shape == (9, 11, 3)


def test_a_label_of_the_whole_image_stays() -> None:
    sample = Sample(noise(9, 9).image, {"class": np.array(7, dtype=np.int64)})
    result = applied(Augment(crop=(4, 4), scales=(2.0,), flip=1.0), sample)
    assert result.labels["class"] is sample.labels["class"]
    assert result.image.shape == (4, 4, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"short_side": (8,), "scales": (1.0,)}, {"short_side": (8,), "scale_range": (1.0, 2.0)},
        {"short_side": (8,), "base_size": (8, 8)}, {"max_long_side": 8}, {"short_side": ()},
        {"short_side": (0,)}, {"short_side": (8,), "max_long_side": 0}, {"base_size": (0, 8)},
        {"max_class_share": 0.5}, {"max_class_share": 0.0, "crop": (4, 4)},
        {"max_class_share": 1.1, "crop": (4, 4)}, {"scales": ()},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.augment"):
        Augment(**options)
