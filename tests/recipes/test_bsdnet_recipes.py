"""BSDNet's recipes hold the published numbers, and its kinds of training take a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from recipes.toy_data import stand_in, teacher
from rtseg.benchmark.complexity import count_parameters
from rtseg.config import check, pick
from rtseg.data import DATASETS
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.errors import ConfigError
from rtseg.models import MODELS
from rtseg.recipe import build, list_recipes, read_recipe
from rtseg.structures import Batch, SemanticTarget
from rtseg.training.distill import DistilledTask
from rtseg.training.optim import OPTIMIZERS, SCHEDULES, apply_schedule
from rtseg.training.teachers import TEACHERS

AUX_S, AUX_B = 38_419, 150_547
# Parameters with 19 classes (11, 150, 1000 where the data have those), auxiliary head included.
RECIPES = {
    "bsdnet/ade20k_b": 16_182_742 + AUX_B + 131 * 129,
    "bsdnet/ade20k_b@sidm_ade20k_b": 16_182_742 + AUX_B + 131 * 129,
    "bsdnet/ade20k_s": 4_371_254 + AUX_S + 131 * 65,
    "bsdnet/ade20k_s@sidm_ade20k_s": 4_371_254 + AUX_S + 131 * 65,
    "bsdnet/camvid_b": 16_147_019 + AUX_B - 8 * 129,
    "bsdnet/camvid_b@sidm_camvid_b": 16_147_019 + AUX_B - 8 * 129,
    "bsdnet/camvid_half": 4_353_323 + AUX_S - 8 * 65,
    "bsdnet/camvid_s": 4_353_323 + AUX_S - 8 * 65,
    "bsdnet/camvid_s@sidm_camvid_s": 4_353_323 + AUX_S - 8 * 65,
    "bsdnet/camvid_small_b": 16_147_019 + AUX_B - 8 * 129,
    "bsdnet/camvid_small_s": 4_353_323 + AUX_S - 8 * 65,
    "bsdnet/cityscapes_b": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@baseline": 16_290_899 + AUX_B,
    "bsdnet/cityscapes_b@block_cfblock": 19_004_755 + AUX_B,
    "bsdnet/cityscapes_b@block_fcb": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@block_gfa": 19_037_523 + AUX_B,
    "bsdnet/cityscapes_b@block_mscan": 13_931_347 + AUX_B,
    "bsdnet/cityscapes_b@block_resblock": 17_857_875 + AUX_B,
    "bsdnet/cityscapes_b@block_segformer": 14_642_003 + AUX_B,
    "bsdnet/cityscapes_b@context_aspp": 15_491_795 + AUX_B,
    "bsdnet/cityscapes_b@context_dappm": 14_582_099 + AUX_B,
    "bsdnet/cityscapes_b@context_dasp_max": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@cwd": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@fcb": 14_582_099 + AUX_B,
    "bsdnet/cityscapes_b@ofa": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@sctnet_sidm_seg100": 17_437_779 + AUX_B,
    "bsdnet/cityscapes_b@sidm_seg100": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_10": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_11": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_12": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_13": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_14": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b@theta_16": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b_seg75": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b_seg75@baseline_seg50": 16_290_899 + AUX_B,
    "bsdnet/cityscapes_b_seg75@baseline_seg75": 16_290_899 + AUX_B,
    "bsdnet/cityscapes_b_seg75@fcb_seg50": 14_582_099 + AUX_B,
    "bsdnet/cityscapes_b_seg75@fcb_seg75": 14_582_099 + AUX_B,
    "bsdnet/cityscapes_b_seg75@sctnet_sidm_seg50": 17_437_779 + AUX_B,
    "bsdnet/cityscapes_b_seg75@sctnet_sidm_seg75": 17_437_779 + AUX_B,
    "bsdnet/cityscapes_b_seg75@seg50": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b_seg75@sidm_seg50": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_b_seg75@sidm_seg75": 16_149_075 + AUX_B,
    "bsdnet/cityscapes_s": 4_354_355 + AUX_S,
    "bsdnet/cityscapes_s@sidm_s_seg50": 4_354_355 + AUX_S,
    "bsdnet/cityscapes_s@sidm_s_seg75": 4_354_355 + AUX_S,
    "bsdnet/imagenet_b": 13_424_296,
    "bsdnet/imagenet_s": 3_799_368,
    "bsdnet/synthetic": 4_354_355 + AUX_S,
    "bsdnet/synthetic_qat": 4_354_355 + AUX_S,
}
SMALL = ("data.augment.crop=[64,64]", "data.augment.base_size=[48,64]")
CLASSES = {"camvid": 11, "cityscapes": 19, "ade20k": 150, "image_folder": 1000, "synthetic": 19}
# Base learning rate of the trunk, weight decay, smallest rate, scale range and crop.
# Source: the paper, section 4.1; the smallest rate and ADE20K's scale range are SCTNet's.
PUBLISHED: dict[str, tuple[float, float, float, list[float], list[int]]] = {
    "cityscapes_s": (4e-4, 0.0125, 1e-6, [0.25, 1.5], [512, 1024]),
    "cityscapes_b_seg75": (4e-4, 0.0125, 1e-6, [0.25, 1.5], [512, 1024]),
    "cityscapes_b": (4e-4, 0.0125, 1e-6, [0.25, 1.5], [1024, 1024]),
    "camvid_s": (1e-3, 0.0125, 1e-6, [0.25, 1.5], [720, 960]),
    "camvid_b": (1e-3, 0.0125, 1e-6, [0.25, 1.5], [720, 960]),
    "ade20k_s": (5e-4, 0.01, 0.0, [0.5, 2.0], [512, 512]),
    "ade20k_b": (5e-4, 0.01, 0.0, [0.5, 2.0], [512, 512]),
}


def network(name: str) -> nn.Module:
    """Build the network of a recipe without data and without drawing weights."""
    sections = read_recipe(name).sections
    builder, switches = pick(MODELS, sections["model"], section="model")
    with torch.device("meta"):
        return builder(CLASSES[sections["data"]["train"]["name"]], **switches)


def test_the_recipes_are_those_expected() -> None:
    assert [name for name in list_recipes() if name.startswith("bsdnet/")] == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_network_of_the_recipe_has_its_parameter_count(name: str) -> None:
    assert count_parameters(network(name)) == RECIPES[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_the_published_numbers(name: str) -> None:
    sections = read_recipe(f"bsdnet/{name}").sections
    lr, decay, least, scales, crop = PUBLISHED[name]
    model = network(f"bsdnet/{name}")
    builder, options = pick(OPTIMIZERS, sections["optimizer"], section="optimizer")
    optimizer = builder(model, **check(builder, options, section="optimizer", given=1))
    assert type(optimizer).__name__ == "AdamW"
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        trunk = {names[id(item)].startswith("backbone.") for item in group["params"]}
        assert len(trunk) == 1
        assert group["lr"] == pytest.approx(lr if trunk == {True} else 10 * lr)
    assert max(group["weight_decay"] for group in optimizer.param_groups) == decay
    make, options = pick(SCHEDULES, sections["schedule"], section="schedule")
    steps = sections["train"]["iterations"]
    factor = make(steps, **check(make, options, section="schedule", given=1))
    assert lr * factor(steps) == pytest.approx(least)
    assert factor(0) == pytest.approx(1e-6)
    assert factor(1500) == pytest.approx((1 - 1500 / steps) ** 0.9, rel=1e-3)
    augment = sections["data"]["augment"]
    assert (augment["scale_range"], augment["crop"]) == (scales, crop)
    assert (augment["flip"], augment["max_class_share"], augment["distort"]) == (0.5, 0.75, True)
    assert sections["task"] == {"name": "semantic", "loss": "ce", "aux_weight": 0.4}


def test_test_scales_are_the_published_ones() -> None:
    sizes = {
        name: read_recipe(f"bsdnet/{name}").sections["data"]["preprocess"].get("size")
        for name in (
            "cityscapes_b", "cityscapes_b@fcb", "cityscapes_b_seg75", "cityscapes_b_seg75@seg50",
            "cityscapes_b_seg75@baseline_seg50", "cityscapes_b_seg75@fcb_seg50", "cityscapes_s",
        )
    }  # fmt: skip
    assert list(sizes.values()) == [
        None, None, [768, 1536], [512, 1024], [512, 1024], [512, 1024], [768, 1536],
    ]  # fmt: skip
    for name in ("cityscapes_b_seg75", "cityscapes_b_seg75@seg50", "cityscapes_s"):
        rule = read_recipe(f"bsdnet/{name}").sections["data"]["preprocess"]
        assert rule["resize"] == "evaluation"


def test_sizes_differ_in_the_network_only() -> None:
    for data in ("camvid", "ade20k", "imagenet"):
        small, base = (read_recipe(f"bsdnet/{data}_{size}").sections for size in "sb")
        if "distill" in base:
            teachers = [item["distill"]["teacher"]["path"] for item in (small, base)]
            assert teachers == [f"teachers/segformer_{size}_{data}" for size in ("b2", "b3")]
            small["distill"]["teacher"] = base["distill"]["teacher"]
        assert {**small, "model": base["model"]} == base
        assert base["model"]["name"] == small["model"]["name"].replace("bsdnet_s", "bsdnet_b")


# ---------------------------------------------------------------- distillation
def test_recipes_learn_from_no_teacher_unless_a_row_says_so() -> None:
    sections = {name.partition("/")[2]: read_recipe(name).sections for name in RECIPES}
    rows = {
        name: item["distill"]
        for name, item in sections.items()
        if item.get("distill", {}).get("teacher", {}).get("name") == "segformer"
    }
    modes = {name: section["mode"] for name, section in rows.items()}
    taught = {name for name in modes if any(part in name for part in ("sidm", "context_", "theta"))}
    single = {"cityscapes_b@cwd": "cwd", "cityscapes_b@ofa": "ofa"}
    assert {name for name, mode in modes.items() if mode == "both"} == taught
    assert len(taught) == 21
    assert {name: mode for name, mode in modes.items() if mode in ("cwd", "ofa")} == single
    assert all(modes[name] == "none" for name in modes.keys() - taught - single.keys())
    own = sections["camvid_half"]["distill"]
    assert own["teacher"] == {"name": "rtseg", "path": "runs/distillation_camvid/teacher"}
    assert own["mode"] == "none"
    for name, section in rows.items():
        small = sections[name]["model"]["name"] == "bsdnet_s"
        data = sections[name]["data"]["train"]["name"]
        wanted = f"teachers/segformer_{'b2' if small else 'b3'}_{data}"
        assert section["teacher"]["path"] == wanted
        assert section["theta"] == (int(name[-2:]) / 10 if "theta_" in name else 1.5)


@pytest.mark.parametrize("network", ["bsdnet_s", "sctnet_s"])
def test_rows_with_a_teacher_add_both_terms(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "segformer", teacher)
    monkeypatch.setitem(DATASETS, "camvid", stand_in("camvid"))
    sizes = (*SMALL, "data.preprocess.size=[64,64]", f"model.name={network}")
    plan = build(read_recipe("bsdnet/camvid_s@sidm_camvid_s", [*sizes, "train.batch_size=2"]))
    assert isinstance(plan.task, DistilledTask)
    projections = plan.task.projections
    assert sum(item.numel() for item in projections.parameters()) == 172_864
    target = SemanticTarget(torch.randint(0, 11, (2, 64, 64)))
    terms = plan.task.training_step(plan.model, Batch(torch.randn(2, 3, 64, 64), target, ()))
    assert list(terms) == ["loss", "aux", "cwd", "ofa"]
    with pytest.raises(ConfigError, match=r"distill\.misspelt is unknown"):
        build(read_recipe("bsdnet/camvid_s@sidm_camvid_s", ["distill.misspelt=1"]))


# ---------------------------------------------------------------- one step
def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of noise per split in the layout of each data set."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)

    def noise(high: int, *channels: int) -> Any:
        return rng.integers(0, high, (48, 64, *channels), dtype=np.uint8)

    for index in range(4):
        for split in ("train", "val", "test"):
            write(root / f"camvid/{split}/{index}.png", noise(256, 3))
            write(root / f"camvid/{split}annot/{index}.png", noise(12))
            lines = [f"{split}/{i}.png {split}annot/{i}.png" for i in range(index + 1)]
            (root / f"camvid/{split}.txt").write_text("\n".join(lines), encoding="utf-8")
        for split in ("train", "val"):
            frame = f"{split}/ulm/ulm_000000_{index:06d}"
            write(root / f"cityscapes/leftImg8bit/{frame}_leftImg8bit.png", noise(256, 3))
            write(root / f"cityscapes/gtFine/{frame}_gtFine_labelIds.png", noise(34))
            write(root / f"imagenet/{split}/{'ab'[index % 2]}/{index}.png", noise(256, 3))
        for split in ("training", "validation"):
            write(root / f"ade20k/images/{split}/{index}.jpg", noise(256, 3))
            write(root / f"ade20k/annotations/{split}/{index}.png", noise(151))
    return root


STEPS: dict[str, tuple[str, ...]] = {
    "bsdnet/cityscapes_s": SMALL,
    "bsdnet/camvid_s": (*SMALL, "data.preprocess.size=[64,64]"),
    "bsdnet/ade20k_s": (*SMALL, "data.preprocess.short_side=64"),
    "bsdnet/imagenet_s": ("data.augment.size=64", "data.preprocess.short_side=64"),
    "bsdnet/synthetic": (
        "data.augment.crop=[64,64]", "data.train.size=[64,64]", "data.train.length=4",
        "data.val.size=[64,64]", "data.val.length=2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_one_step_changes_the_weights_and_keeps_them_finite(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSEG_DATASETS", str(folder))
    run = build(read_recipe(name, [*STEPS[name], "train.batch_size=2", "data.workers=0"]))
    data = run.data
    order = TrainBatches(len(data.train), batch_size=2, seed=run.options.seed)
    loader = train_loader(
        data.train, order, augment=data.augment, preprocess=data.preprocess,
        target=run.task.target, workers=0,
    )  # fmt: skip
    batch = next(opened(iter(loader)))
    assert batch.images.shape == (2, 3, 64, 64)
    optimizer = run.optimizer(run.model)
    apply_schedule(optimizer, run.schedule(1000)(50))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    terms = run.task.training_step(run.model.train(), batch)
    assert ("aux" in terms) == ("classifier" not in read_recipe(name).sections["model"]["name"])
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    after = run.model.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(changed) > 0.9 * len(before)
    assert all(torch.isfinite(value).all() for value in after.values())
