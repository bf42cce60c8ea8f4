"""Shapes drawn in labelme become label maps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.trees import HEIGHT, WIDTH, write_image
from rtseg.data import DATASETS
from rtseg.data.check import check_dataset
from rtseg.data.dataset import DiskDataset
from rtseg.data.labelme import Labelme
from rtseg.data.spec import find_data, open_splits
from rtseg.errors import ConfigError, DataError

LABELS = "__ignore__\n_background_\nroad\ncar\n"
ROAD, CAR = 1, 2
SQUARE = [[1, 1], [3, 1], [3, 3], [1, 3]]


def shape(label: str, points: Any, kind: str | None = "polygon") -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}


def write_json(path: Path, *shapes: Any, **changes: Any) -> Path:
    document = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.jpg"}
    document |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH} | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_set(root: Path, *shapes: Any, labels: str = LABELS, split: str = "train") -> Path:
    write_image(root / split / "a.jpg")
    write_json(root / split / "a.json", *shapes)
    (root / "labels.txt").write_text(labels)
    return root


def drawn(root: Path, *shapes: Any, **options: Any) -> np.ndarray:
    return Labelme(write_set(root, *shapes), split="train", **options)[0].labels["semantic"]


# ---------------------------------------------------------------- drawing
def test_a_polygon_is_filled_with_its_outline(tmp_path: Path) -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:4, 1:4] = ROAD
    labels = drawn(tmp_path, shape("road", SQUARE))
    assert labels.dtype == np.uint8
    assert labels.tolist() == expected.tolist()
    assert drawn(tmp_path, shape("road", SQUARE, None)).tolist() == expected.tolist()


def test_a_triangle_of_known_pixels(tmp_path: Path) -> None:
    labels = drawn(tmp_path, shape("car", [[0, 0], [4, 4], [0, 4]]))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row in range(5):
        expected[row, : row + 1] = CAR
    assert labels.tolist() == expected.tolist()


def test_later_shapes_lie_over_earlier_ones(tmp_path: Path) -> None:
    road = shape("road", [[0, 0], [7, 0], [7, 5], [0, 5]])
    labels = drawn(
        tmp_path, road, shape("car", SQUARE), shape("__ignore__", [[3, 3], [4, 4]], "rectangle")
    )
    expected = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    expected[1:4, 1:4] = CAR
    expected[3:5, 3:5] = 255
    assert labels.tolist() == expected.tolist()
    assert (drawn(tmp_path, shape("car", SQUARE), road) == ROAD).all()


def test_rectangles_may_begin_at_any_corner(tmp_path: Path) -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:5, 1:7] = CAR
    for points in ([[1, 2], [6, 4]], [[6, 4], [1, 2]], [[1, 4], [6, 2]]):
        assert drawn(tmp_path, shape("car", points, "rectangle")).tolist() == expected.tolist()


def test_circles_have_a_center_and_a_point(tmp_path: Path) -> None:
    labels = drawn(tmp_path, shape("car", [[3, 2], [3, 4]], "circle"))
    rows, columns = np.indices(labels.shape)
    distance = np.hypot(rows - 2, columns - 3)
    assert (labels[distance <= 2] == CAR).all()
    assert (labels[distance > 2.5] == 0).all()


def test_what_lies_outside_is_cut_off(tmp_path: Path) -> None:
    labels = drawn(tmp_path, shape("car", [[6, 4], [1000, 4], [1000, 900], [6, 900]]))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:, 6:] = CAR
    assert labels.tolist() == expected.tolist()
    edge = shape("car", [[-5, -5], [0, -5], [0, 0], [-5, 0]])
    assert np.argwhere(drawn(tmp_path, edge) == CAR).tolist() == [[0, 0]]


# ---------------------------------------------------------------- classes
def test_classes_come_from_the_list(tmp_path: Path) -> None:
    dataset = Labelme(write_set(tmp_path, shape("car", SQUARE)), split="train")
    assert isinstance(dataset, DiskDataset)
    assert DATASETS["labelme"] is Labelme
    assert [item.name for item in dataset.classes] == ["_background_", "road", "car"]
    assert [item.color for item in dataset.classes] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_without_a_background_the_rest_is_ignored(tmp_path: Path) -> None:
    root = write_set(tmp_path, shape("car", SQUARE), labels="car\n\nroad \n")
    dataset = Labelme(root, split="train")
    assert [item.name for item in dataset.classes] == ["car", "road"]
    assert dataset.classes[0].color == (128, 0, 0)
    labels = dataset[0].labels["semantic"]
    assert ((labels == 0).sum(), (labels == 255).sum()) == (9, HEIGHT * WIDTH - 9)
    other = Labelme(root, split="train", background="road")[0].labels["semantic"]
    assert (other == 1).sum() == HEIGHT * WIDTH - 9
    with pytest.raises(ConfigError, match="background 'raod' is no class; did you mean 'road'"):
        Labelme(root, split="train", background="raod")


def test_classes_come_from_a_description(tmp_path: Path) -> None:
    root = write_set(tmp_path, shape("car", SQUARE))
    (root / "data.yaml").write_text(
        "splits: [train]\nclasses: {0: {name: car, color: [9, 8, 7], thing: true}}\n"
    )
    dataset = Labelme(root, split="train")
    assert (dataset.classes[0].color, dataset.classes[0].thing) == ((9, 8, 7), True)
    assert set(np.unique(dataset[0].labels["semantic"])) == {0, 255}
    assert [item.spec for item in find_data(tmp_path)] == [f"labelme={root}"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("car\nroad\ncar\n", "lists 'car' twice; list 1 to 255"),
        ("__ignore__\n", "lists 0 classes"),
        ("\n".join(map(str, range(256))), "lists 256 classes"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    root = write_set(tmp_path, labels=labels)
    with pytest.raises(DataError, match=rf"labels\.txt: {message}"):
        Labelme(root, split="train")
    (root / "labels.txt").write_text("\n".join(map(str, range(255))))
    assert len(Labelme(root, split="train").classes) == 255


# ---------------------------------------------------------------- folders
def test_splits_are_folders_or_all_is_train(tmp_path: Path) -> None:
    root = write_set(tmp_path / "a", shape("car", SQUARE))
    write_set(root, shape("road", SQUARE), split="val")
    write_image(root / "val/a.jpg", seed=1)
    assert list(open_splits(f"labelme={root}")) == ["train", "val"]
    assert check_dataset(open_splits(f"labelme={root}")).faults == ()
    flat = tmp_path / "b"
    write_set(flat, shape("car", SQUARE), split=".")
    assert list(open_splits(f"labelme={flat}")) == ["train"]
    found = {item.spec: item for item in find_data(tmp_path)}
    assert found.keys() == {f"labelme={root}", f"labelme={flat}"}
    assert all(item.missing == () for item in found.values())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    with pytest.raises(DataError, match=r"/val: holds no images; set root"):
        Labelme(root, split="val")
    (root / "train/a.json").unlink()
    with pytest.raises(DataError, match=r"/train: holds no JSON files of labelme"):
        Labelme(root, split="train")
    (root / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"labels\.txt: cannot read the list .*or a data\.yaml"):
        Labelme(root, split="train")


def test_check_names_halves_of_pairs_and_sizes(tmp_path: Path) -> None:
    root = write_set(tmp_path, shape("car", SQUARE))
    write_image(root / "train/b.png", seed=1)
    write_json(root / "train/c.json", shape("car", SQUARE))
    write_json(root / "train/a.json", shape("car", SQUARE), imageWidth=WIDTH + 1)
    faults = check_dataset(Labelme(root, split="train")).faults
    assert {Path(item.file).name: item.kind for item in faults} == {
        "a.json": "size_mismatch", "b.json": "missing_mask", "c.json": "missing_image",
    }  # fmt: skip


# ---------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (shape("car", SQUARE[:2]), "bad_polygon", r"has 2 different points, which make no polygon"),
        (shape("car", [[1, 1], [2, 2]] * 3), "bad_polygon", r"has 2 different points"),
        (shape("car", SQUARE[:1], "rectangle"), "bad_polygon", "has 1 different points"),
        (shape("car", SQUARE, "rectangle"), "bad_polygon", "4 different .* no rectangle"),
        (shape("car", [[1, 1], [1, 1]], "circle"), "bad_polygon", "has 1 different points"),
        (shape("car", [[1, math.nan], *SQUARE]), "bad_polygon", r"has the point \[1, nan\]"),
        (shape("car", [[1, math.inf], *SQUARE]), "bad_polygon", r"has the point \[1, inf\]"),
        (shape("car", [[1e9, 1], *SQUARE]), "bad_polygon", r"has the point \[1000000000.0, 1\]"),
        (shape("car", [[True, 1], *SQUARE]), "bad_polygon", r"has the point \[True, 1\]"),
        (shape("car", [1, 2, 3]), "bad_polygon", "has the point 1"),
        (shape("car", None), "bad_polygon", "has no points"),
        (shape("car", [[8, 1], [9, 1], [9, 2]]), "bad_polygon", "lies wholly outside"),
        (shape("car", [[1, 6], [2, 6], [2, 9]]), "bad_polygon", "lies wholly outside"),
        (shape("car", [[-1, 1], [-2, 1], [-2, 2]]), "bad_polygon", "lies wholly outside"),
        (shape("car", [[1, -1], [2, -1], [2, -3]]), "bad_polygon", "lies wholly outside"),
        (shape("car", [[-9, 2], [-5, 2]], "circle"), "bad_polygon", "lies wholly outside"),
        (shape("car", SQUARE, "linestrip"), "bad_polygon", "is a linestrip, but only polygon, rec"),
        (shape("caR", SQUARE), "value_outside_map", "no class \\(the nearest is 'car'\\)"),
        ("car", "bad_polygon", "is no mapping"),
    ],
)
def test_a_bad_shape_is_named_with_its_file(
    tmp_path: Path, wrong: Any, kind: str, message: str
) -> None:
    root = write_set(tmp_path, shape("road", SQUARE), wrong)
    (fault,) = check_dataset(Labelme(root, split="train")).faults
    assert (fault.kind, Path(fault.file).name) == (kind, "a.json")
    with pytest.raises(DataError, match=rf"a\.json: shape 1.*{message}"):
        Labelme(root, split="train")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imageHeight": None}, "imageHeight is None, not a number of pixels"),
        ({"imageWidth": 0}, "imageWidth is 0"),
        ({"imageWidth": True}, "imageWidth is True"),
        ({"imageWidth": 8.0}, "imageWidth is 8.0"),
        ({"imageWidth": 1 << 20, "imageHeight": 1 << 20}, "image is said to be 1048576x1048576"),
        ({"shapes": {}}, "has no list of shapes"),
    ],
)
def test_files_of_another_kind_are_unreadable(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = write_set(tmp_path)
    write_json(root / "train/a.json", shape("car", SQUARE), **changes)
    (fault,) = check_dataset(Labelme(root, split="train")).faults
    assert fault.kind == "unreadable"
    assert message in fault.message
    (root / "train/a.json").write_text("[1")
    (fault,) = check_dataset(Labelme(root, split="train")).faults
    assert (fault.kind, "truncated or no JSON" in fault.message) == ("unreadable", True)
