"""Pictures of an evaluation: confusion, scores by class, the images with the lowest scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtseg import visualize
from rtseg.data.dataset import Dataset
from rtseg.evaluation.images import Shown
from rtseg.evaluation.tally import Evaluation
from rtseg.tasks.scoring import class_maps
from rtseg.visualize import Picture

Pixels = NDArray[np.uint8]
BARS = {"iou": "IoU", "pq": "PQ", "ap": "AP", "accuracy": "accuracy"}
"""Columns of a table of classes that are drawn as bars; the first one that is there."""
MEANS = {"image_miou": "mean IoU", "image_pq": "PQ"}
CELL = 440
"""Width of each of the four pictures that show an image."""


def confusion_pictures(result: Evaluation) -> dict[str, Pixels]:
    """Return the confusion matrices by the stem of their file."""
    return {
        name if name == "confusion" else f"confusion_{name}": visualize.confusion_picture(*held)
        for name, held in result.metric.matrices().items()
    }


def bar_pictures(result: Evaluation) -> dict[str, Pixels]:
    """Return `bars`, one bar per class, if the classes have scores."""
    rows = result.per_class
    column = next((key for key in BARS if rows and key in rows[0]), None)
    if column is None:
        return {}
    values = {row["name"]: row[column] for row in rows}
    return {"bars": visualize.bar_chart(values, title=f"{BARS[column]} by class")}


def worst_pictures(shown: list[Shown], dataset: Dataset) -> list[Picture]:
    """Return for each image: image, truth, prediction and errors side by side.

    Args:
        shown: Images with their results.
        dataset: Where they come from.
    """
    pictures = []
    for scores, result, target in shown:
        maps = class_maps(result, target)
        image = Image.fromarray(dataset[scores.number].image)
        height, width = maps.truth.shape
        if image.size != (width, height):  # scored at the size of the input
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        picture = visualize.comparison(
            np.asarray(image), maps.truth, maps.prediction, maps.palette, maps.names,
            cell_width=CELL,
        )  # fmt: skip
        name = MEANS[next(iter(scores.scores))]
        facts = "".join(f", {key} {value}" for key, value in scores.attributes.items())
        pictures.append(Picture(picture, f"{scores.path}: {name} {scores.mean:.4f}{facts}"))
    return pictures


def sheet(pictures: list[Picture]) -> Pixels:
    """Return pictures below each other with their captions."""
    return visualize.contact_sheet(
        [item.pixels for item in pictures],
        titles=[item.caption for item in pictures],
        columns=1,
        cell_width=max(item.pixels.shape[1] for item in pictures),
    )
