"""Section `quantize` of a recipe: what it refuses, what it changes, and an exact resume."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rtseg
from rtseg.checkpoint import save
from rtseg.errors import CheckpointError, ConfigError
from rtseg.evaluation import score
from rtseg.quantization import (
    Calibration,
    FakeQuantize,
    QuantizedLayer,
    QuantizedNetwork,
    calibrate,
)
from rtseg.recipe import build, read_recipe, train
from rtseg.training.hooks import no_hooks
from rtseg.training.run_log import read_log
from training.test_loop import assert_same_run

TEXT = """
model: {name: twinmixing_nano}
data:
  train: {name: synthetic, split: train, size: [32, 64], length: 6}
  val: {name: synthetic, split: val, size: [32, 64], length: 1}
  augment: {flip: 0.5}
  preprocess: {mean: [0, 0, 0], std: [255, 255, 255], stride: 32}
task: {name: road_lane}
train:
  {iterations: 4, batch_size: 2, device: cpu, monitor: score, log_every: 1, val_every: 2,
   save_every: 1, threads: 1, show_images: 0}
optimizer: {name: adamw, lr: 1.0e-3}
schedule: {name: constant}
quantize: {images: 3, follow: 0.5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def ranges(state: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in state.items() if name.endswith((".low", ".high"))}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("quantize.imgaes=2", "quantize.imgaes is unknown. Did you mean 'images'?"),
        ("quantize=true", "quantize: True is no mapping"),
        ("quantize.images=0", "quantize.images: 0 is too small"),
        ("quantize.follow=80", "quantize.follow: 80.0 is outside 0..1"),
        ("quantize.float_layers=[heads]", "no layer has a name like 'heads'"),
        ("train.ema_decay=0.9", "train.ema_decay: an average of the weights"),
        ("binarize={lengths: [1, 2, 1]}", "binarize"),
        ("quantise={}", "section 'quantise' is unknown; did you mean 'quantize'"),
    ],
)
def test_wrong_sections_are_refused_in_one_sentence(file: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(read_recipe(file, [override]))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_and_quantized_weights_exclude_each_other(file: Path) -> None:
    overrides = [
        "model={name: bisegunet, width: 0.125, stem_stride: 2}", "task={name: semantic}",
        "train.monitor=miou", "binarize={lengths: [1, 2, 1]}",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="cannot become binary in a quantized network"):
        build(read_recipe(file, overrides))


def test_the_section_can_be_switched_off(file: Path) -> None:
    plan = build(read_recipe(file, ["quantize=null"]))
    assert not isinstance(plan.model, QuantizedNetwork)
    assert plan.hooks is no_hooks
    assert plan.notes == ()


def test_without_weights_to_start_from_the_run_says_so(file: Path, tmp_path: Path) -> None:
    assert "random weights" in build(read_recipe(file)).notes[0]
    train(read_recipe(file, ["quantize=null", "train.iterations=1"]), tmp_path / "float")
    given = f"model.weights={tmp_path / 'float'}"
    plan = build(read_recipe(file, [given]))
    assert plan.notes[0].startswith("network starts from")
    assert isinstance(plan.model, QuantizedNetwork)
    first = plan.model.get_submodule("network.encoder.stem.spatial.conv")
    layer = next(module for module in first.modules() if isinstance(module, QuantizedLayer))
    trained = rtseg.load(tmp_path / "float").model.folded()  # type: ignore[operator]
    assert torch.equal(layer.layer.weight, trained.encoder.stem.spatial.conv.weight)


def test_a_run_calibrates_then_follows_then_rests(file: Path, tmp_path: Path) -> None:
    """With no rate the weights stay, so that the first step has the ranges of a calibration."""
    kept: list[dict[str, Any]] = []
    folder = tmp_path / "run"

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] > 1:
            state = torch.load(folder / "last" / "train_state.pt", weights_only=True)
            kept.append(state["model"])

    recipe = read_recipe(file, ["quantize.follow=0.5", "train.iterations=5"])
    train(recipe, folder, display=keep)
    one, two, three, four = (ranges(state) for state in kept)
    assert one != two  # steps 0 and 1 of 5 follow: round(2.5) = 2
    assert two == three == four
    norms = [
        {name: value.tolist() for name, value in state.items() if name.endswith("running_mean")}
        for state in kept
    ]
    assert norms[0] != norms[1]
    assert norms[1] == norms[2] == norms[3]
    event = next(item for item in read_log(folder) if item["event"] == "calibrate")
    assert (event["images"], event["rest"]) == (3, 2)
    weights = [name for name in kept[0] if name.endswith("layer.weight")]
    assert any(not torch.equal(kept[1][name], kept[3][name]) for name in weights)


def test_ranges_are_taken_from_training_images_without_augmentation(
    file: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(file, ["quantize.follow=0", "train.iterations=1"])
    plan = build(recipe)
    images = Calibration(plan.data.train, plan.data.preprocess, count=3, seed=0)
    calibrate(plan.model, images)
    train(recipe, tmp_path / "run")
    saved = rtseg.load(tmp_path / "run" / "last").model.state_dict()
    assert ranges(saved) == ranges(plan.model.state_dict())
    assert all(high > 0 for name, high in ranges(saved).items() if name.endswith("input.high"))


@pytest.mark.slow
def test_a_run_goes_on_exactly_from_every_step(file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"

    def keep(event: dict[str, Any]) -> None:
        """Copy what a process leaves that ends when a line is logged, before the step is saved."""
        if event["event"] == "train" and event["step"] > 1:
            shutil.copytree(whole, tmp_path / f"stopped{event['step'] - 1}")

    train(read_recipe(file), whole, display=keep)
    stopped = sorted(tmp_path.glob("stopped*"))
    assert len(stopped) == 3
    for folder in stopped:
        torch.manual_seed(12345)  # a fresh process has another random state
        train(dataclasses.replace(read_recipe(file), run=folder), folder, resume=True)
        assert_same_run(whole, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "own.yaml").write_text(TEXT, encoding="utf-8")
    train(read_recipe(folder / "own.yaml", ["train.iterations=1"]), folder / "run")
    return folder / "run"


def test_a_quantized_checkpoint_loads_scores_and_predicts(file: Path, trained: Path) -> None:
    loaded = rtseg.load(trained / "last")
    assert isinstance(loaded.model, QuantizedNetwork)
    assert sum(isinstance(m, FakeQuantize) for m in loaded.model.modules()) > 50
    val = build(read_recipe(file)).data.val
    assert val is not None
    assert score(loaded, val).scores == pytest.approx(loaded.info.facts["scores"])
    sample = val[0]
    result = rtseg.Predictor.load(trained / "last", device="cpu")(sample.image)
    assert result.drivable.shape == (32, 64)


def test_a_checkpoint_with_another_description_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "last", tmp_path / "last")
    config = tmp_path / "last" / "config.json"
    info = json.loads(config.read_text())
    for section, says in (({"float_layers": ["heads"]}, "no layer"), (True, "describes another")):
        info["recipe"]["quantize"] = section
        config.write_text(json.dumps(info))
        with pytest.raises(CheckpointError, match=says):
            rtseg.load(tmp_path / "last")


def test_a_network_of_ones_own_is_quantized_on_loading(trained: Path) -> None:
    known = rtseg.load(trained / "last")
    own: nn.Module = rtseg.create_model("twinmixing_nano")
    loaded = rtseg.load(trained / "last", model=own)
    assert isinstance(loaded.model, QuantizedNetwork)
    again = rtseg.load(trained / "last", model=loaded.model)
    assert again.model is loaded.model
    for name, value in known.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])


def test_a_quantized_network_without_training_can_be_saved(file: Path, tmp_path: Path) -> None:
    plan = build(read_recipe(file))
    calibrate(plan.model, Calibration(plan.data.train, plan.data.preprocess, count=2))
    save(tmp_path / "saved", plan.model.state_dict(), plan.info)
    loaded = rtseg.load(tmp_path / "saved").model
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).lane, plan.model(images).lane)
