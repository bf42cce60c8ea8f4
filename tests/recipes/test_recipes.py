"""Every recipe of the package is read, checked, built and trained for one step on tiny files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.errors import ConfigError
from rtseg.models.lsa_binet import LSABiNet
from rtseg.recipe import SECTIONS, build, list_recipes, read_recipe, recipe_folder
from rtseg.training.optim import apply_schedule
from rtseg.training.options import Plan

# Parameters that each recipe's network has; a new recipe is a new line here.
RECIPES = {
    "dabnet/camvid": 754_571,
    "lsa_binet/camvid": 1_841_110,
    "lsa_binet/camvid@no_lrfa_rcad": 1_435_482,
    "lsa_binet/camvid@no_lrfa_svfm": 1_116_164,
    "lsa_binet/camvid@no_rcad": 1_479_517,
    "lsa_binet/camvid@no_svfm_rcad": 798_606,
    "lsa_binet/camvid_cpu": 1_841_110,
    "lsa_binet/cityscapes": 1_842_158,
    "lsa_binet/synthetic": 1_842_158,
}
SHRUNK = ("data.augment.crop=[64,64]", "train.batch_size=2", "data.workers=0")
FRAMES = 8  # two CamVid splits fill the largest batch


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_camvid(root: Path, rng: np.random.Generator) -> None:
    for split in ("train", "val", "test"):
        lines = []
        for index in range(FRAMES):
            image, mask = (f"{folder}/{index}.png" for folder in (split, f"{split}annot"))
            write_image(root / image, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            write_image(root / mask, rng.integers(0, 12, (48, 64), dtype=np.uint8))
            lines.append(f"{image} {mask}")
        (root / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")


def write_cityscapes(root: Path, rng: np.random.Generator) -> None:
    for split in ("train", "val"):
        for index in range(FRAMES):
            frame = f"{split}/ulm/ulm_000000_{index:06d}"
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            write_image(root / f"leftImg8bit/{frame}_leftImg8bit.png", image)
            mask = rng.integers(0, 34, (48, 64), dtype=np.uint8)
            write_image(root / f"gtFine/{frame}_gtFine_labelIds.png", mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of noise per split, in the layout of each data set that a recipe names."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    write_camvid(root / "camvid", rng)
    write_cityscapes(root / "cityscapes", rng)
    return root


@pytest.fixture(autouse=True)
def datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSEG_DATASETS", str(folder))


def built(name: str, overrides: Sequence[str] = ()) -> Plan:
    return build(read_recipe(name, overrides))


def files() -> list[Path]:
    return sorted(recipe_folder().rglob("*.yaml"))


def header(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


def test_the_recipes_are_those_expected() -> None:
    assert list_recipes() == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_with_every_section_checked(name: str) -> None:
    recipe = read_recipe(name)
    assert tuple(recipe.sections) == SECTIONS
    model = build(recipe).model
    assert sum(parameter.numel() for parameter in model.parameters()) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("section", SECTIONS)
def test_misspelt_key_is_refused_in_every_section(name: str, section: str) -> None:
    sections = ("data.train", "data.val", "data.augment", "data.preprocess")
    for place in sections if section == "data" else (section,):
        with pytest.raises(ConfigError, match=r"misspelt is unknown|takes no .*misspelt"):
            built(name, [f"{place}.misspelt=1"])


@pytest.mark.parametrize("name", RECIPES)
def test_one_step_changes_the_weights_and_keeps_them_finite(name: str) -> None:
    run = built(name, SHRUNK)
    data, options = run.data, run.options
    order = TrainBatches(len(data.train), batch_size=2, seed=options.seed)
    loader = train_loader(
        data.train, order, augment=data.augment, preprocess=data.preprocess,
        target=run.task.target, workers=0,
    )  # fmt: skip
    batch = next(opened(iter(loader)))
    assert batch.images.shape == (2, 3, 64, 64)
    optimizer = run.optimizer(run.model)
    apply_schedule(optimizer, run.schedule(options.steps(order.batches_per_epoch))(0))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    terms = run.task.training_step(run.model.train(), batch)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    after = run.model.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(changed) > 0.9 * len(before)
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_header_says_paper_command_and_what_to_expect(path: Path) -> None:
    lines = header(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80
    assert lines[0].startswith(("# Paper: ", "# Our own "))
    expected = [line for line in lines if line.startswith("# Expected: ")]
    assert len(expected) == 1
    commands = [line for line in lines if line.startswith("# Command: ")]
    assert len(commands) == 1
    match = re.fullmatch(r"# Command: +rtseg train (\S+)", commands[0])
    assert match is not None
    own = str(path.relative_to(recipe_folder()).with_suffix(""))
    rows = path.name == "ablations.yaml"
    assert match[1] in RECIPES if rows else match[1] == own


def test_ablation_rows_say_where_they_come_from_and_what_was_published() -> None:
    tables = [path for path in files() if path.name == "ablations.yaml"]
    assert tables
    for path in tables:
        rows = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(rows, dict)
        for row in rows.values():
            assert set(row) == {"recipe", "source", "published", "overrides"}
            assert row["source"].startswith("table ")
            assert 0 < row["published"]["miou"] < 100


def test_rows_switch_off_the_modules_in_their_name() -> None:
    for name in RECIPES:
        recipe, _, row = name.partition("@")
        model = build(read_recipe(name)).model
        assert isinstance(model, LSABiNet)
        off = set(row.split("_")[1:]) if row else set()
        if recipe == "dabnet/camvid":
            off = {"lrfa", "svfm", "rcad"}
        for module in ("lrfa", "svfm"):
            assert isinstance(getattr(model, module), torch.nn.Identity) == (module in off)
        assert (type(model.head).__name__ == "RCAD") == ("rcad" not in off)


def test_baseline_is_trained_like_the_full_network() -> None:
    full, baseline = (read_recipe(f"{name}/camvid").sections for name in ("lsa_binet", "dabnet"))
    assert {**full, "model": {"name": "dabnet"}} == baseline


def test_cityscapes_recipe_has_the_published_numbers() -> None:
    sections = read_recipe("lsa_binet/cityscapes").sections
    # Source: section 3 of the paper for these four; DABNet's public recipe for the rest.
    assert sections["optimizer"]["lr"] == 0.045
    assert sections["optimizer"]["weight_decay"] == 1e-4
    assert (sections["train"]["epochs"], sections["train"]["batch_size"]) == (1000, 8)
    assert sections["data"]["augment"]["crop"] == [512, 1024]
    weights = sections["task"]["class_weights"]
    assert len(weights) == 19
    assert round(sum(weights), 4) == 19.0001
