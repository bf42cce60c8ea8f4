"""The COCO panoptic format: segment ids as RGB pictures, and the JSON file that describes them.

id = R + 256 G + 65536 B, 8 bits each; 0 is void. The JSON file holds `images` ({id, file_name}),
`annotations` ({image_id, file_name, segments_info: [{id, category_id, iscrowd}]}) and `categories`
({id, name, isthing, color}); `file_name` of an annotation is that of its picture.

Source: "Panoptic Segmentation" (the COCO panoptic task) and its published tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.data.files import FileFaultError, read_mask
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Segment
from rtseg.visualize import bounding_box, write_image, write_text

LARGEST_ID = (1 << 24) - 1
VOID_ID = 0


# ---------------------------------------------------------------- pictures
def ids_from_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the segment ids (H, W) of a picture (H, W, 3) uint8.

    Raises:
        ValueError: It has another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"picture must be uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    ids = rgb[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids


def rgb_from_ids(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the picture uint8 (H, W, 3) of segment ids (H, W), integers in 0..2^24-1.

    Raises:
        ValueError: An id does not fit into 24 bits.
    """
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if low < 0 or high > LARGEST_ID:
        wrong = low if low < 0 else high
        raise ValueError(f"id {wrong} does not fit into a picture; ids are 0 to {LARGEST_ID}")
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def read_panoptic_png(
    path: str | Path,
    segments: Sequence[Segment],
    *,
    void: Iterable[int] = (),
) -> NDArray[np.int32]:
    """Read the segment ids (H, W) of a picture, int32, 0 = void.

    Args:
        path: RGB picture of ids.
        segments: The segments of the picture; every one must be visible, and no other.
        void: Ids that may occur as well and become 0.

    Raises:
        FileFaultError: The file is missing or no 8-bit RGB picture, or its ids and the segments
            disagree.
    """
    ids = ids_from_rgb(np.asarray(read_mask(Path(path), color=True), dtype=np.uint8))
    shown = set(_distinct(ids).tolist()) - {VOID_ID}
    dropped = shown & set(void)
    listed = {segment.id for segment in segments}
    for wrong, what, fix in (
        (shown - listed - dropped, "stands in the picture, but not in the JSON file", "add it"),
        (listed - shown, "stands in the JSON file, but not in the picture", "remove it there"),
    ):
        if wrong:
            raise FileFaultError(
                f"segment {min(wrong)} {what}",
                kind="value_outside_map",
                where=str(path),
                fix=f"{fix}, or use the picture and the JSON file of one release",
            )
    if dropped:
        ids[np.isin(ids, list(dropped))] = VOID_ID
    return ids


def _distinct(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the ids that occur; only where neighbours in a row differ is anything sorted."""
    starts = np.ones(ids.shape, np.bool_)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=starts[:, 1:])
    return np.unique(ids[starts])


def write_panoptic_png(path: str | Path, ids: NDArray[Any]) -> Path:
    """Write segment ids (H, W) as an RGB picture.

    Raises:
        ValueError: An id does not fit into 24 bits.
        DataError: The file cannot be written, or its name does not end in `.png`.
    """
    if Path(path).suffix.lower() != ".png":
        raise DataError("segment ids must not lose values", where=str(path), fix="name it *.png")
    return write_image(path, rgb_from_ids(ids))


# ---------------------------------------------------------------- the JSON file
@dataclass(frozen=True)
class PanopticJson:
    """What a panoptic JSON file says.

    segments: by name of the picture of ids, in the order of the file.
    images: name of the image by name of the picture.
    void: ids of segments that were left out, by name of the picture; only pictures that have any.
    classes: by category id.
    """

    segments: Mapping[str, tuple[Segment, ...]]
    images: Mapping[str, str]
    void: Mapping[str, tuple[int, ...]]
    classes: Mapping[int, ClassInfo]


def read_panoptic_json(
    path: str | Path, *, class_ids: Mapping[int, int] | None = None
) -> dict[str, tuple[Segment, ...]]:
    """Return the segments of every picture by its file name, as `load_panoptic_json` reads them."""
    return dict(load_panoptic_json(path, class_ids=class_ids).segments)


def load_panoptic_json(
    path: str | Path, *, class_ids: Mapping[int, int] | None = None
) -> PanopticJson:
    """Read a panoptic JSON file.

    Args:
        path: The file.
        class_ids: Class id by category id; segments of other categories are left out, and stand in
            `void`. None: the category id is the class id.

    Raises:
        DataError: The file is missing or no panoptic JSON, a category is not defined, an image or
            a picture occurs twice or not at all, or an id is 0, too large or occurs twice.
    """
    document = _load(Path(path))
    try:
        classes = {int(item["id"]): _class_info(item) for item in document["categories"]}
        names = {item["id"]: str(item["file_name"]) for item in document["images"]}
        segments: dict[str, tuple[Segment, ...]] = {}
        images: dict[str, str] = {}
        void: dict[str, tuple[int, ...]] = {}
        for item in document["annotations"]:
            name, where = str(item["file_name"]), f"{path}, {item['file_name']}"
            if name in segments:
                raise _fault("occurs twice in annotations", where)
            if item["image_id"] not in names:
                raise _fault(f"its image {item['image_id']} does not stand in images", where)
            found = _segments(item["segments_info"], classes, where=where)
            images[name] = names[item["image_id"]]
            kept = [(entry, _class_id(entry.class_id, class_ids)) for entry in found]
            segments[name] = tuple(
                Segment(entry.id, label, entry.crowd) for entry, label in kept if label is not None
            )
            left_out = tuple(entry.id for entry, label in kept if label is None)
            if left_out:
                void[name] = left_out
    except (KeyError, TypeError, ValueError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise _fault(f"is no panoptic JSON file: {what}", str(path)) from None
    return PanopticJson(segments, images, void, classes)


def _load(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("file is missing", where=str(path), fix="check the root") from None
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=str(path), fix="check its permissions"
        ) from None
    except ValueError as error:  # no JSON, or no text at all
        raise _fault(f"is truncated or no JSON ({error})", str(path)) from None
    return document


def _fault(what: str, where: str) -> DataError:
    return DataError(what, where=where, fix="copy the file again from its source, or correct it")


def _class_info(item: Mapping[str, Any]) -> ClassInfo:
    red, green, blue = (int(value) for value in item["color"])
    return ClassInfo(str(item["name"]), (red, green, blue), thing=bool(item["isthing"]))


def _segments(
    entries: Iterable[Mapping[str, Any]], classes: Mapping[int, ClassInfo], *, where: str
) -> list[Segment]:
    """Return segments whose class is the category id."""
    found: dict[int, Segment] = {}
    for entry in entries:
        number, category = int(entry["id"]), int(entry["category_id"])
        if not VOID_ID < number <= LARGEST_ID:
            raise _fault(f"segment id {number} is not in 1 to {LARGEST_ID}", where)
        if number in found:
            raise _fault(f"segment {number} occurs twice", where)
        if category not in classes:
            raise _fault(f"segment {number} has the unknown category {category}", where)
        found[number] = Segment(number, category, crowd=bool(entry.get("iscrowd", 0)))
    return list(found.values())


def _class_id(category: int, class_ids: Mapping[int, int] | None) -> int | None:
    return category if class_ids is None else class_ids.get(category)


def write_panoptic_json(
    path: str | Path,
    classes: Mapping[int, ClassInfo],
    items: Iterable[tuple[str, str, NDArray[Any], Sequence[Segment]]],
) -> Path:
    """Write a panoptic JSON file; class ids become category ids, images count from 1.

    Args:
        path: File to write; its folder is made if missing.
        classes: By class id.
        items: For each image its name, the name of its picture, its ids (H, W) and its segments.

    Raises:
        DataError: The file cannot be written.
    """
    images, annotations = [], []
    for number, (image, picture, ids, segments) in enumerate(items, start=1):
        height, width = ids.shape
        images.append({"id": number, "file_name": image, "height": height, "width": width})
        infos = [_segment_info(ids, segment) for segment in segments]
        annotations.append({"image_id": number, "file_name": picture, "segments_info": infos})
    categories = [
        {"id": number, "name": item.name, "isthing": int(item.thing), "color": list(item.color)}
        for number, item in classes.items()
    ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return write_text(path, json.dumps(document) + "\n")


def _segment_info(ids: NDArray[Any], segment: Segment) -> dict[str, Any]:
    """Describe a segment; `bbox` is left, top, width and height in pixels."""
    mask = ids == segment.id
    left, top, right, bottom = bounding_box(mask) or (0, 0, 0, 0)
    return {
        "id": segment.id,
        "category_id": segment.class_id,
        "iscrowd": int(segment.crowd),
        "area": int(mask.sum()),
        "bbox": [left, top, right - left, bottom - top],
    }
