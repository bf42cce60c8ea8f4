"""A new network costs one line in MODELS, whatever its task: it trains, is scored and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torch import Tensor, nn

import rtseg
from rtseg.data import DATASETS
from rtseg.data.synthetic import Synthetic
from rtseg.models import MODELS
from rtseg.structures import (
    ClassificationOutput,
    ClassificationResult,
    InstanceResult,
    MaskOutput,
    PanopticResult,
    RoadLaneOutput,
    RoadLaneResult,
    SemanticOutput,
    SemanticResult,
)
from rtseg.tasks import TASKS

SIZE = [32, 48]


class Sixth(nn.Module):
    """A network that nobody has seen before: a trunk and one layer."""

    def __init__(self, num_classes: int, *, width: int = 8) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.last(self.trunk(images)))


class SixthMasks(Sixth):
    """Four queries, whose masks are channels and whose classes come from their means."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(4)
        self.classes = nn.Linear(4, 4 * (num_classes + 1))

    def forward(self, images: Tensor) -> MaskOutput:  # type: ignore[override]
        masks = self.last(self.trunk(images))
        classes = self.classes(masks.mean((2, 3))).unflatten(1, (4, -1))
        return MaskOutput(classes, masks)


class SixthRoad(Sixth):
    """Two binary maps; no classes."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__(4, width=width)

    def forward(self, images: Tensor) -> RoadLaneOutput:  # type: ignore[override]
        drivable, lane = self.last(self.trunk(images)).chunk(2, dim=1)
        return RoadLaneOutput(drivable, lane)


class SixthClassifier(Sixth):
    """The same layers and an average."""

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]
        return ClassificationOutput(self.last(self.trunk(images)).mean((2, 3)))


NETWORKS: dict[str, tuple[Any, type, str]] = {
    "classification": (SixthClassifier, ClassificationResult, "accuracy"),
    "instance": (SixthMasks, InstanceResult, "ap"),
    "panoptic": (SixthMasks, PanopticResult, "pq"),
    "road_lane": (SixthRoad, RoadLaneResult, "score"),
    "semantic": (Sixth, SemanticResult, "miou"),
    "semantic_masks": (SixthMasks, SemanticResult, "miou"),
}


def sections(task: str, folder: Path) -> dict[str, Any]:
    """Return a recipe for a network named `sixth`, on data that offer what the task needs."""
    if task == "classification":
        for split in ("train", "val"):
            for index in range(6):
                path = folder / split / f"class{index % 3}" / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                level = 40 * index + (split == "val")  # no image is in two splits
                pixels = np.full((40, 40, 3), level, np.uint8)
                Image.fromarray(pixels).save(path)
        place = {"name": "image_folder", "root": str(folder)}
        data: dict[str, Any] = {
            "train": {**place, "split": "train"},
            "val": {**place, "split": "val"},
            "augment": {"name": "classification", "size": 32},
        }
    else:
        data = {
            split: {"name": "synthetic", "split": split, "size": SIZE, "length": length}
            for split, length in (("train", 6), ("val", 2))
        }
        data["augment"] = {"crop": SIZE, "flip": 0.5}
    return {
        "model": {"name": "sixth"},
        "data": {**data, "preprocess": {"stride": 8}},
        "task": {"name": task},
        "train": {
            "iterations": 2, "batch_size": 2, "device": "cpu", "log_every": 1,
            "monitor": NETWORKS[task][2],
        },
        "optimizer": {"name": "adam", "lr": 1e-3},
        "schedule": {"name": "poly"},
    }  # fmt: skip


def test_every_task_is_tried() -> None:
    assert set(NETWORKS) == set(TASKS)


@pytest.mark.parametrize("task", sorted(NETWORKS))
def test_a_sixth_network_trains_is_scored_and_predicts(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, result_type, monitor = NETWORKS[task]
    monkeypatch.setitem(MODELS, "sixth", network)  # the one line
    recipe = sections(task, tmp_path / "data")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    scores = rtseg.train(file, output=tmp_path / "run")
    assert monitor in scores
    for name in ("best", "last"):
        assert (tmp_path / "run" / name / "model.safetensors").is_file()
    section = dict(recipe["data"]["val"])
    scenes = DATASETS[section.pop("name")](**section)
    again = rtseg.evaluate(tmp_path / "run" / "last", scenes, device="cpu")
    assert again.scores == pytest.approx(scores, abs=1e-6)
    assert again.images == len(scenes)
    predictor = rtseg.Predictor.load(tmp_path / "run", device="cpu")
    result = predictor(Synthetic(split="val", size=(64, 80), length=1)[0].image)
    assert isinstance(result, result_type)
    assert result.save(tmp_path / "saved")
    assert result.to_dict()["height"] == 64
    assert (result.plot().shape[0], result.plot().dtype) == (64, np.uint8)


def test_its_switches_are_keys_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "sixth", SixthRoad)
    recipe = sections("road_lane", tmp_path)
    recipe["model"]["width"] = 5
    rtseg.train(recipe, output=tmp_path / "run")
    loaded = rtseg.load(tmp_path / "run")
    assert loaded.info.options == {"width": 5}
    assert loaded.model.last.in_channels == 5  # type: ignore[union-attr]
