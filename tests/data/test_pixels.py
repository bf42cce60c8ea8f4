"""Windows of resized label maps, and steps that copy no more than they must."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.data.pixels import cut_label, pad_image, pad_label, resize_label, to_tensor

SIZES = [(7, 9), (360, 480), (33, 1), (1, 50), (100, 100)]
TARGETS = [(1, 1), (5, 13), (270, 360), (341, 519), (720, 960), (33, 50), (99, 101)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("source", SIZES)
def test_a_window_of_a_resized_map_is_that_of_the_whole_one(
    source: tuple[int, int], dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 200, source).astype(dtype)
    for size in [*TARGETS, source]:
        whole = resize_label(torch.from_numpy(label), size).numpy()
        assert np.array_equal(cut_label(label, size), whole)
        top, left = int(rng.integers(size[0])), int(rng.integers(size[1]))
        window = (slice(top, top + 40), slice(left, left + 30))  # may lead beyond the map
        cut = cut_label(label, size, window)
        assert cut.dtype == dtype
        assert np.array_equal(cut, whole[window])


@pytest.mark.parametrize("length", range(1, 40))
def test_the_rule_is_that_of_torch_but_for_rounding_errors(length: int) -> None:
    for target in range(1, 90):
        found = cut_label(np.arange(length)[None], (1, target))[0]
        exact = [Fraction(2 * place + 1, 2 * target) * length for place in range(target)]
        assert found.tolist() == [math.floor(place) for place in exact]
        places = torch.arange(length, dtype=torch.float32)[None, None]
        other = torch.nn.functional.interpolate(places, target, mode="nearest-exact")[0, 0]
        differ = np.flatnonzero(other.numpy() != found).tolist()
        assert all(exact[place].denominator == 1 for place in differ)  # ties only


def test_nearest_takes_the_pixel_under_the_center() -> None:
    label = np.array([[10, 11, 12, 13]])
    assert cut_label(label, (1, 2)).tolist() == [[11, 13]]  # centers at 1.0 and 3.0
    assert cut_label(label, (1, 8)).tolist() == [[10, 10, 11, 11, 12, 12, 13, 13]]
    assert cut_label(label, (2, 3)).tolist() == [[10, 12, 13]] * 2  # at 0.67, 2.0 and 3.33


def test_a_cut_shares_no_memory_with_the_map() -> None:
    label = np.zeros((4, 4), np.uint8)
    for size in ((4, 4), (8, 8)):
        cut_label(label, size)[:] = 1
    assert not label.any()


def test_images_are_copied_only_where_a_tensor_cannot_share_them() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    assert np.shares_memory(to_tensor(image).numpy(), image)
    assert to_tensor(image).shape == (3, 4, 5)
    locked = image.copy()
    locked.flags.writeable = False
    for other in (locked, image[:, ::-1]):
        assert not np.shares_memory(to_tensor(other).numpy(), other)
        assert np.array_equal(to_tensor(other).permute(1, 2, 0).numpy(), other)


def test_what_has_its_size_is_not_padded() -> None:
    image, label = torch.zeros(3, 4, 5), torch.zeros(4, 5)
    assert pad_image(image, torch.zeros(3, 1, 1), (4, 5)) is image
    assert pad_label(label, "semantic", (4, 5)) is label
    assert pad_label(label, "semantic", (4, 6)).shape == (4, 6)
