"""The recipes of BiSeNetFormer hold the numbers of its paper and of Mask2Former."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rtseg.benchmark.complexity import count_parameters
from rtseg.models import MODELS
from rtseg.recipe import list_recipes, read_recipe

PAPER = [
    ("cityscapes_stdc1", 1024, 4096, 90_000, (80_000, 86_667)),
    ("cityscapes_stdc2", 1024, 4096, 90_000, (80_000, 86_667)),
    ("ade20k_stdc1", 512, 2048, 160_000, (142_222, 154_074)),
    ("ade20k_stdc2", 512, 2048, 160_000, (142_222, 154_074)),
    ("cityscapes_panoptic_stdc2", 1024, 4096, 90_000, (80_000, 86_667)),
    ("cityscapes_panoptic_r50", 1024, 4096, 90_000, (80_000, 86_667)),
    ("ade20k_panoptic_stdc2", 640, 2560, 160_000, (142_222, 154_074)),
    ("ade20k_panoptic_r50", 640, 2560, 160_000, (142_222, 154_074)),
]
ROWS = {
    "cityscapes_panoptic_stdc2@levels2_stages1": 12_917_044,
    "cityscapes_panoptic_stdc2@levels2_stages2": 15_023_924,
    "cityscapes_panoptic_stdc2@levels3_stages1": 14_003_508,
    "cityscapes_panoptic_stdc2@levels3_stages2": 17_163_828,
    "cityscapes_panoptic_stdc2@levels3_stages3": 20_324_148,
    "cityscapes_panoptic_stdc2@queries50": 17_105_204,
    "cityscapes_panoptic_stdc2@queries200": 17_182_004,
    "ade20k_stdc2@stdc2_m": 13_536_791,
}


@pytest.fixture(autouse=True)
def datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEG_DATASETS", "nowhere")


def sections(name: str) -> dict[str, Any]:
    return read_recipe(f"bisenetformer/{name}").sections


@pytest.mark.parametrize(("name", "crop", "cap", "steps", "milestones"), PAPER)
def test_recipe_trains_as_published(
    name: str, crop: int, cap: int, steps: int, milestones: tuple[int, int]
) -> None:
    recipe = sections(name)
    train, optimizer, data = recipe["train"], recipe["optimizer"], recipe["data"]
    assert (train["iterations"], train["batch_size"]) == (steps, 32)
    assert (optimizer["name"], optimizer["lr"], optimizer["weight_decay"]) == ("adamw", 3e-4, 0.05)
    assert optimizer["backbone_multiplier"] == 0.1
    assert data["augment"]["crop"] == [crop, crop]
    # Mask2Former's.
    assert data["augment"]["short_side"] == [int(crop * 0.1 * tenth) for tenth in range(5, 21)]
    assert data["augment"]["max_long_side"] == cap
    assert (data["augment"]["distort"], data["augment"]["flip"]) == (True, 0.5)
    assert tuple(recipe["schedule"]["milestones"]) == milestones
    assert train["clip_norm"] == 0.01
    assert optimizer["decay_biases"] is True
    assert optimizer["no_decay"] == ["q_feat", "q_pos"]
    panoptic = "panoptic" in name
    assert recipe["task"]["name"] == ("panoptic" if panoptic else "semantic_masks")
    assert train["monitor"] == ("pq" if panoptic else "miou")
    assert all(data[part].get("panoptic", False) == panoptic for part in ("train", "val"))
    whole = data["preprocess"].get("short_side")  # Cityscapes is scored at its own size
    assert whole == (None if name.startswith("cityscapes") else crop)


@pytest.mark.parametrize(("name", "parameters"), ROWS.items())
def test_row_builds_the_network_of_its_table(name: str, parameters: int) -> None:
    model = sections(name)["model"]
    switches = {key: value for key, value in model.items() if key != "name"}
    with torch.device("meta"):
        built = MODELS[model["name"]](150 if name.startswith("ade20k") else 19, **switches)
    assert count_parameters(built) == parameters


def test_all_rows_are_known() -> None:
    rows = [name for name in list_recipes() if name.startswith("bisenetformer/") and "@" in name]
    assert sorted(rows) == sorted(f"bisenetformer/{name}" for name in ROWS)
