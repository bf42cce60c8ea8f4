from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtseg import visualize


def fill(ring, shape):
    """Even-odd rule at pixel centres, one vertical edge at a time."""
    inside = np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
        assert (x1 == x2) != (y1 == y2)
        if x1 == x2:
            inside ^= (y > min(y1, y2)) & (y < max(y1, y2)) & (x < x1)
    return inside


def signed_area(ring):
    following = ring[1:] + ring[:1]
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, following, strict=True)) / 2


def connected(mask):
    """Count 4-connected regions by flood fill."""
    seen, count = np.zeros(mask.shape, bool), 0
    for start in zip(*np.nonzero(mask != 255), strict=True):
        if seen[start]:
            continue
        count += 1
        stack = [start]
        seen[start] = True
        while stack:
            row, column = stack.pop()
            around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            for r, c in around:
                within = 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]
                if within and not seen[r, c] and mask[r, c] == mask[row, column]:
                    seen[r, c] = True
                    stack.append((r, c))
    return count


@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
        elements=st.sampled_from([0, 1, 255]),
    )
)
@settings(max_examples=150, deadline=None)
def test_filling_the_polygons_gives_the_mask_back(mask):
    again = np.full(mask.shape, 255, np.uint8)
    regions = visualize.mask_to_polygons(mask)
    for region in regions:
        inside = fill(region["polygon"], mask.shape)
        assert signed_area(region["polygon"]) > 0  # clockwise, as y points down
        for ring in [region["polygon"], *region["holes"]]:
            assert len(set(ring)) == len(ring)  # meets itself nowhere
        for hole in region["holes"]:
            assert signed_area(hole) < 0
            inside &= ~fill(hole, mask.shape)
        assert inside.sum() == region["area"]
        assert (again[inside] == 255).all()
        again[inside] = region["class_id"]
    assert np.array_equal(again, mask)
    assert len(regions) == connected(mask)


def test_ring_with_hole_by_hand():
    mask = np.full((4, 5), 255, np.uint8)
    mask[:3, 1:4] = 2
    mask[1, 2] = 255
    (region,) = visualize.mask_to_polygons(mask)
    assert (region["class_id"], region["area"]) == (2, 8)
    assert sorted(region["polygon"]) == [(1, 0), (1, 3), (4, 0), (4, 3)]
    (hole,) = region["holes"]
    assert sorted(hole) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    plain = [type(value) for point in region["polygon"] for value in point]
    assert set(plain) == {int}  # JSON takes no NumPy integers


def test_hole_that_touches_the_outside_in_a_corner_is_a_ring_of_its_own():
    mask = np.array([[255, 1, 1], [1, 255, 1], [1, 1, 1]], np.uint8)
    (region,) = visualize.mask_to_polygons(mask)
    assert region["area"] == 7
    assert len(region["polygon"]) == 6
    assert [sorted(hole) for hole in region["holes"]] == [[(1, 1), (1, 2), (2, 1), (2, 2)]]


def test_diagonal_pixels_are_two_regions_and_small_regions_are_left_out():
    mask = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    regions = visualize.mask_to_polygons(mask)
    assert [(r["class_id"], r["area"]) for r in regions] == [(1, 3), (0, 1), (1, 1), (0, 1)]
    assert len(visualize.mask_to_polygons(mask, min_area=2)) == 1
    assert len(visualize.mask_to_polygons(mask, min_area=3)) == 1
    assert visualize.mask_to_polygons(mask, min_area=4) == []
    assert visualize.mask_to_polygons(np.full((3, 3), 255, np.uint8)) == []
    assert visualize.mask_to_polygons(np.zeros((0, 3), np.uint8)) == []
