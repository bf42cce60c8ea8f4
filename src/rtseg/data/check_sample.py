"""Examine one sample for a data check: every fault of its files, and what they hold."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg.data.check_cache import Record
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.decode import exif_orientation
from rtseg.data.files import FileFaultError, decode_rgb, open_image, require_fit
from rtseg.data.strokes import stroke_width
from rtseg.data.weights import COUNTED_KINDS, class_names, count_labels

STROKE_KINDS = ("lane",)
"""Label kinds that are drawn as strokes."""

_LEVELS = np.arange(256, dtype=np.int64)  # values of a channel


def examine_files(dataset: DiskDataset, files: tuple[Path, ...]) -> Record:
    """Read an image and its masks, each once; one bad file does not hide another."""
    image_path, *mask_paths = files
    record = Record(path=str(image_path))
    pixels = None
    try:
        picture = open_image(image_path, limits=dataset.limits)
        pixels = _note_image(record, decode_rgb(picture, image_path))
        _require_upright(picture, image_path)
    except FileFaultError as error:
        record.add(error)
    for kind, path in zip(dataset.kinds, mask_paths, strict=True):
        try:
            labels = dataset.tables[kind].read(path)
            if pixels is not None:
                require_fit(pixels, labels, image_path=image_path, mask_path=path)
            _note_labels(record, dataset, kind, labels, where=str(path))
        except FileFaultError as error:
            record.add(error)
    return record


def examine_sample(dataset: Dataset, index: int) -> Record:
    """Examine a sample that is not made of files of its own."""
    sample = dataset[index]
    record = Record(path=sample.path, attributes=dict(sample.attributes))
    _note_image(record, Image.fromarray(sample.image))
    place = Path(sample.path)
    for kind in dataset.kinds:
        labels = np.asarray(sample.labels[kind])
        try:
            require_fit(sample.image, labels, image_path=place, mask_path=place)
            _note_labels(record, dataset, kind, labels, where=sample.path)
        except FileFaultError as error:
            record.add(error)
    return record


def _note_image(record: Record, image: Image.Image) -> NDArray[np.uint8]:
    """Note size, hash and channel sums of an RGB image; return its pixels (H, W, 3)."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    record.size = [height, width]
    digest = sha256(f"{height}x{width} ".encode())
    digest.update(pixels.data)
    record.digest = digest.hexdigest()
    counts = np.array(image.histogram(), dtype=np.int64).reshape(3, 256)  # faster than two sums
    record.channel_sum = (counts @ _LEVELS).tolist()
    record.channel_squares = (counts @ _LEVELS**2).tolist()
    return pixels


def _require_upright(picture: Image.Image, path: Path) -> None:
    orientation = exif_orientation(picture)
    if orientation != 1:
        raise FileFaultError(
            f"image has the EXIF orientation {orientation}, so viewers show it turned",
            kind="exif_rotation",
            where=str(path),
            fix="turn the pixels as its mask needs it and remove the tag",
        )


def _note_labels(
    record: Record, dataset: Dataset, kind: str, labels: NDArray[Any], *, where: str
) -> None:
    if kind in COUNTED_KINDS:
        num_classes = len(class_names(dataset, kind))
        counts = count_labels(labels, num_classes=num_classes, where=where)
        record.counts[kind] = counts
        width = stroke_width(labels) if kind in STROKE_KINDS else None
        if width is not None:
            record.widths[kind] = width
        empty = not any(counts[:-1])
    else:
        empty = not labels.any()  # segment ids: 0 is void
    if empty:
        raise FileFaultError(
            f"every pixel of the {kind} mask is ignored",
            kind="all_ignore",
            where=where,
            fix="label it, correct label_map, or remove the pair",
        )
