from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtseg.data.classification import DRAWS, RandomPart
from rtseg.errors import ConfigError
from rtseg.structures import Sample

GRAY = (0.0, 0.0, 0.0)


def sample_of(height: int, width: int) -> Sample:
    """An image whose channels are row and column in percent, and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    image = np.stack([rows * 100 // height, columns * 100 // width, noise], -1).astype(np.uint8)
    return Sample(image, {"class": np.array(3, np.int64)}, path="x")


def applied(part: RandomPart, sample: Sample, seed: int = 0) -> Sample:
    return part(sample, np.random.default_rng(seed), padding_color=GRAY)


def extent(image: np.ndarray) -> tuple[float, float]:
    """Return the shares of height and width that a part of `sample_of` covers."""
    rows, columns = (np.ptp(image[..., channel]) / 100 for channel in (0, 1))
    return float(rows), float(columns)


def test_the_result_is_a_square_and_the_class_stays() -> None:
    sample = sample_of(60, 90)
    result = applied(RandomPart(size=32), sample)
    assert (result.image.shape, result.image.dtype) == ((32, 32, 3), np.float32)
    assert result.labels["class"] is sample.labels["class"]
    assert result.image.min() >= 0
    assert result.image.max() <= 255


def test_area_and_shape_of_the_part_stay_within_their_bounds() -> None:
    areas, ratios = [], []
    for seed in range(150):
        rows, columns = extent(
            applied(RandomPart(size=64, flip=0), sample_of(200, 200), seed).image
        )
        areas.append(rows * columns)
        ratios.append(columns / rows)
    assert 0.05 < min(areas) < 0.2
    assert max(areas) > 0.7
    assert 0.65 < min(ratios) < 0.85
    assert 1.15 < max(ratios) < 1.5
    assert 0.4 < np.mean(areas) < 0.6  # uniform from 0.08 to 1, but large ones fit less often


def test_the_part_moves_and_numbers_do_not_run_out_of_step() -> None:
    part, sample = RandomPart(size=8, area=(0.2, 0.2)), sample_of(100, 100)
    corners = {tuple(applied(part, sample, seed).image[0, 0, :2].round(1)) for seed in range(40)}
    assert len(corners) > 30
    rng, reference = np.random.default_rng(5), np.random.default_rng(5)
    part(sample, rng, padding_color=GRAY)
    reference.random(DRAWS)
    assert rng.random() == reference.random()


def test_the_ratio_is_width_over_height_and_the_place_has_its_own_numbers() -> None:
    part = RandomPart(size=40, area=(0.125, 0.125), ratio=(2.0, 2.0), flip=0)
    for seed in range(10):
        image = applied(part, sample_of(100, 100), seed).image
        assert extent(image) == pytest.approx((0.25, 0.5), abs=0.04)
        draws = np.random.default_rng(seed).random(DRAWS)[-3:-1]
        corner = [int(draws[0] * 76), int(draws[1] * 51)]
        assert image[0, 0, :2] == pytest.approx(corner, abs=1)


@pytest.mark.parametrize(("shape", "part"), [((100, 20), (0.25, 1.0)), ((20, 100), (1.0, 0.25))])
def test_where_no_part_fits_the_middle_is_taken(
    shape: tuple[int, int], part: tuple[float, float]
) -> None:
    whole = RandomPart(size=50, area=(1.0, 1.0), ratio=(0.8, 1.25), flip=0)
    image = applied(whole, sample_of(*shape)).image
    assert extent(image) == pytest.approx(part, abs=0.06)
    assert image[..., 0].mean() == pytest.approx(49.5, abs=3)
    assert image[..., 1].mean() == pytest.approx(49.5, abs=3)


def test_a_mirror_turns_the_part_around() -> None:
    images = [
        applied(RandomPart(size=16, flip=chance), sample_of(50, 50)).image for chance in (0, 1)
    ]
    assert np.array_equal(images[0][:, ::-1], images[1])


def test_label_maps_are_refused() -> None:
    maps = Sample(np.zeros((8, 8, 3), np.uint8), {"lane": np.zeros((8, 8), np.uint8)}, path="y")
    with pytest.raises(ConfigError, match="cannot change the lane labels of y; use `crop`"):
        applied(RandomPart(), maps)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"area": (0.0, 1.0)}, {"area": (0.5, 0.4)}, {"area": (0.5, 1.1)},
     {"ratio": (2.0, 1.0)}, {"flip": 1.5}],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.augment"):
        RandomPart(**options)
