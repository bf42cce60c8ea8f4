"""Small sets with labels in JSON files, and one way to break them for each fault of such labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.broken import noise

HEIGHT, WIDTH = 24, 32
STEM = "b"
DESCRIPTION = """\
splits: [train, val]
classes:
  0: {name: road, color: [128, 64, 128]}
  1: {name: car, color: [0, 0, 142], thing: true}
labels: [panoptic]
"""
ROAD, CAR, OTHER_CAR = 1, 2, 300  # segment ids; the last one takes two channels
PIXELS = {ROAD: 16 * WIDTH, CAR: 8 * 20, OTHER_CAR: 8 * 10}  # and 16 pixels of void


def segment_ids() -> np.ndarray:
    """Return the ids of a picture (H, W)."""
    ids = np.full((HEIGHT, WIDTH), ROAD)
    ids[:8, :20], ids[:8, 20:30], ids[:8, 30:] = CAR, OTHER_CAR, 0
    return ids


def _entry(stem: str) -> dict[str, Any]:
    infos = [
        {"id": number, "category_id": int(number != ROAD), "iscrowd": 0, "area": area}
        for number, area in PIXELS.items()
    ]
    return {"file_name": f"{stem}.png", "image_id": stem, "segments_info": infos}


def _write_pairs(images: Path, masks: Path, stems: Iterable[str], *, seed: int) -> None:
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    ids = segment_ids()
    rgb = np.stack([ids & 255, ids >> 8, ids * 0], axis=-1).astype(np.uint8)
    for index, stem in enumerate(stems):
        noise(HEIGHT, WIDTH, seed=seed + index).save(images / f"{stem}.png")
        Image.fromarray(rgb).save(masks / f"{stem}.png")


def write_panoptic(root: Path, *, train: Iterable[str] = ("a", STEM)) -> str:
    """Write a native folder with panoptic masks; return the text that opens it."""
    for seed, (split, stems) in enumerate((("train", list(train)), ("val", ["v"]))):
        _write_pairs(root / "images" / split, root / "masks" / split, stems, seed=1000 * seed)
        document = {"annotations": [_entry(stem) for stem in stems]}
        (root / f"masks/{split}.json").write_text(json.dumps(document), encoding="utf-8")
    (root / "data.yaml").write_text(DESCRIPTION, encoding="utf-8")
    return str(root)


def write_coco(root: Path) -> str:
    """Write the layout of COCO panoptic; return the text that opens it."""
    categories = [
        {"id": number, "name": name, "isthing": number, "color": [number, 0, 0]}
        for number, name in enumerate(("road", "car"))
    ]
    (root / "annotations").mkdir(parents=True)
    for seed, (split, stems) in enumerate((("train", ["a", STEM]), ("val", ["v"]))):
        masks = root / f"annotations/panoptic_{split}2017"
        _write_pairs(root / f"{split}2017", masks, stems, seed=1000 * seed)
        document = {
            "images": [{"id": stem, "file_name": f"{stem}.png"} for stem in stems],
            "annotations": [_entry(stem) for stem in stems],
            "categories": categories,
        }
        masks.with_suffix(".json").write_text(json.dumps(document), encoding="utf-8")
    return f"coco_panoptic={root}"


SQUARE = [[2, 2], [20, 2], [20, 20], [2, 20]]


def write_labelme(root: Path, *, train: Iterable[str] = ("a", STEM)) -> str:
    """Write images with polygons beside them; return the text that opens them."""
    for split, stems in (("train", train), ("val", ["v"])):
        (root / split).mkdir(parents=True)
        for seed, stem in enumerate(stems):
            noise(HEIGHT, WIDTH, seed=seed + 1000 * (split == "val")).save(
                root / split / f"{stem}.png"
            )
            shapes = [
                {"label": label, "points": SQUARE, "shape_type": "polygon"}
                for label in ("road", "car")
            ]
            document = {"imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": shapes}
            (root / split / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")
    (root / "labels.txt").write_text("_background_\nroad\ncar\n", encoding="utf-8")
    return f"labelme={root}"


def write_cityscapes(root: Path) -> str:
    """Write frames of Cityscapes with polygons only; return the text that opens them."""
    for seed, split in enumerate(("train", "val")):
        images, labels = root / f"leftImg8bit/{split}/city", root / f"gtFine/{split}/city"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        noise(HEIGHT, WIDTH, seed=seed).save(images / f"{STEM}_leftImg8bit.png")
        objects = [{"label": label, "polygon": SQUARE} for label in ("road", "car")]
        document = {"imgWidth": WIDTH, "imgHeight": HEIGHT, "objects": objects}
        file = labels / f"{STEM}_gtFine_polygons.json"
        file.write_text(json.dumps(document), encoding="utf-8")
    return f"cityscapes={root}"


# ---------------------------------------------------------------- breaking
Change = Callable[[Any], object]
Break = Callable[..., Path]


def _rewritten(file: Path, change: Change) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def _entry_of(document: Any, stem: str) -> Any:
    return next(item for item in document["annotations"] if item["file_name"] == f"{stem}.png")


def _segments(change: Change) -> Break:
    """Change the list of segments of a picture in the JSON file of a native folder."""

    def break_set(root: Path, stem: str = STEM) -> Path:
        _rewritten(
            root / "masks/train.json",
            lambda document: change(_entry_of(document, stem)["segments_info"]),
        )
        return root / f"masks/train/{stem}.png"

    return break_set


def _undescribed(root: Path, stem: str = STEM) -> Path:
    _rewritten(
        root / "masks/train.json",
        lambda document: document["annotations"].remove(_entry_of(document, stem)),
    )
    return root / f"masks/train/{stem}.png"


def _described_twice(root: Path, stem: str = STEM) -> Path:
    _rewritten(
        root / "masks/train.json",
        lambda document: document["annotations"].append(_entry_of(document, stem)),
    )
    return root / f"masks/train/{stem}.png"


def _all_void(root: Path, stem: str = STEM) -> Path:
    path = _segments(lambda infos: infos.clear())(root, stem)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return path


def _set(infos: Any, index: int, **values: object) -> None:
    infos[index].update(values)


PANOPTIC: dict[str, tuple[str, Break]] = {
    "JSON lies about an id": ("unlisted_segment", _segments(lambda s: _set(s, 2, id=301))),
    "segment is not listed": ("unlisted_segment", _segments(lambda s: s.pop())),
    "instance is missing": (
        "missing_segment",
        _segments(lambda s: s.append({"id": 7, "category_id": 1, "iscrowd": 0})),
    ),
    "segments overlap": ("overlapping_segments", _segments(lambda s: s.append(s[1]))),
    "JSON lies about an area": ("wrong_area", _segments(lambda s: _set(s, 1, area=159))),
    "category without a class": (
        "value_outside_map",
        _segments(lambda s: _set(s, 1, category_id=2)),
    ),
    "picture is not described": ("missing_entry", _undescribed),
    "picture is described twice": ("duplicate_stem", _described_twice),
    "picture of void only": ("all_ignore", _all_void),
}
"""By name of the case: its fault, and what breaks `write_panoptic` and returns the file to name."""


def _shape(change: Change) -> Break:
    """Change the first shape of a labelme file."""

    def break_set(root: Path, stem: str = STEM) -> Path:
        file = root / f"train/{stem}.json"
        _rewritten(file, lambda document: change(document["shapes"][0]))
        return file

    return break_set


def _file(content: str | None) -> Break:
    def break_set(root: Path, stem: str = STEM) -> Path:
        file = root / f"train/{stem}.json"
        file.unlink()
        if content is not None:
            file.write_text(content, encoding="utf-8")
        return file

    return break_set


def _alone(root: Path, stem: str = STEM) -> Path:
    (root / f"train/{stem}.png").unlink()
    return root / f"train/{stem}.json"


OUTLINES: dict[str, tuple[str, Break]] = {
    "two points": ("bad_polygon", _shape(lambda s: s.update(points=SQUARE[:2]))),
    "point that is no number": (
        "bad_polygon",
        _shape(lambda s: s.update(points=[[float("nan"), 1]])),
    ),
    "outside of the image": (
        "bad_polygon",
        _shape(lambda s: s.update(points=[[x + 100, y] for x, y in SQUARE])),
    ),
    "shape that has no area": ("bad_polygon", _shape(lambda s: s.update(shape_type="line"))),
    "label without a class": ("value_outside_map", _shape(lambda s: s.update(label="tram"))),
    "JSON of another size": (
        "size_mismatch",
        _file(json.dumps({"imageWidth": HEIGHT, "imageHeight": WIDTH, "shapes": []})),
    ),
    "truncated JSON": ("unreadable", _file('{"shapes": [')),
    "JSON of another kind": ("unreadable", _file("[]")),
    "JSON is missing": ("missing_mask", _file(None)),
    "image is missing": ("missing_image", _alone),
}
"""The same for `write_labelme`."""


def break_cityscapes(root: Path) -> Path:
    """Take all but two points of an outline away; return the file to name."""
    file = root / f"gtFine/train/city/{STEM}_gtFine_polygons.json"
    _rewritten(file, lambda document: document["objects"][1].update(polygon=SQUARE[:2]))
    return file


def break_coco(root: Path) -> Path:
    """Take an instance out of the JSON file; return the picture to name."""
    masks = root / "annotations/panoptic_train2017"
    _rewritten(
        masks.with_suffix(".json"),
        lambda document: _entry_of(document, STEM)["segments_info"].pop(),
    )
    return masks / f"{STEM}.png"
