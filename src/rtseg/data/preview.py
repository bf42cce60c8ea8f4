"""A sheet of samples with their labels drawn over: the quickest look at a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtseg.structures import (
    IGNORE_INDEX,
    ROAD_LANE_KINDS,
    ROAD_LANE_PALETTE,
    ClassInfo,
    PanopticResult,
    RoadLaneResult,
    Sample,
    SemanticResult,
)
from rtseg.visualize import fit_width, hatched, label_sheet, write_lines

COLUMNS, CELL_WIDTH = 4, 560
"""Pictures in a row and their width at most: a sheet has at most 2300 pixels in a row."""
VOID = "not labeled"
Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]


class Layer(NamedTuple):
    """One kind of label over the image: what it is, the picture, what it shows, what it leaves out.

    `pixels`: RGB uint8 (H, W, 3). `names`: of everything that occurs. `void`: bool (H, W), what is
    not labeled.
    """

    title: str
    pixels: Pixels
    names: set[str]
    void: NDArray[np.bool_]


def preview_sheet(
    samples: Iterable[Sample], classes: Sequence[ClassInfo], *, heading: str, note: str = ""
) -> Pixels:
    """Draw samples in a grid, one picture for each kind of label, with a key of what occurs.

    Args:
        samples: All with the same label kinds; images uint8 or float32 (H, W, 3) in 0-255. They
            are taken one by one, so that many large ones need little memory.
        classes: Of the `semantic`, `panoptic` and `class` labels, by id.
        heading: Line above the grid.
        note: Smaller line below it.

    Returns:
        RGB uint8 (h, w, 3).

    Raises:
        ValueError: There is no sample.
    """
    colors = {item.name: item.color for item in classes}
    for kind, color in zip(ROAD_LANE_KINDS, ROAD_LANE_PALETTE, strict=True):
        colors.setdefault(kind, color)
    pictures, titles, found, kinds, void = [], [], set(), 1, False
    for sample in samples:
        shown = layers(sample, classes)
        kinds = max(kinds, len(shown))
        for layer in shown:
            found |= layer.names
            void = void or bool(layer.void.any())
            pictures.append(fit_width(hatched(layer.pixels, layer.void), CELL_WIDTH))
            titles.append(_caption(sample, layer.title if len(shown) > 1 else ""))
    key: list[tuple[str, Color | None]] = [
        (name, color) for name, color in colors.items() if name in found
    ]
    if void:
        key.append((VOID, None))
    return label_sheet(
        pictures,
        titles=titles,
        heading=heading,
        note=note,
        key=key,
        columns=COLUMNS // kinds * kinds,
        cell_width=CELL_WIDTH,
    )


def layers(sample: Sample, classes: Sequence[ClassInfo]) -> list[Layer]:
    """Draw each kind of label of a sample over its image; drivable area and lanes go together.

    Args:
        sample: As in `preview_sheet`.
        classes: As in `preview_sheet`.
    """
    image = np.clip(np.round(sample.image), 0, 255).astype(np.uint8)
    drawn = []
    if "semantic" in sample.labels:
        drawn.append(_semantic(image, sample, classes))
    if "panoptic" in sample.labels:
        drawn.append(_panoptic(image, sample, classes))
    if any(kind in sample.labels for kind in ROAD_LANE_KINDS):
        drawn.append(_road_lane(image, sample))
    if "class" in sample.labels:
        lines = [classes[int(sample.labels["class"])].name]
        nothing = np.zeros(image.shape[:2], np.bool_)
        drawn.append(Layer("class", write_lines(image, lines), set(), nothing))
    return drawn


def _semantic(image: Pixels, sample: Sample, classes: Sequence[ClassInfo]) -> Layer:
    names, colors = _names_and_colors(classes)
    mask = sample.labels["semantic"]
    result = SemanticResult(mask=mask, names=names, palette=colors, image=image)
    shown = {names[index] for index in np.unique(mask) if index < len(names)}
    return Layer("semantic", result.plot(), shown, mask == IGNORE_INDEX)


def _panoptic(image: Pixels, sample: Sample, classes: Sequence[ClassInfo]) -> Layer:
    names, colors = _names_and_colors(classes)
    ids = sample.labels["panoptic"]
    result = PanopticResult(
        ids=ids,
        segments=sample.segments,
        scores=(1.0,) * len(sample.segments),
        names=names,
        palette=colors,
        things=frozenset(index for index, item in enumerate(classes) if item.thing),
        image=image,
    )
    shown = {names[segment.class_id] for segment in sample.segments}
    return Layer("panoptic", result.plot(), shown, ids == 0)


def _road_lane(image: Pixels, sample: Sample) -> Layer:
    found = {kind: sample.labels[kind] for kind in ROAD_LANE_KINDS if kind in sample.labels}
    maps = {kind: labels == 1 for kind, labels in found.items()}
    result = RoadLaneResult(
        drivable=maps.get("drivable"),
        lane=maps.get("lane"),
        names=ROAD_LANE_KINDS,
        palette=ROAD_LANE_PALETTE,
        image=image,
    )
    shown = {kind for kind, where in maps.items() if where.any()}
    unknown = np.any([labels == IGNORE_INDEX for labels in found.values()], axis=0)
    void = unknown & ~np.any(list(maps.values()), axis=0)
    return Layer(" + ".join(found), result.plot(), shown, void)


def _names_and_colors(
    classes: Sequence[ClassInfo],
) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    return tuple(item.name for item in classes), tuple(item.color for item in classes)


def _caption(sample: Sample, kind: str) -> str:
    """Return what stands above a picture: kind of label, name, facts about the scene."""
    parts = [kind, PurePath(sample.path).name, *sample.attributes.values()]
    return " · ".join(part for part in parts if part)
