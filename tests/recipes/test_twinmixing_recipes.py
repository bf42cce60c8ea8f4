"""TwinMixing's recipes hold the published numbers, and one of each kind takes a step."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.config import call, check, pick
from rtseg.data.driving import Driving
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.data.preprocess import Preprocess
from rtseg.models import MODELS
from rtseg.recipe import build, list_recipes, read_recipe
from rtseg.training.optim import OPTIMIZERS, SCHEDULES

RECIPES = {
    "twinmixing/bdd100k_base": 434_085,
    "twinmixing/bdd100k_base@drivable_only": 411_325,
    "twinmixing/bdd100k_base@lane_only": 411_325,
    "twinmixing/bdd100k_base@no_coarse": 429_361,
    "twinmixing/bdd100k_base@no_fine": 393_289,
    "twinmixing/bdd100k_base@qat_base": 434_085,
    "twinmixing/bdd100k_large": 1_501_681,
    "twinmixing/bdd100k_large@qat_large": 1_501_681,
    "twinmixing/bdd100k_nano": 24_167,
    "twinmixing/bdd100k_tiny": 98_176,
    "twinmixing/bdd100k_tiny@dilations_1": 98_176,
    "twinmixing/bdd100k_tiny@dilations_16": 98_176,
    "twinmixing/bdd100k_tiny@dilations_4": 98_176,
    "twinmixing/bdd100k_tiny@epochs_50": 98_176,
    "twinmixing/bdd100k_tiny@groups_1": 115_048,
    "twinmixing/bdd100k_tiny@groups_16": 98_496,
    "twinmixing/bdd100k_tiny@groups_2": 104_512,
    "twinmixing/bdd100k_tiny@groups_32": 98_176,
    "twinmixing/bdd100k_tiny@groups_4": 100_704,
    "twinmixing/bdd100k_tiny@groups_8": 99_232,
    "twinmixing/bdd100k_tiny@qat_tiny": 98_176,
    "twinmixing/synthetic": 98_176,
    "twinmixing/synthetic_camvid_base": 434_085,
    "twinmixing/synthetic_camvid_tiny": 98_176,
    "twinmixing/synthetic_qat": 98_176,
}
PAPER = [name for name in RECIPES if "bdd100k" in name and "@qat" not in name]
SHRUNK = (
    "train.batch_size=2", "train.epochs=2", "data.workers=0",
    "data.preprocess.size=[36,64]", "data.preprocess.letterbox=[64,64]",
)  # fmt: skip


def sections_of(name: str) -> dict[str, Any]:
    return read_recipe(name).sections


def network(name: str) -> nn.Module:
    """Build the network of a recipe without data and without drawing weights."""
    builder, switches = pick(MODELS, sections_of(name)["model"], section="model")
    with torch.device("meta"):
        return call(builder, switches, section="model")


def test_the_recipes_are_those_expected() -> None:
    assert [name for name in list_recipes() if name.startswith("twinmixing/")] == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_network_of_the_recipe_has_its_parameter_count(name: str) -> None:
    assert count_parameters(network(name)) == RECIPES[name]


@pytest.mark.parametrize("name", PAPER)
def test_all_paper_recipes_differ_in_little(name: str) -> None:
    base, sections = sections_of("twinmixing/bdd100k_base"), sections_of(name)
    for key in ("data", "optimizer"):
        assert sections[key] == base[key]
    short = name.startswith("twinmixing/bdd100k_tiny@")
    epochs = 50 if short else 100
    single = name.partition("@")[2] in ("drivable_only", "lane_only")
    task = sections["model"].get("tasks", "both")
    monitor = {"both": "score", "drivable": "drivable_miou", "lane": "lane_iou"}[task]
    assert single == (task != "both")
    assert sections["task"].get("tasks", "both") == task
    assert sections["train"] == {**base["train"], "epochs": epochs, "monitor": monitor}
    assert sections["schedule"] == {**base["schedule"], "epochs": epochs}


@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_eight_bit_rows_go_on_where_the_recipe_was_at_epoch_80(size: str) -> None:
    name = f"twinmixing/bdd100k_{size}"
    sections, whole = sections_of(f"{name}@qat_{size}"), sections_of(name)
    assert {key: sections[key] for key in ("model", "data", "task")} == {
        key: whole[key] for key in ("model", "data", "task")
    }
    assert (sections["train"]["epochs"], sections["train"]["ema_decay"]) == (10, None)
    assert sections["quantize"] == {"images": 4096, "follow": 0.8}
    rates = []
    for chosen, total, at in ((sections, 100, (0, 50, 90)), (whole, 1000, (800, 850, 890))):
        make, options = pick(SCHEDULES, chosen["schedule"], section="schedule")
        factor = make(total, **check(make, options, section="schedule", given=1))
        rates.append([chosen["optimizer"]["lr"] * factor(step) for step in at])
    assert rates[0] == pytest.approx(rates[1], rel=0.02)


def test_recipe_has_the_numbers_of_the_released_code() -> None:
    sections = sections_of("twinmixing/bdd100k_base")
    make, options = pick(SCHEDULES, sections["schedule"], section="schedule")
    epochs = sections["train"]["epochs"]
    factor = make(epochs, **check(make, options, section="schedule", given=1))
    lr = sections["optimizer"]["lr"]
    assert [lr * factor(e) for e in (0, 1, 50, 80, 99)] == pytest.approx(
        [5.0e-4, 4.9252e-4, 1.7678e-4, 4.472e-5, 5.0e-7], abs=1e-15
    )
    builder, options = pick(OPTIMIZERS, sections["optimizer"], section="optimizer")
    model = network("twinmixing/bdd100k_base")
    optimizer = builder(model, **check(builder, options, section="optimizer", given=1))
    assert type(optimizer).__name__ == "AdamW"
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}
    decayed = sum(item.numel() for group in optimizer.param_groups for item in group["params"])
    assert decayed == 434_085  # norms, slopes and biases too
    train = sections["train"]
    assert (train["batch_size"], train["ema_decay"], train["ema_ramp"]) == (16, 0.9999, 2000)
    augment = call(
        Driving, {k: v for k, v in sections["data"]["augment"].items() if k != "name"}, section="a"
    )
    assert (augment.degrees, augment.zoom, augment.shift) == (5.0, 0.2, 0.1)
    assert (augment.hue, augment.saturation, augment.value) == (0.015, 0.7, 0.4)
    assert augment.gaussian_sigma == (0.15, 1.3)


def test_an_image_becomes_a_centred_letterbox_in_0_to_1() -> None:
    preprocess = call(
        Preprocess, sections_of("twinmixing/bdd100k_tiny")["data"]["preprocess"], section="p"
    )
    image = np.zeros((720, 1280, 3), np.uint8)
    image[::2] = 255
    fitted = preprocess.fit(image)
    assert fitted.image.shape == (3, 384, 640)
    assert (fitted.meta.input_size, fitted.meta.padding) == ((360, 640), (24, 0))
    assert fitted.meta.offset == (12, 0)
    gray = torch.full((3, 12, 640), 114 / 255)
    torch.testing.assert_close(fitted.image[:, :12], gray)
    torch.testing.assert_close(fitted.image[:, -12:], gray)
    inside = fitted.image[:, 12:-12]  # two rows of 0 and 255, rounded
    torch.testing.assert_close(inside, torch.full((3, 360, 640), 0.5), rtol=0, atol=1 / 255)


# ---------------------------------------------------------------- one step
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of noise per split in the layout of BDD100K."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(2):
            masks = (rng.choice([0, 127, 191], (72, 128)), rng.choice([0, 255], (72, 128)))
            pixels = {
                "images": rng.integers(0, 256, (72, 128, 3)),
                "segment": np.stack([masks[0]] * 3 + [np.full((72, 128), 255)], axis=-1),
                "lane": np.stack([masks[1]] * 3 + [np.full((72, 128), 255)], axis=-1),
            }
            for kind, values in pixels.items():
                path = root / "bdd100k" / split / kind
                path.mkdir(parents=True, exist_ok=True)
                ending = "jpg" if kind == "images" else "png"
                Image.fromarray(values.astype(np.uint8)).save(path / f"{index}.{ending}")
    return root


@pytest.mark.parametrize("name", ["bdd100k_nano", "bdd100k_base@lane_only"])
def test_one_step_learns_both_maps(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSEG_DATASETS", str(folder))
    plan = build(read_recipe(f"twinmixing/{name}", SHRUNK))
    order = TrainBatches(len(plan.data.train), batch_size=2, seed=0)
    loader = train_loader(
        plan.data.train, order, augment=plan.data.augment, preprocess=plan.data.preprocess,
        target=plan.task.target, workers=0,
    )  # fmt: skip
    batch = next(opened(iter(loader)))
    assert batch.images.shape == (2, 3, 64, 64)
    for labels in batch.target:
        assert labels.shape == (2, 64, 64)
        assert (labels[:, :14] == 255).all()
        assert (labels[:, 50:] == 255).all()
        assert (labels[:, 14:50] <= 1).all()
    terms = plan.task.training_step(plan.model.train(), batch)
    assert len(terms) == (2 if "lane_only" in name else 4)
    torch.stack(list(terms.values())).sum().backward()
    optimizer = plan.optimizer(plan.model)
    before = {key: value.clone() for key, value in plan.model.state_dict().items()}
    optimizer.step()
    after = plan.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    changed = [key for key, value in after.items() if not torch.equal(value, before[key])]
    assert len(changed) > 0.5 * len(before)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of noise in the layout of CamVid's release of 11 classes; 3 is the road."""
    root = tmp_path_factory.mktemp("camvid_sets")
    rng = np.random.default_rng(0)
    for folder in ("train", "trainannot"):
        (root / "camvid" / folder).mkdir(parents=True)
        for index in range(2):
            size = (72, 128, 3) if folder == "train" else (72, 128)
            values = rng.choice([0, 3, 11], size).astype(np.uint8)
            Image.fromarray(values).save(root / "camvid" / folder / f"{index}.png")
    lines = [f"train/{index}.png trainannot/{index}.png\n" for index in range(2)]
    (root / "camvid" / "train.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize("camvid_weight", [2, 32])
def test_one_step_of_joint_training(
    camvid: Path, monkeypatch: pytest.MonkeyPatch, camvid_weight: int
) -> None:
    monkeypatch.setenv("RTSEG_DATASETS", str(camvid))
    small = (
        "data.train.0.size=[48,64]", "data.train.0.length=4", "data.augment.crop=[64,64]",
        f"data.train.1.weight={camvid_weight}", "train.batch_size=8", "data.workers=0",
    )  # fmt: skip
    plan = build(read_recipe("twinmixing/synthetic_camvid_tiny", small))
    assert plan.data.epoch_length == 4 + 2 * camvid_weight
    order = TrainBatches(plan.data.source, batch_size=8, seed=0)
    loader = train_loader(
        plan.data.train, order, augment=plan.data.augment, preprocess=plan.data.preprocess,
        target=plan.task.target, workers=0,
    )  # fmt: skip
    batches = itertools.islice(opened(iter(loader)), 8)
    # With weight 32 there is a batch of CamVid alone, in which no lane is known.
    batch = next(
        item for item in batches
        if camvid_weight == 2 or all("camvid" in meta.path for meta in item.meta)
    )  # fmt: skip
    scenes = torch.tensor([meta.path.startswith("synthetic") for meta in batch.meta])
    labelled = (batch.target.lane != 255).flatten(1).any(1)
    assert torch.equal(labelled, scenes)
    assert (batch.target.drivable != 255).flatten(1).any(1).all()
    terms = plan.task.training_step(plan.model.train(), batch)
    lane = terms["lane_focal"] + terms["lane_tversky"]
    assert (float(lane.detach()) == 0) == (camvid_weight == 32)
    torch.stack(list(terms.values())).sum().backward()
    gradients = {
        name: parameter.grad for name, parameter in plan.model.named_parameters()
        if parameter.grad is not None
    }  # fmt: skip
    assert all(item.isfinite().all() for item in gradients.values())
    assert any(item.any() for name, item in gradients.items() if "lane" not in name)
    if camvid_weight == 32:
        only_lane = [item for name, item in gradients.items() if "lane" in name]
        assert only_lane
        assert not any(item.any() for item in only_lane)
