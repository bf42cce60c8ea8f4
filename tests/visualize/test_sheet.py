from __future__ import annotations

import numpy as np
import pytest

from rtseg import visualize
from rtseg.visualize.sheet import hatch, key_strip

RED, BLUE = (250, 0, 9), (3, 5, 240)
STRIPES = ((150, 150, 150), (215, 215, 215))


def count(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((pixels == np.array(color, np.uint8)).all(axis=-1).sum())


def test_stripes_run_down_to_the_left_in_two_grays() -> None:
    stripes = hatch(4, 6)  # stripes are 2 pixels wide
    expected = [[(row + column) // 2 % 2 for column in range(6)] for row in range(4)]
    assert stripes.tolist() == [[list(STRIPES[part]) for part in row] for row in expected]
    assert np.array_equal(hatch(1, 1200)[0, :20], np.repeat([STRIPES[0], STRIPES[1]], 10, axis=0))


def test_only_the_marked_part_is_hatched_and_mixed() -> None:
    picture = np.full((4, 6, 3), (100, 0, 255), np.uint8)
    where = np.zeros((4, 6), np.bool_)
    where[1:3, 2:] = True
    marked = visualize.hatched(picture, where, alpha=0.6)
    assert np.array_equal(marked[~where], picture[~where])
    # .4 * 100 + .6 * 150 = 130, .6 * 150 = 90, .4 * 255 + .6 * 150 = 192; and with 215
    assert marked[1, 3].tolist() == [130, 90, 192]
    assert marked[1, 2].tolist() == [169, 129, 231]
    assert (picture == (100, 0, 255)).all()


def test_a_key_shows_each_color_and_stripes_for_what_has_none() -> None:
    strip = key_strip([("road", RED), ("void", None), ("car", BLUE)], 400)
    assert strip.shape == (36, 400, 3)
    boxes = [np.flatnonzero((strip == np.array(c)).all(-1).any(0)) for c in (RED, STRIPES[0], BLUE)]
    assert boxes[0].max() < boxes[1].min() <= boxes[1].max() < boxes[2].min()
    assert 16 * 16 - 40 < count(strip, RED) <= 16 * 16  # rounded corners
    assert count(strip, STRIPES[0]) + count(strip, STRIPES[1]) == 16 * 16


def test_a_key_runs_over_several_lines() -> None:
    entries = [(f"a name {index}", (index + 1, 0, 0)) for index in range(20)]
    one, several = key_strip(entries[:1], 300), key_strip(entries, 300)
    assert several.shape[0] > 3 * one.shape[0]
    for _, color in entries:
        assert count(several, color) > 150


def test_a_sheet_stacks_heading_key_and_pictures() -> None:
    pictures = [np.full((30, 100, 3), color, np.uint8) for color in (RED, BLUE, RED)]
    plain = visualize.contact_sheet(pictures, titles=list("abc"), columns=2, cell_width=100)
    key = key_strip([("car", (1, 200, 2))], 640)
    sheet = visualize.label_sheet(
        pictures, titles=list("abc"), heading="h", key=[("car", (1, 200, 2))], columns=2,
        cell_width=100,
    )  # fmt: skip
    assert sheet.shape == (42 + 36 + plain.shape[0], 640, 3)  # wide enough for a heading
    assert np.array_equal(sheet[42:78], key)
    assert np.array_equal(sheet[78:, : plain.shape[1]], plain)
    assert (sheet[78:, plain.shape[1] :] == 255).all()
    noted = visualize.label_sheet(pictures, titles=list("abc"), heading="h", note="n", columns=2)
    assert not (noted[42:66] == 255).all()
    assert [bool((part[:42] < 100).any()) for part in (sheet, noted)] == [True, True]
    empty = visualize.label_sheet(pictures, titles=list("abc"), heading="")
    assert (empty[:42] == 255).all()
    assert count(noted, (1, 200, 2)) == 0


def test_a_narrow_picture_stands_in_the_middle_with_its_caption_above_it() -> None:
    pictures = [np.full((20, width, 3), RED, np.uint8) for width in (300, 200)]
    sheet = visualize.contact_sheet(pictures, titles=["aaa", "aaa"], columns=1, cell_width=300)
    rows = [12 + 26 + 10, 12 + 26 + 20 + 12 + 26 + 10]
    spans = [np.flatnonzero((sheet[row] == np.array(RED)).all(-1)) for row in rows]
    assert [(span[0], span[-1] + 1) for span in spans] == [(12, 312), (62, 262)]
    text = [sheet[12:36], sheet[12 + 26 + 32 : 36 + 26 + 32]]
    starts = [np.flatnonzero((part < 128).all(-1).any(0))[0] for part in text]
    assert starts[1] - starts[0] == 50


@pytest.mark.parametrize(("width", "result"), [(50, (5, 50)), (100, (10, 100)), (250, (20, 200))])
def test_pictures_are_shrunk_or_enlarged_by_whole_factors(
    width: int, result: tuple[int, int]
) -> None:
    picture = np.full((10, 100, 3), RED, np.uint8)
    fitted = visualize.fit_width(picture, width)
    assert fitted.shape[:2] == result
    assert (fitted == RED).all()
