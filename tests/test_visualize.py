from __future__ import annotations

import base64
import io
import os
import stat
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rtseg import visualize
from rtseg.errors import DataError
from rtseg.visualize.charts import ticks

PALETTE = ((250, 10, 90), (0, 200, 30), (7, 8, 240))  # no two channels alike: a swap shows
NAMES = ("road", "car", "sky")


def photo(height=12, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def has_color(pixels, color):
    return bool((pixels == np.array(color, np.uint8)).all(axis=-1).any())


# ---------------------------------------------------------------- overlay
def test_colorize_paints_rgb_of_the_class_and_black_elsewhere():
    mask = np.array([[0, 1], [2, 255], [3, 254]], np.uint8)
    expected = [[PALETTE[0], PALETTE[1]], [PALETTE[2], (0, 0, 0)], [(0, 0, 0), (0, 0, 0)]]
    assert visualize.colorize(mask, PALETTE).tolist() == [list(map(list, r)) for r in expected]


def test_overlay_at_the_ends_is_exactly_the_image_or_the_colors():
    image = photo()
    mask = np.random.default_rng(1).integers(0, 3, image.shape[:2], dtype=np.uint8)
    assert np.array_equal(visualize.overlay(image, mask, PALETTE, alpha=0.0), image)
    painted = visualize.overlay(image, mask, PALETTE, alpha=1.0)
    assert np.array_equal(painted, visualize.colorize(mask, PALETTE))


def test_overlay_mixes_by_alpha():
    image = np.array([[[100, 0, 255]]], np.uint8)
    half = visualize.overlay(image, np.zeros((1, 1), np.uint8), PALETTE, alpha=0.5)
    assert half.tolist() == [[[175, 5, 173]]]  # (100+250)/2, (0+10)/2, (255+90)/2 rounded up
    quarter = visualize.overlay(image, np.zeros((1, 1), np.uint8), PALETTE, alpha=0.25)
    assert quarter.tolist() == [[[138, 3, 214]]]  # 137.5, 2.5, 213.75 rounded


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.int16])
def test_void_and_unknown_classes_stay_unpainted_at_any_alpha(dtype):
    image = photo(1, 3)
    mask = np.array([[255, 3, 0]], dtype)
    painted = visualize.overlay(image, mask, PALETTE, alpha=1.0)
    assert np.array_equal(painted[0, :2], image[0, :2])
    assert painted[0, 2].tolist() == list(PALETTE[0])
    alone = visualize.overlay(None, mask, PALETTE)
    assert alone.tolist() == [[[0, 0, 0], [0, 0, 0], list(PALETTE[0])]]


def test_255_is_a_class_only_in_maps_of_more_than_255_classes():
    palette = [(index % 251, index // 251, 7) for index in range(300)]
    wide = np.array([[255, 256, 299, 300]], np.uint16)
    assert visualize.colorize(wide, palette)[0].tolist() == [
        list(palette[255]),
        list(palette[256]),
        list(palette[299]),
        [0, 0, 0],
    ]
    assert visualize.colorize(wide[:, :1].astype(np.uint8), palette)[0, 0].tolist() == [0, 0, 0]
    assert len(visualize.mask_to_polygons(wide)) == 4


def test_overlay_leaves_its_inputs_alone():
    image, mask = photo(), np.zeros((12, 16), np.uint8)
    before = image.copy(), mask.copy()
    image.flags.writeable = mask.flags.writeable = False
    shown = visualize.overlay(image, mask, PALETTE, legend=NAMES)
    assert not np.shares_memory(shown, image)
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_legend_adds_a_panel_with_the_classes_that_occur():
    image = photo(200, 300)
    mask = np.zeros((200, 300), np.uint8)
    mask[:40] = 2
    plain = visualize.overlay(image, mask, PALETTE)
    full = visualize.overlay(image, mask, PALETTE, legend=NAMES)
    assert full.dtype == np.uint8
    assert full.shape[0] == 200
    assert full.shape[1] > 300
    assert np.array_equal(full[:, :300], plain)
    panel = full[:, 300:]
    rows = {
        index: np.flatnonzero((panel == np.array(PALETTE[index])).all(-1).any(1))
        for index in range(3)
    }
    assert len(rows[1]) == 0
    assert rows[0].max() < rows[2].min()  # 80 % road stands above 20 % sky
    assert (panel.min(axis=-1) < 100).any()  # text


@pytest.mark.parametrize("size", [(8, 8), (32, 40), (1, 1)])
def test_legend_of_many_classes_fits_small_pictures(size):
    mask = np.arange(size[0] * size[1]).reshape(size) % 19
    palette = [(index, 99, 3) for index in range(19)]
    names = [f"a rather long class name {index}" for index in range(19)]
    full = visualize.overlay(None, mask.astype(np.uint8), palette, legend=names)
    assert full.shape[0] == size[0]


@pytest.mark.parametrize(
    ("image", "mask", "alpha", "message"),
    [
        (photo(4, 4), np.zeros((4, 5), np.uint8), 0.5, r"\(4, 4\).*\(4, 5\)"),
        (photo(4, 4), np.zeros((4, 4), np.uint8), 1.5, "alpha is 1.5"),
        (photo(4, 4)[..., 0], np.zeros((4, 4), np.uint8), 0.5, "must be uint8"),
        (None, np.zeros((4, 4, 1), np.uint8), 0.5, r"mask must be \(H, W\)"),
    ],
)
def test_overlay_refuses_what_does_not_fit(image, mask, alpha, message):
    with pytest.raises(ValueError, match=message):
        visualize.overlay(image, mask, PALETTE, alpha=alpha)


def test_comparison_marks_wrong_pixels_red_and_nothing_else():
    truth = np.zeros((40, 60), np.uint8)
    right = visualize.comparison(photo(40, 60), truth, truth, PALETTE, NAMES)
    wrong = visualize.comparison(photo(40, 60), truth, np.ones_like(truth), PALETTE, NAMES)
    void = visualize.comparison(
        photo(40, 60), np.full_like(truth, 255), np.ones_like(truth), PALETTE, NAMES
    )
    red = np.array([225, 29, 72], np.uint8)
    counts = [int((picture == red).all(-1).sum()) for picture in (right, wrong, void)]
    enlarged = 8 * 8 * 40 * 60  # 480 // 60 = 8 times
    assert counts[0] == counts[2] < 300  # the box of the key
    assert counts[1] == counts[0] + enlarged
    captions = [picture[:36] for picture in (right, wrong, void)]
    assert np.array_equal(captions[0], captions[2])  # 0.0 %
    assert not np.array_equal(captions[0], captions[1])  # 100.0 %


def test_contact_sheet_holds_every_picture_unchanged_and_refuses_bad_input():
    images = [np.full((30, 100, 3), color, np.uint8) for color in PALETTE]
    sheet = visualize.contact_sheet(images, titles=["a", "b", "c"], columns=2, cell_width=100)
    for color in PALETTE:
        assert (sheet == np.array(color, np.uint8)).all(-1).sum() == 30 * 100
    assert sheet.shape[1] == 2 * 100 + 3 * 12
    with pytest.raises(ValueError, match="at least one"):
        visualize.contact_sheet([])
    with pytest.raises(ValueError, match="1 titles for 3"):
        visualize.contact_sheet(images, titles=["a"])


# ---------------------------------------------------------------- charts
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(3, 9))
def test_ticks_enclose_the_range_at_even_round_steps(low, extent, count):
    values = ticks(low, low + extent, count=count)
    steps = np.diff(values)
    slack = 1e-6 * max(abs(low), abs(low + extent), 1)
    assert values[0] <= low + slack
    assert values[-1] >= low + extent - slack
    assert 2 <= len(values) <= count + 3
    assert steps == pytest.approx(steps[0], rel=1e-3)


def test_ticks_of_known_ranges():
    assert ticks(0, 1, count=5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.13, 2.31, count=5) == [0, 0.5, 1, 1.5, 2, 2.5]
    assert ticks(0, 80000, count=8) == [10000.0 * index for index in range(9)]


def test_curves_draw_every_series_in_its_color_at_the_right_height():
    chart = visualize.curves(
        {"low": [(0, 0), (10, 0)], "high": [(0, 1), (10, 1)]},
        title="t",
        xlabel="x",
        ylabel="y",
        width=400,
        height=300,
    )
    assert chart.shape == (300, 400, 3)
    body = chart[70:, 200]
    blue = np.flatnonzero((body == (37, 99, 235)).all(-1))
    orange = np.flatnonzero((body == (234, 88, 12)).all(-1))
    assert abs(orange.mean() + 70 - 78) <= 2  # the top of the axes
    assert abs(blue.mean() + 70 - 234) <= 2  # the bottom


@pytest.mark.parametrize(
    "points",
    [[], [(1, 0.5)], [(0, float("nan")), (1, 2.0), (2, float("inf"))], [(3, 7), (3, 7)]],
)
def test_curves_bear_empty_single_and_broken_series(points):
    chart = visualize.curves({"a": points}, title="t", xlabel="x", ylabel="y")
    assert chart.shape == (460, 960, 3)


def test_bar_length_is_the_share():
    picture = visualize.bar_chart(
        {"full": 1.0, "half": 0.5, "none": None, "zero": 0.0}, title="IoU", colors=[(200, 0, 0)]
    )
    lengths = [int((picture[56 + 28 * row + 14] == (200, 0, 0)).all(-1).sum()) for row in range(4)]
    assert lengths[0] > 700
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=2)
    assert lengths[2:] == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 11, 19, 60])
def test_confusion_picture_is_darkest_on_the_diagonal(count):
    names = [f"class {index}" for index in range(count)]
    dark, light = (8, 60, 140), (247, 250, 255)
    picture = visualize.confusion_picture(np.eye(count, dtype=np.int64) * 7, names)
    assert has_color(picture, dark)
    empty = visualize.confusion_picture(np.zeros((count, count), np.int64), names)
    assert not (empty[:, :-80] == np.array(dark)).all(-1).any()
    if count > 1:
        assert has_color(picture, light)


def test_rows_of_the_confusion_picture_are_the_truth():
    matrix = np.zeros((3, 3), np.int64)
    matrix[0, 2] = 5
    names = ["a", "b", "c"]
    body = visualize.confusion_picture(matrix, names)[:, :-80]
    diagonal = visualize.confusion_picture(np.eye(3, dtype=np.int64), names)[:, :-80]
    rows, columns = np.nonzero((body == (8, 60, 140)).all(-1))
    all_rows, all_columns = np.nonzero((diagonal == (8, 60, 140)).all(-1))
    assert rows.min() == all_rows.min()
    assert rows.max() < all_rows.min() + 60
    assert columns.max() == all_columns.max()
    assert columns.min() > all_columns.max() - 60


def test_confusion_picture_is_normalized_by_row():
    few = visualize.confusion_picture(np.array([[3, 1], [0, 2]]), ["a", "b"])
    many = visualize.confusion_picture(np.array([[3000, 1000], [0, 2]]), ["a", "b"])
    turned = visualize.confusion_picture(np.array([[3, 0], [1, 2]]), ["a", "b"])
    assert np.array_equal(few, many)
    assert not np.array_equal(few, turned)
    with pytest.raises(ValueError, match="3 class names"):
        visualize.confusion_picture(np.eye(2), ["a", "b", "c"])


# ---------------------------------------------------------------- files
def test_written_mask_holds_class_ids_and_colors(tmp_path):
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    path = visualize.write_mask(tmp_path / "new" / "folder" / "mask.png", mask, PALETTE)
    image = Image.open(path)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), mask)
    assert np.array_equal(np.asarray(image.convert("RGB"))[0, :3], PALETTE)
    assert list(path.parent.iterdir()) == [path]


def test_mask_of_many_classes_is_sixteen_bit(tmp_path):
    mask = np.array([[0, 255, 256, 65535]], np.uint16)
    visualize.write_mask(tmp_path / "mask.png", mask, [(0, 0, 0)] * 300)
    image = Image.open(tmp_path / "mask.png")
    assert image.mode == "I;16"
    assert np.array_equal(np.asarray(image), mask)


def test_image_comes_back_in_rgb_and_suffix_chooses_the_format(tmp_path):
    image = photo()
    assert np.array_equal(
        np.asarray(Image.open(visualize.write_image(tmp_path / "a.png", image))), image
    )
    assert Image.open(visualize.write_image(tmp_path / "a.JPG", image)).format == "JPEG"
    with pytest.raises(DataError, match=r"a\.gif: picture format '\.gif' is unknown"):
        visualize.write_image(tmp_path / "a.gif", image)
    with pytest.raises(DataError, match=r"name it \*\.png"):
        visualize.write_mask(tmp_path / "a.jpg", image[..., 0], PALETTE)
    with pytest.raises(ValueError, match="float64"):
        visualize.write_image(tmp_path / "a.png", image / 255)


def test_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path, monkeypatch):
    path = visualize.write_text(tmp_path / "page.html", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"page\.html: cannot be written: No space left") as caught:
        visualize.write_text(path, "new")
    assert "free space" in caught.value.fix
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        visualize.write_text(tmp_path / "file" / "page.html", "text")


def test_written_files_have_the_usual_permissions(tmp_path):
    path = visualize.write_text(tmp_path / "a.txt", "text")
    (tmp_path / "b.txt").write_text("text")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")}
    assert path.exists()
    assert len(modes) == 1


def test_data_uri_decodes_to_the_same_pixels():
    head, _, body = visualize.png_data_uri(photo()).partition(",")
    assert head == "data:image/png;base64"
    decoded = Image.open(io.BytesIO(base64.b64decode(body)))
    assert np.array_equal(np.asarray(decoded), photo())


# ---------------------------------------------------------------- report page
class Checker(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses, self.alts, self.text = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        self.alts += [v for k, v in attrs if k == "alt"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole_escaped_and_needs_nothing_else():
    bad = "<script>alert('&\"')</script>"
    table = visualize.Table([bad, "n"], [[bad, 12345], [bad, 0.25], ["x", None]], caption=bad)
    section = visualize.Section(bad, [bad, table, visualize.Picture(photo(), bad)])
    page = visualize.html_page(bad, [section, section], subtitle=bad, footer=bad)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.seen
    assert checker.text.count(bad) == 1 + 1 + 1 + 1 + 2 * 7  # title twice, lead, foot, sections
    assert checker.alts == [bad, bad]
    assert checker.seen.count("img") == 2
    assert all(address.startswith("data:image/png;base64,") for address in checker.addresses)
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    for written in ("12,345", "0.2500", "n/a"):
        assert written in checker.text


def test_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="2 headers"):
        visualize.Table(["a", "b"], [["only one"]])


def test_pictures_need_neither_torch_nor_matplotlib():
    code = "import sys, rtseg.visualize; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
