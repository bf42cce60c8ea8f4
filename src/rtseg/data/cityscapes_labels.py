"""The labels of Cityscapes as numbers in files: label ids, train ids and instance ids.

An instance id below 1000 is a label id, any other is a label id times 1000 plus a count. A thing
with an id below 1000 is a group that was not told apart, so it is a crowd.

Source: Cityscapes label definition. ACDC uses the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.data.cityscapes_classes import CITYSCAPES_CLASSES
from rtseg.data.files import FileFaultError, LabelTable, read_mask
from rtseg.structures import IGNORE_INDEX, Segment

LABEL_NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground",
    "road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail",
    "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
"""Names by label id, 0 to 33."""

UNPAINTED = "license plate"
"""The one label without an id (-1): its objects show what lies below."""

COUNTED_IDS = range(LABEL_NAMES.index("person"), LABEL_NAMES.index("bicycle") + 1)
"""Label ids whose objects are told apart: people and vehicles, also those that are not scored."""

GROUP = 1000
"""Instance ids below are label ids."""

SCORED_IDS = tuple(LABEL_NAMES.index(info.name) for info in CITYSCAPES_CLASSES)
"""Label ids of the 19 scored classes, in the order of their train ids."""


def label_tables() -> dict[str, LabelTable]:
    """Return how to read the masks of each name end; what is not scored is `IGNORE_INDEX`."""
    ids = dict.fromkeys([*range(len(LABEL_NAMES)), IGNORE_INDEX], IGNORE_INDEX)
    ids |= {raw: train_id for train_id, raw in enumerate(SCORED_IDS)}
    train_ids = {index: index for index in [*range(len(SCORED_IDS)), IGNORE_INDEX]}
    remedy = "use the masks that belong to `masks` (labelIds or labelTrainIds)"
    return {
        "labelIds": LabelTable(ids, remedy=remedy),
        "labelTrainIds": LabelTable(train_ids, remedy=remedy),
    }


@dataclass(frozen=True)
class InstanceIds:
    """Read `_instanceIds` files; their numbers are the segment ids, what is not scored is 0."""

    def read(self, path: Path) -> NDArray[np.int32]:
        """Return segment ids, int32 (H, W).

        Raises:
            FileFaultError: The file cannot be read, or an id belongs to no label.
        """
        ids = read_mask(path).astype(np.int32)
        wrong = ids[(label_ids(ids) >= len(LABEL_NAMES)) & (ids != IGNORE_INDEX)]
        if wrong.size:
            raise FileFaultError(
                f"mask holds the instance id {wrong[0]}, which belongs to no label",
                kind="value_outside_map",
                where=str(path),
                fix="use the instanceIds files as they are published",
            )
        return scored(ids)


def scored(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return instance ids (H, W) with 0 where the label is not scored."""
    return np.where(np.isin(label_ids(ids), SCORED_IDS), ids, np.int32(0))


def segments_of(ids: NDArray[np.int32]) -> tuple[Segment, ...]:
    """Return the segments of a map (H, W) of scored instance ids."""
    segments = []
    for number in np.unique(ids[ids > 0]).tolist():
        class_id = SCORED_IDS.index(label_ids(number))
        crowd = CITYSCAPES_CLASSES[class_id].thing and number < GROUP
        segments.append(Segment(number, class_id, crowd=crowd))
    return tuple(segments)


def label_ids(ids: Any) -> Any:
    """Return the label id of an instance id, or of many."""
    return np.where(np.asarray(ids) < GROUP, ids, np.asarray(ids) // GROUP)
