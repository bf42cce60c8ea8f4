from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.data.weights import (
    ClassStatistics,
    class_statistics,
    class_weights,
    count_labels,
    summarize_counts,
)
from rtseg.errors import ConfigError, DataError
from rtseg.structures import ClassInfo, Sample

# Two images of 10 pixels: counts of classes a, b, c and void.
COUNTS = [[4, 4, 0, 2], [8, 0, 0, 2]]
STATISTICS = summarize_counts(COUNTS, ("a", "b", "c"))


def test_counts_are_added_up_by_hand() -> None:
    assert STATISTICS.pixels == (12, 4, 0)
    assert STATISTICS.void == 4
    assert STATISTICS.frames == (2, 1, 0)
    assert STATISTICS.frame_pixels == (20, 10, 0)
    assert STATISTICS.shares == (0.75, 0.25, 0.0)
    assert STATISTICS.images == 2


def test_inverse_log_uses_the_share_of_labelled_pixels() -> None:
    expected = (1 / math.log(1.77), 1 / math.log(1.27), 1 / math.log(1.02))
    assert class_weights(STATISTICS, scheme="inverse_log") == pytest.approx(expected)
    expected = (1 / math.log(1.85), 1 / math.log(1.35), 1 / math.log(1.1))
    assert class_weights(STATISTICS, scheme="inverse_log", offset=1.1) == pytest.approx(expected)


def test_median_frequency_divides_by_images_that_hold_the_class() -> None:
    # f_a = 12 / 20, f_b = 4 / 10, c occurs nowhere; median 0.5.
    weights = class_weights(STATISTICS, scheme="median_frequency")
    assert weights == pytest.approx((0.5 / 0.6, 0.5 / 0.4, 0.0))


def test_none_and_lists_are_taken_as_they_are() -> None:
    assert class_weights(STATISTICS, scheme="none") == (1.0, 1.0, 1.0)
    assert class_weights(STATISTICS) == (1.0, 1.0, 1.0)
    assert class_weights(STATISTICS, scheme=[1, 0, 2.5]) == (1.0, 0.0, 2.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": [1, 2]}, "2 numbers for 3 classes"),
        ({"scheme": [1, 2, -1]}, "from 0 up"),
        ({"scheme": [1, 2, math.nan]}, "finite"),
        ({"scheme": "inverse"}, "none, inverse_log, median_frequency"),
        ({"scheme": "inverse_log", "offset": 1.0}, "above 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_weights(STATISTICS, **options)  # type: ignore[arg-type]


def test_set_without_a_labelled_pixel_gives_finite_weights() -> None:
    empty = summarize_counts([[0, 0, 5]], ("a", "b"))
    for scheme in ("inverse_log", "median_frequency"):
        assert all(math.isfinite(weight) for weight in class_weights(empty, scheme=scheme))
    assert summarize_counts([], ("a", "b")) == ClassStatistics(
        ("a", "b"), pixels=(0, 0), void=0, frames=(0, 0), frame_pixels=(0, 0), images=0
    )


def test_label_beyond_the_classes_is_refused_with_its_file() -> None:
    labels = np.array([[0, 1, 255, 2]], dtype=np.uint8)
    assert count_labels(labels, num_classes=3) == [1, 1, 1, 1]
    with pytest.raises(DataError, match=r"x\.png: labels hold 2, but there are 2 classes"):
        count_labels(labels, num_classes=2, where="x.png")


class Drawn:
    classes = (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (1, 1, 1)), ClassInfo("c", (2, 2, 2)))
    kinds = ("semantic", "lane", "panoptic")

    def __init__(self, maps: list[np.ndarray]) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int, /) -> Sample:
        labels = {"semantic": self.maps[index], "lane": self.maps[index] // 2 * 255}
        return Sample(np.zeros((*self.maps[index].shape, 3), dtype=np.uint8), labels)


@settings(max_examples=30, deadline=None)
@given(
    maps=st.lists(
        st.lists(st.sampled_from([0, 1, 2, 255]), min_size=6, max_size=6), min_size=1, max_size=5
    ),
    workers=st.integers(1, 3),
)
def test_statistics_equal_counting_one_by_one(maps: list[list[int]], workers: int) -> None:
    arrays = [np.array(values, dtype=np.uint8).reshape(2, 3) for values in maps]
    counted = class_statistics(Drawn(arrays), workers=workers)
    for index in range(3):
        holding = [values for values in maps if index in values]
        assert counted.pixels[index] == sum(values.count(index) for values in maps)
        assert counted.frames[index] == len(holding)
        assert counted.frame_pixels[index] == 6 * len(holding)
    assert counted.void == sum(values.count(255) for values in maps)


def test_binary_kinds_have_two_classes_and_panoptic_cannot_be_counted() -> None:
    drawn = Drawn([np.array([[0, 2]], dtype=np.uint8)])
    lane = class_statistics(drawn, kind="lane")
    assert (lane.names, lane.pixels, lane.void) == (("background", "lane"), (1, 0), 1)
    for kind in ("panoptic", "drivable"):
        with pytest.raises(ConfigError, match="choose from: semantic, lane"):
            class_statistics(drawn, kind=kind)
