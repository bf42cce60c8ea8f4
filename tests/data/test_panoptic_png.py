"""Segment ids as pictures, and the JSON file that describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from rtseg.data.files import FileFaultError
from rtseg.data.panoptic_png import (
    LARGEST_ID,
    _count_pixels,
    ids_from_rgb,
    load_panoptic_json,
    read_panoptic_json,
    read_panoptic_png,
    rgb_from_ids,
    write_panoptic_json,
    write_panoptic_png,
)
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Segment

CLASSES = {7: ClassInfo("road", (128, 64, 128)), 26: ClassInfo("car", (0, 0, 142), thing=True)}
IDS = np.array([[7, 7, 0], [26001, 26002, 26002]], np.int32)
SEGMENTS = (Segment(7, 7), Segment(26001, 26), Segment(26002, 26, crowd=True))


# ---------------------------------------------------------------- ids and colors
@pytest.mark.parametrize(
    ("number", "color"),
    [
        (0, (0, 0, 0)),
        (255, (255, 0, 0)),
        (256, (0, 1, 0)),
        (26001, (145, 101, 0)),
        (65536, (0, 0, 1)),
        (LARGEST_ID, (255, 255, 255)),
    ],
)
def test_known_ids_have_known_colors(number: int, color: tuple[int, int, int]) -> None:
    rgb = rgb_from_ids(np.array([[number]], np.int32))
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[list(color)]]
    ids = ids_from_rgb(rgb)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[number]]


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5).map(
    lambda shape: (*shape, 3))))  # fmt: skip
def test_pictures_survive_the_way_to_ids_and_back(rgb: Any) -> None:
    assert np.array_equal(rgb_from_ids(ids_from_rgb(rgb)), rgb)


@pytest.mark.parametrize("number", [-1, LARGEST_ID + 1])
def test_ids_beyond_24_bits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"id {number} does not fit"):
        rgb_from_ids(np.array([[0, number]]))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3), int)]
)
def test_pictures_of_another_kind_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        ids_from_rgb(wrong)


# ---------------------------------------------------------------- files
def test_a_written_picture_is_read_back(tmp_path: Path) -> None:
    path = write_panoptic_png(tmp_path / "deep" / "a.png", IDS)
    assert np.asarray(Image.open(path))[1, 0].tolist() == [145, 101, 0]
    ids = read_panoptic_png(path, SEGMENTS)
    assert ids.dtype == np.int32
    assert np.array_equal(ids, IDS)


def test_a_picture_that_would_lose_values_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: segment ids must not lose values"):
        write_panoptic_png(tmp_path / "a.jpg", IDS)


@pytest.mark.parametrize(
    ("segments", "kind", "message"),
    [
        (SEGMENTS[1:], "unlisted_segment", "segment 7 stands in the picture, but not in the JSON"),
        (SEGMENTS[:2], "unlisted_segment", "segment 26002 stands in the picture, but not in the"),
        (
            (*SEGMENTS, Segment(9, 7)),
            "missing_segment",
            "segment 9 stands in the JSON file, but not in the picture",
        ),
    ],
)
def test_ids_that_only_one_of_the_files_has_are_named(
    tmp_path: Path, segments: tuple[Segment, ...], kind: str, message: str
) -> None:
    path = write_panoptic_png(tmp_path / "a.png", IDS)
    with pytest.raises(FileFaultError, match=rf"a\.png: {message}") as error:
        read_panoptic_png(path, segments)
    assert error.value.kind == kind


def test_an_area_that_disagrees_is_named(tmp_path: Path) -> None:
    path = write_panoptic_png(tmp_path / "a.png", IDS)
    right = {7: 2, 26001: 1, 26002: 2}
    assert np.array_equal(read_panoptic_png(path, SEGMENTS, areas=right), IDS)
    assert np.array_equal(read_panoptic_png(path, SEGMENTS, areas={7: 2}), IDS)
    for number, area in right.items():
        for wrong in (area - 1, area + 1):
            what = f"segment {number} has {area} pixels, in the JSON file {wrong}"
            with pytest.raises(FileFaultError, match=what) as error:
                read_panoptic_png(path, SEGMENTS, areas={**right, number: wrong})
            assert error.value.kind == "wrong_area"


def test_hidden_segments_are_allowed_where_they_are_usual(tmp_path: Path) -> None:
    path = write_panoptic_png(tmp_path / "a.png", IDS)
    listed = (*SEGMENTS, Segment(9, 7))
    ids = read_panoptic_png(path, listed, areas={7: 6, 9: 3}, covered="allow")
    assert np.array_equal(ids, IDS)
    with pytest.raises(FileFaultError, match="segment 7 stands in the picture"):
        read_panoptic_png(path, listed[1:], covered="allow")


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements={"min_value": 0, "max_value": 3}))  # fmt: skip
def test_pixels_are_counted_by_id(ids: Any) -> None:
    numbers, pixels = np.unique(ids, return_counts=True)
    expected = dict(zip(numbers.tolist(), pixels.tolist(), strict=True))
    assert _count_pixels(ids) == expected


def test_ids_of_segments_that_were_left_out_become_void(tmp_path: Path) -> None:
    path = write_panoptic_png(tmp_path / "a.png", IDS)
    ids = read_panoptic_png(path, SEGMENTS[1:], void=[7, 99])
    assert ids.tolist() == [[0, 0, 0], [26001, 26002, 26002]]


def test_a_gray_picture_is_no_picture_of_ids(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(FileFaultError, match=r"1 channel .* 8-bit RGB, id = R \+ 256 G") as error:
        read_panoptic_png(tmp_path / "a.png", ())
    assert error.value.kind == "channel_count"
    with pytest.raises(FileFaultError, match="missing") as error:
        read_panoptic_png(tmp_path / "b.png", ())
    assert error.value.kind == "missing_mask"


# ---------------------------------------------------------------- the JSON file
def written(folder: Path) -> Path:
    return write_panoptic_json(folder / "a.json", CLASSES, [("a.jpg", "a.png", IDS, SEGMENTS)])


def test_a_written_file_says_what_the_format_asks_for(tmp_path: Path) -> None:
    document = json.loads(written(tmp_path).read_text())
    assert document["images"] == [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}]
    (annotation,) = document["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (1, "a.png")
    road, car, crowd = annotation["segments_info"]
    assert road == {"id": 7, "category_id": 7, "iscrowd": 0, "area": 2, "bbox": [0, 0, 2, 1]}
    assert car == {"id": 26001, "category_id": 26, "iscrowd": 0, "area": 1, "bbox": [0, 1, 1, 1]}
    assert crowd == {"id": 26002, "category_id": 26, "iscrowd": 1, "area": 2, "bbox": [1, 1, 2, 1]}
    assert document["categories"] == [
        {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]},
        {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    ]


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path)
    read = load_panoptic_json(path)
    assert read.segments == {"a.png": SEGMENTS}
    assert read_panoptic_json(path) == {"a.png": SEGMENTS}
    assert read.images == {"a.png": "a.jpg"}
    assert read.void == {}
    assert read.classes == CLASSES


def test_two_images_are_not_mixed_up(tmp_path: Path) -> None:
    other = np.full((2, 3), 26007, np.int32)
    items = [("b.jpg", "b.png", other, [Segment(26007, 26)]), ("a.jpg", "a.png", IDS, SEGMENTS)]
    read = load_panoptic_json(write_panoptic_json(tmp_path / "a.json", CLASSES, items))
    assert read.images == {"b.png": "b.jpg", "a.png": "a.jpg"}
    assert read.segments == {"b.png": (Segment(26007, 26),), "a.png": SEGMENTS}


def test_categories_become_class_ids_and_others_are_void(tmp_path: Path) -> None:
    path = written(tmp_path)
    read = load_panoptic_json(path, class_ids={26: 13})
    assert read.segments == {"a.png": (Segment(26001, 13), Segment(26002, 13, crowd=True))}
    assert read.void == {"a.png": (7,)}
    assert read_panoptic_json(path, class_ids={26: 13, 7: 0})["a.png"][0] == Segment(7, 0)


def test_categories_with_gaps_count_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    classes = {26: CLASSES[26], 7: CLASSES[7]}
    write_panoptic_json(path, classes, [("a.jpg", "a.png", IDS, SEGMENTS)])
    read = load_panoptic_json(path, class_ids="order")
    assert list(read.classes) == [26, 7]
    assert [item.class_id for item in read.segments["a.png"]] == [1, 0, 0]
    assert read.areas == {"a.png": {7: 2, 26001: 1, 26002: 2}}
    assert (read.problems, read.unlabelled) == ({}, ())


def broken(change: dict[str, Any], **info: Any) -> dict[str, Any]:
    segment = {"id": 1, "category_id": 7, "iscrowd": 0} | info
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": [segment]}
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [annotation],
        "categories": [{"id": 7, "name": "road", "isthing": 0, "color": [1, 2, 3]}],
    } | change


SEGMENT = {"id": 1, "category_id": 7}
ANNOTATION = {"image_id": 1, "file_name": "a.png", "segments_info": [SEGMENT]}


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        (
            broken({}, category_id=8),
            "value_outside_map",
            r"a\.png: segment 1 has the unknown category 8",
        ),
        (broken({}, id=0), "missing_segment", "segment id 0 is not in 1 to 16777215"),
        (broken({}, id=LARGEST_ID + 1), "missing_segment", "segment id 16777216 is not in"),
        (broken({"annotations": [ANNOTATION] * 2}), "duplicate_stem", "a.png: occurs twice"),
        (
            broken({"annotations": [ANNOTATION | {"segments_info": [SEGMENT] * 2}]}),
            "overlapping_segments",
            r"a\.png: segment 1 occurs twice, with the categories 7 and 7",
        ),
        (broken({"images": []}), "missing_image", "its image 1 does not stand in images"),
        (broken({"categories": [{"id": 7}]}), "unreadable", "key 'color' is missing"),
        (broken({"annotations": None}), "unreadable", "no panoptic JSON file"),
        (broken({}, id=float("inf")), "unreadable", "no panoptic JSON file"),
        ([], "unreadable", "no panoptic JSON file"),
    ],
)
def test_a_file_that_contradicts_itself_is_named(
    tmp_path: Path, document: Any, kind: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FileFaultError, match=rf"{path}.*{message}") as error:
        load_panoptic_json(path)
    assert error.value.kind == kind
    if kind != "unreadable":
        read = load_panoptic_json(path, problems="keep")
        assert [item.kind for item in read.problems.values()] == [kind]


def test_the_largest_id_may_be_listed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(broken({}, id=LARGEST_ID)))
    assert read_panoptic_json(tmp_path / "a.json") == {"a.png": (Segment(LARGEST_ID, 7),)}


def test_one_wrong_picture_leaves_the_others(tmp_path: Path) -> None:
    other = {"image_id": 2, "file_name": "b.png", "segments_info": [SEGMENT | {"iscrowd": 1}]}
    bad = ANNOTATION | {"segments_info": [SEGMENT | {"id": 0}, SEGMENT | {"category_id": 9}]}
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("cab")]
    document = broken({"annotations": [bad, other], "images": images})
    (tmp_path / "a.json").write_text(json.dumps(document))
    read = load_panoptic_json(tmp_path / "a.json", problems="keep")
    assert read.segments == {"a.png": (), "b.png": (Segment(1, 7, crowd=True),)}
    assert read.problems.keys() == {"a.png"}
    assert read.problems["a.png"].kind == "missing_segment"  # the first one
    assert read.unlabelled == ("c.jpg",)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: file is missing"):
        load_panoptic_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(DataError, match="is truncated or no JSON"):
        load_panoptic_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is truncated or no JSON"):
        load_panoptic_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_panoptic_json(tmp_path)


def test_published_ground_truth_of_two_images_is_read(coco_panoptic_sample: Path) -> None:
    read = load_panoptic_json(coco_panoptic_sample / "gt.json")
    assert sorted(read.images.values()) == ["000000142238.jpg", "000000439180.jpg"]
    assert any(item.crowd for segments in read.segments.values() for item in segments)
    for name, segments in read.segments.items():
        ids = read_panoptic_png(coco_panoptic_sample / "gt" / name, segments)
        areas = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        document = json.loads((coco_panoptic_sample / "gt.json").read_text())
        (annotation,) = [item for item in document["annotations"] if item["file_name"] == name]
        assert {item["id"]: item["area"] for item in annotation["segments_info"]} == {
            number: area for number, area in areas.items() if number
        }
