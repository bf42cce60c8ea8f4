"""Every network predicts images of any size, through the same predictor."""

from __future__ import annotations

import pytest
import torch

from inference.tiny import CLASSES, draw
from rtseg.checkpoint import create_model
from rtseg.checkpoint.networks import class_count
from rtseg.data.transforms import Preprocess
from rtseg.inference.predictor import Predictor
from rtseg.models import MODELS
from rtseg.structures import (
    ClassificationResult,
    InstanceResult,
    PanopticResult,
    RoadLaneResult,
    SemanticResult,
)
from rtseg.tasks import TASKS

SIZES = [(32, 32), (33, 65)]


def tasks_of(name: str) -> tuple[str, ...]:
    if name.startswith("twinmixing"):
        return ("road_lane",)
    if name.endswith("_classifier"):
        return ("classification",)
    if name.startswith("bisenetformer"):
        return ("semantic_masks", "panoptic", "instance")
    return ("semantic",)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_results_have_the_size_of_the_image_down_to_32_pixels(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, class_count(name, len(CLASSES)))
    for task in tasks_of(name):
        predictor = Predictor(model, TASKS[task](CLASSES), Preprocess(), device="cpu")
        for height, width in SIZES:
            result = predictor(draw(height, width))
            assert result.image is not None
            assert result.image.shape == (height, width, 3)
            match result:
                case SemanticResult():
                    assert result.mask.shape == (height, width)
                    assert result.mask.max() < len(CLASSES)
                case PanopticResult():
                    assert result.ids.shape == (height, width)
                case InstanceResult():
                    assert result.masks.shape[1:] == (height, width)
                case RoadLaneResult():
                    assert result.drivable is not None
                    assert result.lane is not None
                    assert result.drivable.shape == result.lane.shape == (height, width)
                case ClassificationResult():
                    assert result.scores.shape == (len(CLASSES),)
                    assert result.scores.sum() == pytest.approx(1, abs=1e-3)
                case _:
                    pytest.fail(f"{name} gives {type(result).__name__}")
