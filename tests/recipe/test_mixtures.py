"""A list of data sets in a recipe: its keys, its refusals, its weights, and exact resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rtseg.checkpoint import read_weights
from rtseg.cli.main import main
from rtseg.data.mixture import Mixture
from rtseg.data.weights import class_statistics
from rtseg.errors import ConfigError
from rtseg.models import MODELS
from rtseg.recipe import build, read_recipe, resume_recipe, run, train
from rtseg.structures import RoadLaneOutput, SemanticOutput
from rtseg.training.run_log import read_log

TEXT = """
model: {name: small}
data:
  train:
    - {name: synthetic, split: train, size: [32, 48], length: 4}
    - {name: synthetic, split: train, size: [32, 48], length: 3, seed: 1, weight: 2}
  val: {name: synthetic, split: val, size: [32, 48], length: 1}
  augment: {flip: 0.5, crop: [32, 32]}
  preprocess: {stride: 8}
task: {name: semantic}
train: {iterations: 6, batch_size: 4, device: cpu, log_every: 1, threads: 1, save_every: 1}
optimizer: {name: sgd, lr: 1.0e-3}
schedule: {name: poly}
"""


class Small(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 3, 2, 1)

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.layer(images))


class Road(nn.Module):
    """Two maps, each of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.drivable, self.lane = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> RoadLaneOutput:
        return RoadLaneOutput(self.drivable(images), self.lane(images))


@pytest.fixture(autouse=True)
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "small", Small)
    monkeypatch.setitem(MODELS, "road", Road)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames with masks of 11 classes, of which 3 is the road."""
    root = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    lines = []
    for index in range(4):
        pixels = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
        mask = rng.choice([0, 3, 11], (32, 48)).astype(np.uint8)
        Image.fromarray(mask).save(root / f"{index}_mask.png")
        lines.append(f"{index}.png {index}_mask.png\n")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def refusal(file: Path, overrides: Sequence[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_list_of_sets_is_a_mixture(file: Path) -> None:
    data = build(read_recipe(file)).data
    assert isinstance(data.train, Mixture)
    assert data.train.weights == (1.0, 2.0)
    assert (len(data.train), data.epoch_length) == (7, 10)
    assert data.source is data.train
    longer = build(read_recipe(file, ["data.train.0.length=5", "data.train.1.weight=0.5"])).data
    assert (len(longer.train), longer.epoch_length) == (8, 7)
    single = build(read_recipe(file, ["data.train={name: synthetic, length: 9}"])).data
    assert (single.source, single.epoch_length) == (9, 9)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.train.1.lenght=4"], "data.train.1.lenght is unknown. Did you mean 'length'?"),
        (["data.train.1.name=sinthetic"], "data.train.1.name: 'sinthetic' is unknown"),
        (["data.train.1.weight=much"], "data.train.1.weight = 'much' does not fit"),
        (["data.train.1.weight=true"], "data.train.1.weight = True does not fit"),
        (["data.train.1.weight=0"], "data.train.1.weight: 0 draws none of 3 samples"),
        (["data.train.1.weight=.inf"], "data.train.1.weight: inf draws none of 3 samples"),
        (["data.train=[synthetic]"], "data.train.0: 'synthetic' is no mapping"),
        (["data.train=[]"], "list at least one data set"),
        (["data.train={name: synthetic, weight: 2}"], "data.train.weight is unknown"),
        (["data.val=[{name: synthetic}]"], "data.val: [{'name': 'synthetic'}] is no mapping"),
        (["data.val.split=train"], "'train' is part of the training set"),
        (["train.batch_size=11"], "larger than the training set (10 images)"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_number_of_its_set(
    file: Path, overrides: list[str], says: str
) -> None:
    assert says in refusal(file, overrides)


def test_the_validation_set_must_not_be_part_of_any_set(file: Path) -> None:
    # Only the second set is the one that is validated on.
    other = "data.train.0={name: image_folder, root: nowhere, split: val}"
    with pytest.raises(Exception, match="nowhere"):
        build(read_recipe(file, [other]))
    assert "is part of the training set" in refusal(file, ["data.train.1.split=val"])


def camvid_part(root: Path, **options: Any) -> str:
    text = ", ".join(f"{key}: {value}" for key, value in options.items())
    return f"data.train.1={{name: camvid, root: {root}, split: train, {text}}}"


ROAD = ["model.name=road", "task={name: road_lane}", "train.monitor=score"]


def test_sets_of_other_classes_are_refused(file: Path, camvid: Path) -> None:
    message = refusal(file, [camvid_part(camvid)])
    assert message.startswith("data.train.1: classes differ from those of data.train.0: 11 instead")


def test_every_set_must_offer_something_that_the_task_learns(file: Path, camvid: Path) -> None:
    message = refusal(file, [camvid_part(camvid, kinds="[drivable]")])
    assert message.startswith("data.train.1: the data set offers drivable, the task needs")
    message = refusal(file, [*ROAD, camvid_part(camvid, kinds="[semantic]")])
    assert message.startswith("data.train.1: ")
    lone = f"data.train=[{{name: camvid, root: {camvid}, split: train, kinds: [drivable]}}]"
    message = refusal(file, [*ROAD, lone])
    assert message.startswith("data.train: the data set offers drivable, the task needs 'lane'")


def test_joint_training_takes_what_a_set_lacks_for_void(
    tmp_path: Path, file: Path, camvid: Path
) -> None:
    overrides = [*ROAD, camvid_part(camvid, kinds="[drivable]", weight=1)]
    plan = build(read_recipe(file, overrides))
    scores = run(plan, read_recipe(file, overrides), tmp_path / "run")
    assert all(math.isfinite(score) for score in scores.values())


def test_the_validation_set_must_offer_all_kinds_but_only_class_ids_need_equal_classes(
    file: Path, camvid: Path
) -> None:
    val = f"{{name: camvid, root: {camvid}, split: val, kinds: [KINDS]}}"
    drivable, semantic = (f"data.val={val}".replace("KINDS", kind) for kind in
                          ("drivable", "semantic"))  # fmt: skip
    message = refusal(file, [*ROAD, camvid_part(camvid, kinds="[drivable]"), drivable])
    assert message.startswith("data.val: the data set offers drivable, the task needs 'lane'")
    assert "data.val: classes differ" in refusal(file, [semantic])


def test_class_weights_count_what_an_epoch_draws(file: Path) -> None:
    plan = build(read_recipe(file, ["task.class_weights=inverse_log"]))
    assert isinstance(plan.data.train, Mixture)
    one, two = (class_statistics(part) for part in plan.data.train.parts)
    pixels = np.array(one.pixels) + 2 * np.array(two.pixels)
    expected = 1 / np.log(1.02 + pixels / pixels.sum())
    weight: Tensor = plan.task.weight  # type: ignore[attr-defined]
    assert weight.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])  # an epoch has two batches
def test_a_run_on_a_mixture_goes_on_exactly(tmp_path: Path, file: Path, stop: int) -> None:
    overrides = ["data.train.0.weight=0.5", "data.train.1.weight=2"]  # 2 + 6 draws
    recipe = read_recipe(file, overrides)
    train(recipe, tmp_path / "whole")

    class StopError(Exception):
        pass

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == stop + 1:
            raise StopError

    with pytest.raises(StopError):
        run(build(recipe), recipe, tmp_path / "parts", display=display)
    train(resume_recipe(tmp_path / "parts"), tmp_path / "parts", resume=True)
    one, two = (read_weights(tmp_path / name / "last") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert read_log(tmp_path / "parts")[-1]["epoch"] == 3.0


def test_the_command_line_checks_all_sets_and_says_how_many_images_there_are(
    file: Path, camvid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = ["train.iterations=null", "train.epochs=3"]
    overrides = [*ROAD, camvid_part(camvid, kinds="[drivable]", weight=3), *length]
    assert main(["train", str(file), *overrides, "--dry-run", "--json"]) == 0
    document = capsys.readouterr().out
    assert '"train_images": 8' in document
    assert '"images_per_epoch": 16' in document
    assert '"steps": 12' in document
    (camvid / "3_mask.png").write_bytes(b"")
    assert main(["train", str(file), *overrides, "--dry-run"]) == 3
    assert "3_mask.png" in capsys.readouterr().err
