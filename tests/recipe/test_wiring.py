"""What a recipe says about starting weights, augmentation and label sizes reaches the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtseg import checkpoint
from rtseg.data.classification import RandomPart
from rtseg.data.driving import Driving
from rtseg.data.synthetic import Synthetic
from rtseg.data.transforms import Augment
from rtseg.errors import CheckpointError, ConfigError
from rtseg.evaluation import score
from rtseg.models import MODELS
from rtseg.recipe import build, read_recipe, resume_recipe, run, train
from rtseg.structures import RoadLaneOutput, SemanticOutput
from rtseg.training.run_log import read_log

TEXT = """
model: {name: small}
data:
  train: {name: synthetic, split: train, size: [32, 48], length: 4}
  val: {name: synthetic, split: val, size: [32, 48], length: 1}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 2, batch_size: 2, device: cpu, log_every: 1, threads: 1, save_every: 1}
optimizer: {name: sgd, lr: 1.0e-3}
schedule: {name: poly}
"""


class Small(nn.Module):
    """Two layers, of which the last depends on the number of classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.last = nn.Conv2d(4, num_classes, 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.last(self.first(images)))


class Road(nn.Module):
    """One map; no number of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> RoadLaneOutput:
        return RoadLaneOutput(None, self.layer(images))


@pytest.fixture(autouse=True)
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "small", Small)
    monkeypatch.setitem(MODELS, "road", Road)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the same network with 5 classes, in a checkpoint."""
    torch.manual_seed(9)
    info = checkpoint.ModelInfo("small", {}, "semantic", (), {})
    checkpoint.save(tmp_path / "start", Small(5).state_dict(), info)
    return tmp_path / "start"


def refusal(file: Path, overrides: Sequence[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- starting weights
def test_a_network_starts_from_given_weights_and_the_run_says_so(
    tmp_path: Path, file: Path, weights: Path
) -> None:
    recipe = read_recipe(file, [f"model.weights={weights}"])
    plan = build(recipe)
    given = checkpoint.read_weights(weights)
    assert torch.equal(plan.model.first.weight, given["first.weight"])  # type: ignore[union-attr, arg-type]
    plain: Any = build(read_recipe(file)).model
    assert torch.equal(plan.model.last.weight, plain.last.weight)  # type: ignore[union-attr, arg-type]
    run(plan, recipe, tmp_path / "run")
    note = read_log(tmp_path / "run")[0]
    assert note["event"] == "note"
    assert note["message"] == f"network starts from {weights} (2 tensors); left random: last"
    info = checkpoint.read_info(tmp_path / "run" / "last")
    assert info.options == {}
    facts = info.facts["starting_weights"]
    assert (facts["source"], facts["part"], facts["random"]) == (str(weights), "network", ["last"])
    assert len(facts["sha256"]) == 64
    assert checkpoint.load(tmp_path / "run").info.recipe["model"]["weights"] == str(weights)


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    tmp_path: Path, file: Path, weights: Path
) -> None:
    overrides = [f"model.weights={weights}"]
    train(read_recipe(file, overrides), tmp_path / "whole")
    folder = tmp_path / "parts"
    recipe = read_recipe(file, overrides)
    folder.mkdir()
    (folder / "config.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    stopped = build(resume_recipe(folder))  # stopped before the first save: it begins anew
    assert stopped.notes

    class StopError(Exception):
        pass

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 2:
            raise StopError

    with pytest.raises(StopError):
        run(stopped, recipe, folder, resume=True, display=display)
    (weights / "model.safetensors").unlink()
    train(resume_recipe(folder), folder, resume=True)
    one, two = (checkpoint.read_weights(tmp_path / name / "last") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    facts = [
        checkpoint.read_info(tmp_path / name / "last").facts["starting_weights"]
        for name in ("whole", "parts")
    ]
    assert facts[0] == facts[1]
    with pytest.raises(CheckpointError, match="cannot be read"):
        build(recipe)


def test_weights_that_are_no_text_or_not_there_are_named(file: Path) -> None:
    assert "model.weights: 3 is no text" in refusal(file, ["model.weights=3"])
    with pytest.raises(CheckpointError, match="does not exist"):
        build(read_recipe(file, ["model.weights=nowhere"]))


def test_a_network_without_classes_takes_none(file: Path) -> None:
    overrides = ["model.name=road", "task={name: road_lane, tasks: lane}", "train.monitor=lane_iou"]
    plan = build(read_recipe(file, overrides))
    assert isinstance(plan.model, Road)
    with pytest.raises(ConfigError, match="num_classes is unknown"):
        build(read_recipe(file, [*overrides, "model.num_classes=3"]))


# ---------------------------------------------------------------- data
@pytest.mark.parametrize(
    ("augment", "kind"),
    [
        ("{flip: 0.5}", Augment), ("{name: crop, crop: [32, 32]}", Augment), ("null", Augment),
        ("{name: driving, flip: 0.1}", Driving), ("{name: classification, size: 32}", RandomPart),
    ],
)  # fmt: skip
def test_augmentation_is_chosen_by_name(file: Path, augment: str, kind: type) -> None:
    assert type(build(read_recipe(file, [f"data.augment={augment}"])).data.augment) is kind


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.augment={name: drivign}", "data.augment.name: 'drivign' is unknown"),
        ("data.augment={name: driving, crop: [8, 8]}", "data.augment.crop is unknown"),
        ("data.augment=[1]", "data.augment: [1] is no mapping"),
        ("data.preprocess.mask_resize=max", "data.preprocess.mask_resize: is a key of section"),
        ("data.preprocess.score_at=input", "set data.score_at"),
        ("data.score_at=inputs", "score_at = 'inputs' does not fit"),
    ],
)
def test_keys_in_the_wrong_place_are_refused(file: Path, override: str, says: str) -> None:
    assert says in refusal(file, [override])


def test_label_rules_are_part_of_the_checkpoint_and_scored_with(tmp_path: Path, file: Path) -> None:
    overrides = [
        "model.name=road", "task={name: road_lane, tasks: lane}", "train.monitor=lane_iou",
        "data.preprocess={stride: 8, size: [16, 24]}", "data.mask_resize=max",
        "data.score_at=input",
    ]  # fmt: skip
    recipe = read_recipe(file, overrides)
    plan = build(recipe)
    assert (plan.data.preprocess.mask_resize, plan.data.preprocess.score_at) == ("max", "input")
    scores = run(plan, recipe, tmp_path / "run")
    info = checkpoint.read_info(tmp_path / "run" / "last")
    assert (info.preprocess["mask_resize"], info.preprocess["score_at"]) == ("max", "input")
    assert info.recipe["task"]["tasks"] == "lane"
    assert json.dumps(info.preprocess)
    scenes = Synthetic(split="val", size=(32, 48), length=1)
    again = score(checkpoint.load(tmp_path / "run" / "last"), scenes)
    assert again.scores == pytest.approx(scores)
    matrix, _ = again.metric.matrices()["lane"]
    assert matrix.sum() == 16 * 24


@pytest.mark.parametrize("where", ["data.train", "data.val"])
def test_both_sets_have_to_offer_the_labels(
    file: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def kinds(dataset: Synthetic) -> tuple[str, ...]:
        return ("lane",) if dataset.split == where.removeprefix("data.") else ("semantic",)

    monkeypatch.setattr(Synthetic, "kinds", property(kinds))
    assert f"{where}: the data set offers lane, the task needs 'semantic'" in refusal(file, [])
