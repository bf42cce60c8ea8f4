"""The COCO panoptic format: segment ids as RGB pictures, and the JSON file that describes them.

id = R + 256 G + 65536 B, 8 bits each; 0 is void. The JSON file holds `images` ({id, file_name}),
`annotations` ({image_id, file_name, segments_info: [{id, category_id, iscrowd, area}]}) and
`categories` ({id, name, isthing, color}); `file_name` of an annotation is that of its picture.

| fault | meaning |
|---|---|
| unlisted_segment | the picture shows an id that the JSON file does not list |
| missing_segment | the JSON file lists an id that has no pixel |
| overlapping_segments | the JSON file lists an id twice, so two segments claim the same pixels |
| wrong_area | the JSON file gives another number of pixels than the picture |
| value_outside_map | a segment has a category that is not defined |
| missing_entry | the JSON file does not describe the picture |
| duplicate_stem | the JSON file describes the picture twice |

Source: "Panoptic Segmentation" (the COCO panoptic task) and its published tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtseg.data.files import FileFaultError, read_mask
from rtseg.data.json_file import load_json
from rtseg.errors import DataError
from rtseg.structures import ClassInfo, Segment
from rtseg.visualize import bounding_box, write_image, write_text

LARGEST_ID = (1 << 24) - 1
VOID_ID = 0
FORMAT_ERRORS = (KeyError, TypeError, ValueError, OverflowError)
"""What reading a JSON file of another format raises."""


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
    areas: Mapping[int, int] | None = None,
    covered: Literal["error", "allow"] = "error",
) -> NDArray[np.int32]:
    """Read the segment ids (H, W) of a picture, int32, 0 = void.

    Args:
        path: RGB picture of ids.
        segments: The segments of the picture; it must show no other.
        void: Ids that may occur as well and become 0.
        areas: Number of pixels by id, as far as it is known.
        covered: Whether a segment may be hidden, wholly or in part (then `areas` says nothing).

    Raises:
        FileFaultError: The file is missing or no 8-bit RGB picture, or its ids, the segments and
            the areas disagree.
    """
    ids = _read_ids(Path(path))
    shown = _count_pixels(ids)
    shown.pop(VOID_ID, None)
    dropped = [number for number in void if number in shown]
    listed = {segment.id for segment in segments}
    where = str(path)
    if unlisted := shown.keys() - listed - set(dropped):
        what = f"segment {min(unlisted)} stands in the picture, but not in the JSON file"
        raise _file_fault("unlisted_segment", what, where, "add it there")
    if covered == "error":
        if missing := listed - shown.keys():
            what = f"segment {min(missing)} stands in the JSON file, but not in the picture"
            raise _file_fault("missing_segment", what, where, "remove it there")
        for number, area in (areas or {}).items():
            if number in shown and shown[number] != area:
                what = f"segment {number} has {shown[number]} pixels, in the JSON file {area}"
                raise _file_fault("wrong_area", what, where, "correct or remove its area there")
    if dropped:
        ids[np.isin(ids, dropped)] = VOID_ID
    return ids


def _read_ids(path: Path) -> NDArray[np.int32]:
    try:
        rgb = np.asarray(read_mask(path, color=True), dtype=np.uint8)
    except FileFaultError as error:
        if error.kind not in ("channel_count", "bit_depth"):
            raise
        fix = "save segment ids as 8-bit RGB, id = R + 256 G + 65536 B"
        raise FileFaultError(error.what, kind=error.kind, where=error.where, fix=fix) from None
    return ids_from_rgb(rgb)


def _count_pixels(ids: NDArray[np.int32]) -> dict[int, int]:
    """Return the number of pixels of each id; runs of equal ids are counted as one."""
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])[: flat.size])
    lengths = np.diff(starts, append=flat.size)
    numbers, runs = np.unique(flat[starts], return_inverse=True)
    pixels = np.bincount(runs, weights=lengths, minlength=numbers.size).astype(np.int64)
    return dict(zip(numbers.tolist(), pixels.tolist(), strict=True))


def _file_fault(kind: str, what: str, where: str, fix: str) -> FileFaultError:
    fix = f"{fix}, or use the picture and the JSON file of one release"
    return FileFaultError(what, kind=kind, where=where, fix=fix)


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
class Problem(NamedTuple):
    """What is wrong with the description of one picture; `kind` as in the table above."""

    kind: str
    what: str


@dataclass(frozen=True)
class PanopticJson:
    """What a panoptic JSON file says, by name of the picture of ids, in the order of the file.

    segments: of each picture.
    images: name of the image.
    void: ids of segments that were left out; only pictures that have any.
    areas: pixels by segment id, as far as they are given.
    problems: the first of each picture that is described wrongly.
    classes: by category id.
    unlabelled: names of the images without a picture.
    """

    segments: Mapping[str, tuple[Segment, ...]]
    images: Mapping[str, str]
    void: Mapping[str, tuple[int, ...]]
    areas: Mapping[str, Mapping[int, int]]
    problems: Mapping[str, Problem]
    classes: Mapping[int, ClassInfo]
    unlabelled: tuple[str, ...]


def read_panoptic_json(
    path: str | Path, *, class_ids: Mapping[int, int] | None = None
) -> dict[str, tuple[Segment, ...]]:
    """Return the segments of every picture by its file name, as `load_panoptic_json` reads them."""
    return dict(load_panoptic_json(path, class_ids=class_ids).segments)


def load_panoptic_json(
    path: str | Path,
    *,
    class_ids: Mapping[int, int] | Literal["order"] | None = None,
    problems: Literal["raise", "keep"] = "raise",
) -> PanopticJson:
    """Read a panoptic JSON file.

    Args:
        path: The file.
        class_ids: Class id by category id; segments of other categories are left out, and stand in
            `void`. `order`: categories count 0, 1, ... in the order of the file. None: the category
            id is the class id.
        problems: What a wrong description of a picture is: an error at once, or an entry of the
            result's `problems`, so that all other pictures can be used.

    Raises:
        DataError: The file is missing or no panoptic JSON; or, with `raise`, a category is not
            defined, a picture occurs twice, its image not at all, or an id is 0, too large or
            occurs twice.
    """
    document = load_json(Path(path))
    try:
        classes = {int(item["id"]): _class_info(item) for item in document["categories"]}
        names = {item["id"]: str(item["file_name"]) for item in document["images"]}
        labels = _labels(list(classes), class_ids)
        read = describe_pictures(document["annotations"], labels, images=names)
    except FORMAT_ERRORS as error:
        raise no_panoptic_json(error, path) from None
    if problems == "raise" and read.problems:
        name, problem = next(iter(read.problems.items()))
        fix = "copy the file again from its source, or correct it"
        raise FileFaultError(problem.what, kind=problem.kind, where=f"{path}, {name}", fix=fix)
    shown = set(read.images.values())
    unlabelled = tuple(name for name in names.values() if name not in shown)
    return PanopticJson(**vars(read), classes=classes, unlabelled=unlabelled)


def _labels(
    categories: Sequence[int], class_ids: Mapping[int, int] | Literal["order"] | None
) -> dict[int, int | None]:
    """Return the class id of each category; None where it is left out."""
    if class_ids is None:
        return {category: category for category in categories}
    if class_ids == "order":
        return {category: index for index, category in enumerate(categories)}
    return {category: class_ids.get(category) for category in categories}


def no_panoptic_json(error: Exception, path: str | Path) -> FileFaultError:
    """Return the error that says why a JSON file does not have the format."""
    what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
    return FileFaultError(
        f"is no panoptic JSON file: {what}",
        where=str(path),
        fix="copy the file again from its source, or correct it",
    )


@dataclass(frozen=True)
class Descriptions:
    """The annotations of a panoptic JSON file; fields as in `PanopticJson`."""

    segments: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    void: dict[str, tuple[int, ...]] = field(default_factory=dict)
    areas: dict[str, dict[int, int]] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)


def describe_pictures(
    annotations: Iterable[Mapping[str, Any]],
    labels: Mapping[int, int | None],
    *,
    images: Mapping[Any, str] | None = None,
) -> Descriptions:
    """Read annotations.

    Args:
        annotations: One for each picture.
        labels: Class id by category id; None: segments of the category are void.
        images: Name of the image by image id; None if that is not asked for.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: An entry does not have the format.
    """
    read = Descriptions()
    for item in annotations:
        name = str(item["file_name"])
        if name in read.segments:
            read.problems.setdefault(name, Problem("duplicate_stem", "occurs twice in annotations"))
            continue
        if images is not None:
            image = images.get(item["image_id"])
            read.images[name] = (
                Path(name).with_suffix(".jpg").as_posix() if image is None else image
            )
            if image is None:
                what = f"its image {item['image_id']} does not stand in images"
                read.problems[name] = Problem("missing_image", what)
        _add_segments(read, name, item["segments_info"], labels)
    return read


def _add_segments(
    read: Descriptions,
    name: str,
    entries: Iterable[Mapping[str, Any]],
    labels: Mapping[int, int | None],
) -> None:
    seen: dict[int, int] = {}
    kept: list[Segment] = []
    left_out: list[int] = []
    for entry in entries:
        number, category = int(entry["id"]), int(entry["category_id"])
        problem = _problem(number, category, seen, labels)
        if problem is not None:
            read.problems.setdefault(name, problem)
            continue
        seen[number] = category
        label = labels[category]
        if label is None:
            left_out.append(number)
        else:
            kept.append(Segment(number, label, crowd=bool(entry.get("iscrowd", 0))))
        if entry.get("area") is not None:
            read.areas.setdefault(name, {})[number] = int(entry["area"])
    read.segments[name] = tuple(kept)
    if left_out:
        read.void[name] = tuple(left_out)


def _problem(
    number: int, category: int, seen: Mapping[int, int], labels: Mapping[int, int | None]
) -> Problem | None:
    if not VOID_ID < number <= LARGEST_ID:
        return Problem("missing_segment", f"segment id {number} is not in 1 to {LARGEST_ID}")
    if number in seen:
        what = f"segment {number} occurs twice, with the categories {seen[number]} and {category}"
        return Problem("overlapping_segments", what)
    if category not in labels:
        return Problem("value_outside_map", f"segment {number} has the unknown category {category}")
    return None


def _class_info(item: Mapping[str, Any]) -> ClassInfo:
    red, green, blue = (int(value) for value in item["color"])
    return ClassInfo(str(item["name"]), (red, green, blue), thing=bool(item["isthing"]))


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
