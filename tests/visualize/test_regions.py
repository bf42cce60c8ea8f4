from __future__ import annotations

import numpy as np
import pytest

from rtseg import visualize
from rtseg.visualize import KeyEntry, Region

BLUE = (0, 0, 142)


def square(top, left, side, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_box_is_tight_and_none_for_an_empty_mask():
    assert visualize.bounding_box(square(3, 5, 4)) == (5, 3, 9, 7)
    assert visualize.bounding_box(np.zeros((4, 4), bool)) is None


def test_edge_lies_inside_and_is_as_wide_as_asked():
    mask = square(2, 2, 6, (10, 10))
    one, two = (visualize.inner_edge(mask, width=width) for width in (1, 2))
    assert one.sum() == 36 - 16
    assert two.sum() == 36 - 4
    assert not (two & ~mask).any()
    assert visualize.inner_edge(np.ones((3, 3), bool)).sum() == 8  # the border is outside
    diagonal = visualize.inner_edge(np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0]], bool))
    assert not diagonal[1, 1]  # corners do not count as neighbors


def test_the_first_object_has_the_class_color_and_the_others_differ():
    colors = [visualize.vary_color(BLUE, number) for number in range(8)]
    assert colors[0] == BLUE
    assert len(set(colors)) == 8
    assert all(color[2] == max(color) for color in colors), "still blue"
    grays = [visualize.vary_color((128, 128, 128), number) for number in range(8)]
    assert len(set(grays)) == 8
    assert all(len(set(gray)) == 1 for gray in grays)


def test_alpha_mixes_inside_and_nothing_changes_outside():
    image = np.full((40, 60, 3), 100, np.uint8)
    region = Region(square(10, 10, 20), (200, 0, 50), outlined=False)
    painted = visualize.paint_regions(image, (40, 60), [region], alpha=0.25)
    assert painted[20, 20].tolist() == [125, 75, 88]  # 87.5 rounds to the even number
    assert np.array_equal(painted[~region.mask], image[~region.mask])
    assert (image == 100).all()
    outlined = region._replace(outlined=True)
    rim = visualize.paint_regions(image, (40, 60), [outlined], alpha=0.0)
    assert rim[20, 20].tolist() == [100, 100, 100]
    assert rim[10, 10].tolist() == [233, 153, 173]  # 0.4 of the color and 0.6 of white


def test_later_regions_lie_on_top():
    below, above = (Region(square(0, 0, 30), color, outlined=False) for color in (BLUE, (9, 9, 9)))
    painted = visualize.paint_regions(None, (40, 60), [below, above])
    assert painted[20, 20].tolist() == [9, 9, 9]


def test_tags_do_not_meet_and_stay_inside():
    image = np.zeros((120, 200, 3), np.uint8)
    color = (0, 250, 0)
    regions = [
        Region(square(50, 60, 20, (120, 200)), color, outlined=False, label=f"car 0.{number}")
        for number in range(6)
    ]
    painted = visualize.paint_regions(image, (120, 200), regions, alpha=0.0)
    green = (painted == np.array(color, np.uint8)).all(-1)
    rows = np.flatnonzero(green.any(1))
    assert 3 * 12 <= len(rows) <= 3 * 16, "above, inside and below: three tags of six"
    corner = [Region(square(0, 198, 2, (120, 200)), color, outlined=False, label="a long name")]
    tag = visualize.paint_regions(image, (120, 200), corner, alpha=0.0)
    assert (tag == np.array(color, np.uint8)).all(-1).sum() > 300
    assert visualize.paint_regions(image[:8, :8], (8, 8), [
        Region(np.ones((8, 8), bool), color, label="wider than the picture")
    ]).shape == (8, 8, 3)  # fmt: skip


@pytest.mark.parametrize(("color", "dark"), [((250, 240, 230), True), ((0, 0, 90), False)])
def test_tags_are_readable_on_any_color(color, dark):
    region = Region(square(40, 60, 20, (120, 200)), color, outlined=False, label="car")
    painted = visualize.paint_regions(None, (120, 200), [region])
    tag = painted[22:40, 60:90]
    assert (tag.max(-1) < 90).any() == (dark or color == (0, 0, 90))
    assert (tag.min(-1) > 240).any() == (not dark)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_impossible_shares_are_refused(alpha):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="it must be 0 to 1"):
        visualize.paint_regions(image, (8, 8), [], alpha=alpha)
    with pytest.raises(ValueError, match="it must be 0 to 1"):
        visualize.write_lines(image, ["a"], alpha=alpha)


# ---------------------------------------------------------------- keys and lines
def test_a_key_shows_as_many_entries_as_fit():
    entries = [KeyEntry((10 * index, 200, 3), f"name {index}") for index in range(20)]
    panel = visualize.key_panel(entries, height=100)
    assert panel.shape[0] == 100
    shown = [bool((panel == np.array(entry.color, np.uint8)).all(-1).any()) for entry in entries]
    assert shown == [True] * sum(shown) + [False] * (20 - sum(shown))
    assert 0 < sum(shown) < 20
    tall = visualize.key_panel(entries, height=800)
    assert (tall == np.array(entries[-1].color, np.uint8)).all(-1).any()
    assert visualize.key_panel([], height=40).shape[0] == 40


def test_lines_are_written_on_a_dark_field_of_their_size():
    image = np.full((200, 300, 3), 200, np.uint8)
    lines = visualize.write_lines(image, ["90 %  car", "5 %  road"], alpha=0.5)
    assert (image == 200).all()
    field = (lines != 200).any(-1)
    assert field[0, 0]
    assert lines[0, 0].tolist() == [100, 100, 100]
    assert not field[:, 250:].any()
    assert not field[150:].any()
    assert (lines == 255).all(-1).any()
    assert np.array_equal(visualize.write_lines(image, [], alpha=1.0)[50:], image[50:])
