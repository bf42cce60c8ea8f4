from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtseg.data.check import check_dataset
from rtseg.data.cityscapes import Cityscapes
from rtseg.data.cityscapes_labels import LABEL_NAMES, label_tables
from rtseg.data.cityscapes_polygons import InstancePolygons, SemanticPolygons, draw_polygons
from rtseg.data.files import FileFaultError
from rtseg.structures import Segment

HEIGHT, WIDTH = 6, 8
FRAME = "ulm_000000_000001"


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    """Return the corners of a rectangle; its outline belongs to it."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def thing(label: str, *box_of: int, **more: Any) -> dict[str, Any]:
    return {"label": label, "polygon": box(*box_of), **more}


def write(path: Path, objects: object, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects, **more}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


OBJECTS = [
    thing("sky", 0, 0, 7, 1),
    thing("road", 0, 2, 7, 5),
    thing("car", 1, 2, 3, 3),
    thing("car", 3, 2, 4, 3),  # in front of the first one
    thing("car", -9, -9, -5, -5),  # outside of the image, but counted
    thing("license plate", 1, 3, 1, 3),
    thing("person", 6, 1, 7, 3, deleted=1),
    thing("cargroup", 6, 3, 20, 4),  # cut off at the right
    thing("caravan", 0, 5, 1, 5),
    thing("polegroup", 5, 0, 5, 1),
    thing("car", 3, 5, 3, 9),
]
IDS = [
    [23, 23, 23, 23, 23, 18, 23, 23],
    [23, 23, 23, 23, 23, 18, 23, 23],
    [7, 26000, 26000, 26001, 26001, 7, 7, 7],
    [7, 26000, 26000, 26001, 26001, 7, 26, 26],
    [7, 7, 7, 7, 7, 7, 26, 26],
    [29000, 29000, 7, 26003, 7, 7, 7, 7],
]


def test_objects_are_drawn_over_each_other_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", OBJECTS)
    ids = draw_polygons(path)
    assert ids.dtype == np.int32
    assert ids.tolist() == IDS
    assert draw_polygons(write(path, [])).tolist() == [[0] * WIDTH] * HEIGHT


def test_labels_and_segments_follow_from_the_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", OBJECTS)
    semantic = SemanticPolygons(label_tables()["labelIds"]).read(path)
    train_id = {23: 10, 18: 255, 7: 0, 26: 13, 29: 255}
    assert semantic.tolist() == [
        [train_id[value if value < 1000 else value // 1000] for value in row] for row in IDS
    ]
    assert semantic.dtype == np.uint8
    segments = InstancePolygons().read(path)
    assert segments.tolist() == [[0 if v in (18, 29000) else v for v in row] for row in IDS]
    assert segments.dtype == np.int32


def test_a_slanted_outline_covers_the_pixels_of_a_slow_rule(tmp_path: Path) -> None:
    corners = [[2, 1], [22, 7], [9, 27]]
    rows, columns = np.mgrid[:32, :32]
    distances = []  # from each side, in pixels; above 0 inside
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        area = (bx - ax) * (rows - ay) - (by - ay) * (columns - ax)
        distances.append(area / np.hypot(bx - ax, by - ay))
    nearest_side = np.min(distances, axis=0)
    path = write(
        tmp_path / "a.json", [{"label": "bus", "polygon": corners}], imgHeight=32, imgWidth=32
    )
    drawn = draw_polygons(path) == 28000
    assert drawn[nearest_side >= 0].all()
    assert not drawn[nearest_side < -1].any()  # whatever the rule on outlines is
    assert drawn.sum() > 200


BAD = {
    "two corners": ({"label": "car", "polygon": [[0, 0], [3, 3]]}, r"\(car\) has 2 points, which"),
    "no polygon": ({"label": "car"}, r"object 1 \(car\) has no points"),
    "a number": ({"label": "car", "polygon": [[0, 0], [3, 3], 7]}, r"\(car\) has the point 7"),
    "NaN": ({"label": "car", "polygon": [[0, 0], [3, 3], [float("nan"), 2]]}, r"point \[nan, 2"),
    "far": ({"label": "car", "polygon": [[0, 0], [3, 3], [2, -(1 << 21)]]}, r"point \[2, -2097"),
    "no mapping": ("car", "object 1 is no mapping"),
    "label": (thing("lorry", 0, 0, 1, 1), r"object 1 has the unknown label 'lorry'"),
    "group": (thing("group", 0, 0, 1, 1), r"object 1 has the unknown label 'group'"),
    "no label": ({"polygon": box(0, 0, 1, 1)}, r"object 1 has the unknown label 'None'"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_object_that_cannot_be_drawn_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    bad, message = BAD[name]
    path = write(tmp_path / "bad.json", [OBJECTS[0], bad])
    with pytest.raises(FileFaultError, match=message) as caught:
        draw_polygons(path)
    assert caught.value.where == str(path)
    known = {"label", "group", "no label"}
    assert caught.value.kind == ("value_outside_map" if name in known else "bad_polygon")
    if name == "label":
        assert "nearest" in caught.value.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is truncated or no JSON"),
        ("[1, 2]", "has no list of objects"),
        ('{"imgHeight": 6, "imgWidth": 8}', "has no list of objects"),
        ('{"imgHeight": 6, "objects": []}', "imgWidth is None, not a number of pixels"),
        ('{"imgHeight": 0, "imgWidth": 8, "objects": []}', "imgHeight is 0"),
        ('{"imgHeight": 99999, "imgWidth": 99999, "objects": []}', "is said to be 99999x99999"),
    ],
)
def test_a_file_that_is_no_list_of_polygons_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileFaultError, match=message) as caught:
        draw_polygons(path)
    assert caught.value.where == str(path)


def test_missing_file_is_a_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(FileFaultError, match="file is missing") as caught:
        draw_polygons(tmp_path / "a.json")
    assert caught.value.kind == "missing_mask"


def test_every_label_can_be_drawn(tmp_path: Path) -> None:
    assert (len(LABEL_NAMES), LABEL_NAMES[17:19]) == (34, ("pole", "polegroup"))
    for number, name in enumerate(LABEL_NAMES):
        path = write(tmp_path / "a.json", [thing(name, 0, 0, 9, 9)])
        told_apart = number >= 24
        assert set(draw_polygons(path).ravel()) == {number * 1000 if told_apart else number}


# ---------------------------------------------------------------- the reader
def write_tree(root: Path) -> Path:
    image = root / f"leftImg8bit/train/ulm/{FRAME}_leftImg8bit.png"
    image.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    write(root / f"gtFine/train/ulm/{FRAME}_gtFine_polygons.json", OBJECTS)
    return root


def test_polygons_give_the_same_sample_as_the_published_masks(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    ids = np.array(IDS, np.uint16)
    for kind, values in (
        ("instanceIds", ids),
        ("labelIds", np.where(ids < 1000, ids, ids // 1000).astype(np.uint8)),
    ):
        Image.fromarray(values).save(root / f"gtFine/train/ulm/{FRAME}_gtFine_{kind}.png")
    drawn = Cityscapes(root, split="train", masks="polygons", panoptic=True)[0]
    stored = Cityscapes(root, split="train", panoptic=True)[0]
    assert drawn.segments == stored.segments
    assert drawn.segments == (
        Segment(7, 0), Segment(23, 10), Segment(26, 13, crowd=True), Segment(26000, 13),
        Segment(26001, 13), Segment(26003, 13),
    )  # fmt: skip
    assert list(drawn.labels) == list(stored.labels) == ["semantic", "panoptic"]
    for kind, labels in drawn.labels.items():
        assert labels.tolist() == stored.labels[kind].tolist(), kind
        assert labels.dtype == stored.labels[kind].dtype


def test_check_names_bad_missing_and_stray_files_of_polygons(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    dataset = Cityscapes(root, split="train", masks="polygons", panoptic=True)
    assert dataset.files(0)[1] == dataset.files(0)[2]
    assert check_dataset(dataset).faults == ()
    path = root / f"gtFine/train/ulm/{FRAME}_gtFine_polygons.json"
    stray = write(path.with_name("ulm_000000_000002_gtFine_polygons.json"), OBJECTS)
    write(path, [thing("sky", 0, 0, 7, 5)], imgWidth=9)
    faults = check_dataset(Cityscapes(root, split="train", masks="polygons")).faults
    assert [(fault.kind, Path(fault.file).name) for fault in faults] == [
        ("size_mismatch", path.name), ("missing_image", stray.name),
    ]  # fmt: skip
    write(path, [{"label": "sky", "polygon": []}])
    faults = check_dataset(Cityscapes(root, split="train", masks="polygons")).faults
    assert faults[0].kind == "bad_polygon"
    assert "object 0 (sky)" in faults[0].message
    path.unlink()
    faults = check_dataset(Cityscapes(root, split="train", masks="polygons")).faults
    assert faults[0].kind == "missing_mask"
