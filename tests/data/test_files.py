from __future__ import annotations

import contextlib
import io
import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from data.broken import png
from rtseg.data.decode import exif_orientation
from rtseg.data.files import (
    FileFaultError,
    LabelTable,
    Limits,
    list_images,
    open_image,
    pack_color,
    read_image,
    read_mask,
    read_sample,
    require_fit,
)

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


# ---------------------------------------------------------------- images
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_formats_return_the_stored_rgb_pixels(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    image = read_image(save(tmp_path / f"x{suffix}", RGB, **options))
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)


def test_jpeg_is_decoded_as_rgb_and_not_as_bgr(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 250
    image = read_image(save(tmp_path / "x.jpg", red, quality=95))
    assert image.shape == (16, 16, 3)
    assert abs(image.astype(int) - [250, 0, 0]).max() <= 4


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        image = read_image(save(tmp_path / f"x{suffix}", RGB[..., 0]))
        np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, axis=2))


def test_alpha_is_dropped_and_does_not_change_colours(tmp_path: Path) -> None:
    alpha = np.zeros((5, 7, 1), dtype=np.uint8)
    image = read_image(save(tmp_path / "x.png", np.concatenate([RGB, alpha], axis=2)))
    np.testing.assert_array_equal(image, RGB)


def test_palette_image_returns_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    picture.putdata([0, 1])
    picture.putpalette([10, 20, 30, 40, 50, 60])
    image = read_image(save(tmp_path / "x.png", picture))
    assert image.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_orientation_tag_is_reported_but_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.png", RGB, exif=exif.tobytes())
    assert exif_orientation(open_image(path)) == 6
    np.testing.assert_array_equal(read_image(path), RGB)
    assert exif_orientation(open_image(save(tmp_path / "y.png", RGB))) == 1


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"]),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_damaged_file_is_read_or_named_but_never_gives_another_error(
    kind: str, damage: list[tuple[int, int]], cut: int
) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    options = {} if kind in {"BMP", "PPM"} else {"exif": exif.tobytes()}
    Image.fromarray(RGB).save(stream, format=kind, **options)
    data = bytearray(stream.getvalue())
    for position, value in damage:
        data[position % len(data)] = value
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "x"
        path.write_bytes(data[: len(data) - cut])
        for read in (read_image, read_mask, lambda path: exif_orientation(open_image(path))):
            with contextlib.suppress(FileFaultError):
                read(path)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (Limits(min_size=5, max_pixels=35), None),
        (Limits(min_size=6), "too_small"),
        (Limits(max_pixels=34), "too_large"),
    ],
)
def test_limits_hold_to_the_pixel(tmp_path: Path, limits: Limits, kind: str | None) -> None:
    path = save(tmp_path / "x.png", RGB)
    if kind is None:
        assert read_image(path, limits=limits).shape == (5, 7, 3)
        return
    with pytest.raises(FileFaultError) as error:
        read_image(path, limits=limits)
    assert error.value.kind == kind


def test_error_names_file_and_remedy_and_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(FileFaultError) as error:
        read_image(tmp_path / "gone.png")
    copy = pickle.loads(pickle.dumps(error.value))
    assert copy.kind == "missing_image"
    assert str(copy) == str(error.value)
    assert str(tmp_path / "gone.png") in str(copy)
    assert copy.fix
    assert copy.exit_code == 3


def test_folder_listing_is_sorted_and_leaves_out_other_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]
    assert list_images(tmp_path / "gone") == []


# ---------------------------------------------------------------- masks
IDS = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=np.uint8)


def test_8_bit_grey_and_4_bit_palette_give_the_same_ids(tmp_path: Path) -> None:
    grey = read_mask(save(tmp_path / "grey.png", IDS))
    palette = Image.fromarray(IDS)
    palette.putpalette([200, 100, 50] * 16)
    indexed = read_mask(save(tmp_path / "palette.png", palette, bits=4))
    np.testing.assert_array_equal(grey, IDS)
    np.testing.assert_array_equal(indexed, IDS)
    assert grey.dtype == indexed.dtype == np.uint8


def test_grey_of_2_and_4_bits_gives_the_stored_ids_and_not_stretched_ones(tmp_path: Path) -> None:
    two = [bytes([0b00011011]), bytes([0b11100100])]
    four = [bytes([0x01, 0x23]), bytes([0x32, 0x10])]
    for depth, rows in ((2, two), (4, four)):
        path = tmp_path / f"{depth}.png"
        path.write_bytes(png(rows, width=4, depth=depth, color_type=0))
        np.testing.assert_array_equal(read_mask(path), IDS)


def test_1_bit_mask_holds_0_and_1(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "x.png", IDS > 1))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, IDS > 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_values_above_255_survive(tmp_path: Path, suffix: str) -> None:
    raw = np.array([[7, 26000], [65535, 256]], dtype=np.uint16)
    mask = read_mask(save(tmp_path / f"x{suffix}", raw))
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, raw)


def test_rgb_mask_needs_a_colour_table_and_an_index_mask_must_not_have_one(tmp_path: Path) -> None:
    colored, indexed = save(tmp_path / "rgb.png", RGB), save(tmp_path / "index.png", IDS)
    np.testing.assert_array_equal(read_mask(colored, color=True), RGB)
    for path, color in ((colored, False), (indexed, True)):
        with pytest.raises(FileFaultError, match="color_map") as error:
            read_mask(path, color=color)
        assert error.value.kind == "channel_count"


# ---------------------------------------------------------------- label tables
def test_table_is_applied_once_so_that_two_classes_can_be_swapped() -> None:
    table = LabelTable({0: 1, 1: 0, 255: 255})
    raw = np.array([[0, 1, 255]], dtype=np.uint8)
    assert table.apply(raw).tolist() == [[1, 0, 255]]


def test_16_bit_values_are_translated() -> None:
    table = LabelTable({26000: 3, 256: 255, 0: 0})
    assert table.apply(np.array([[26000, 256, 0]], dtype=np.uint16)).tolist() == [[3, 255, 0]]


def test_value_without_a_label_is_named_with_file_and_remedy() -> None:
    table = LabelTable({0: 0, 255: 255}, remedy="extend the map")
    with pytest.raises(FileFaultError, match=r"dir/x\.png.* 5 9; extend the map") as error:
        table.apply(np.array([[9, 0, 5, 9]], dtype=np.uint8), where="dir/x.png")
    assert error.value.kind == "value_outside_map"


def test_long_lists_of_values_are_cut() -> None:
    with pytest.raises(FileFaultError, match="1 2 3 4 5 6 7 8 and 3 more"):
        LabelTable({0: 0}).apply(np.arange(12, dtype=np.uint8)[None])


def test_colours_are_translated_and_unknown_ones_are_named() -> None:
    table = LabelTable({pack_color(128, 64, 128): 0, pack_color(0, 0, 142): 1}, color=True)
    raw = np.array([[[0, 0, 142], [128, 64, 128]]], dtype=np.uint8)
    assert table.apply(raw).tolist() == [[1, 0]]
    for stranger in ([142, 0, 0], [255, 255, 255], [0, 0, 0]):
        with pytest.raises(FileFaultError, match=",".join(map(str, stranger))):
            table.apply(np.array([[stranger]], dtype=np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    values=st.dictionaries(st.integers(0, 300), st.sampled_from([0, 1, 5, 254, 255]), max_size=20),
    raw=hnp.arrays(
        np.uint16, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 300)
    ),
)
def test_table_equals_a_lookup_pixel_by_pixel(values: dict[int, int], raw: np.ndarray) -> None:
    labels = LabelTable(values, unmapped="ignore").apply(raw)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[values.get(int(value), 255) for value in row] for row in raw]
    strict = LabelTable(values)
    if all(int(value) in values for value in raw.ravel()):
        np.testing.assert_array_equal(strict.apply(raw), labels)
    else:
        with pytest.raises(FileFaultError):
            strict.apply(raw)


@settings(max_examples=60, deadline=None)
@given(
    colors=st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=8, unique=True),
    raw=hnp.arrays(np.uint8, (3, 4, 3), elements=st.integers(0, 2)),
)
def test_colour_table_equals_a_lookup_pixel_by_pixel(
    colors: list[tuple[int, int, int]], raw: np.ndarray
) -> None:
    values = {color: index for index, color in enumerate(colors)}
    packed = {pack_color(*color): index for color, index in values.items()}
    labels = LabelTable(packed, color=True, unmapped="ignore").apply(raw)
    expected = [[values.get(tuple(map(int, pixel)), 255) for pixel in row] for row in raw]
    assert labels.tolist() == expected


# ---------------------------------------------------------------- pairs
def test_pair_of_different_sizes_is_refused_with_both_sizes(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "i.png", RGB), save(tmp_path / "m.png", RGB[:, :6, 0])
    table = LabelTable({}, unmapped="ignore")
    with pytest.raises(FileFaultError, match=r"m\.png: mask is 5x6 .* is 5x7") as error:
        read_sample((image, mask), {"semantic": table})
    assert error.value.kind == "size_mismatch"


def test_sample_holds_one_map_per_kind_and_the_path(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "i.png", RGB), save(tmp_path / "m.png", RGB[..., 0] % 2)
    swap = LabelTable({0: 1, 1: 0})
    same = LabelTable({0: 0, 1: 1})
    sample = read_sample((image, mask, mask), {"drivable": same, "lane": swap})
    np.testing.assert_array_equal(sample.image, RGB)
    np.testing.assert_array_equal(sample.labels["drivable"], RGB[..., 0] % 2)
    np.testing.assert_array_equal(sample.labels["lane"], 1 - RGB[..., 0] % 2)
    assert sample.path == str(image)


# ---------------------------------------------------------------- gray pixels in color files
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_gray_pixels_are_read_from_any_number_of_equal_channels(tmp_path: Path, mode: str) -> None:
    gray = np.array([[0, 127, 191], [255, 1, 2]], np.uint8)
    channels = {"L": gray, "RGB": np.stack([gray] * 3, -1)}
    channels["RGBA"] = np.concatenate([channels["RGB"], 255 - gray[..., None]], axis=-1)
    Image.fromarray(channels[mode]).save(tmp_path / "m.png")
    raw = read_mask(tmp_path / "m.png", gray_rgb=True)
    assert raw.dtype == np.uint8
    assert raw.tolist() == gray.tolist()
    table = LabelTable({0: 0, 127: 1, 191: 1, 255: 1}, gray_rgb=True, unmapped="ignore")
    assert table.read(tmp_path / "m.png").tolist() == [[0, 1, 1], [1, 255, 255]]


def test_color_files_stay_refused_where_indices_are_expected(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(FileFaultError, match="mask has 4 channels"):
        read_mask(tmp_path / "m.png")


def test_a_label_of_the_whole_image_fits_any_image() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    for label in (np.array(3), np.zeros((4, 5))):
        require_fit(image, label, image_path=Path("i"), mask_path=Path("m"))
    with pytest.raises(FileFaultError, match=r"m: mask is 5x4 \(H x W\) but its image i is 4x5"):
        require_fit(image, np.zeros((5, 4)), image_path=Path("i"), mask_path=Path("m"))
