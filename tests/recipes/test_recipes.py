"""Every recipe of the package is read, checked, built and trained for one step on noise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from recipes.toy_data import CLASSES, stand_in, teacher
from rtseg.checkpoint import create_model
from rtseg.data import DATASETS
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.errors import ConfigError
from rtseg.models.lsa_binet import LSABiNet
from rtseg.quantization import QuantizedNetwork, calibrate, follow_ranges
from rtseg.recipe import SECTIONS, Recipe, build, list_recipes, read_recipe, recipe_folder
from rtseg.training.optim import apply_schedule
from rtseg.training.options import Plan
from rtseg.training.teachers import TEACHERS

pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")

# Files and ablation rows of each folder; a new one is a new number here.
COUNTS = {
    "bisegunet": (6, 11),
    "bisenetformer": (13, 8),
    "bsdnet": (14, 36),
    "dabnet": (1, 0),
    "lsa_binet": (6, 4),
    "twinmixing": (8, 17),
}
# Parameters that the network of each file has, auxiliary heads included.
PARAMETERS = {
    "bisegunet/ade20k": 18_502_022,
    "bisegunet/cityscapes": 18_485_123,
    "bisegunet/cityscapes_1024x2048": 18_485_123,
    "bisegunet/synthetic": 1_713_779,
    "bisegunet/synthetic_edge": 1_713_779,
    "bisegunet/voc": 18_485_381,
    "bisenetformer/ade20k_panoptic_r50": 31_684_183,
    "bisenetformer/ade20k_panoptic_stdc2": 17_164_471,
    "bisenetformer/ade20k_stdc1": 13_134_007,
    "bisenetformer/ade20k_stdc2": 17_164_471,
    "bisenetformer/camvid_stdc1": 13_098_284,
    "bisenetformer/cityscapes_panoptic_r50": 31_650_516,
    "bisenetformer/cityscapes_panoptic_stdc2": 17_130_804,
    "bisenetformer/cityscapes_stdc1": 13_100_340,
    "bisenetformer/cityscapes_stdc2": 17_130_804,
    "bisenetformer/imagenet_stdc1": 6_343_304,
    "bisenetformer/imagenet_stdc2": 10_373_768,
    "bisenetformer/synthetic": 3_435_260,
    "bisenetformer/synthetic_panoptic": 3_435_260,
    "bsdnet/ade20k_b": 16_350_188,
    "bsdnet/ade20k_s": 4_418_188,
    "bsdnet/camvid_b": 16_296_534,
    "bsdnet/camvid_half": 4_391_222,
    "bsdnet/camvid_s": 4_391_222,
    "bsdnet/camvid_small_b": 16_296_534,
    "bsdnet/camvid_small_s": 4_391_222,
    "bsdnet/cityscapes_b": 16_299_622,
    "bsdnet/cityscapes_b_seg75": 16_299_622,
    "bsdnet/cityscapes_s": 4_392_774,
    "bsdnet/imagenet_b": 13_424_296,
    "bsdnet/imagenet_s": 3_799_368,
    "bsdnet/synthetic": 4_392_774,
    "bsdnet/synthetic_qat": 4_772_147,
    "dabnet/camvid": 754_571,
    "lsa_binet/camvid": 1_841_110,
    "lsa_binet/camvid_cpu": 1_841_110,
    "lsa_binet/camvid_cpu_long": 1_841_110,
    "lsa_binet/camvid_plus": 1_841_110,
    "lsa_binet/cityscapes": 1_842_158,
    "lsa_binet/synthetic": 1_842_158,
    "twinmixing/bdd100k_base": 434_085,
    "twinmixing/bdd100k_large": 1_501_681,
    "twinmixing/bdd100k_nano": 24_167,
    "twinmixing/bdd100k_tiny": 98_176,
    "twinmixing/synthetic": 98_176,
    "twinmixing/synthetic_camvid_base": 434_085,
    "twinmixing/synthetic_camvid_tiny": 98_176,
    "twinmixing/synthetic_qat": 97_463,
}
HEAVY = ("bisegunet/", "bisenetformer/", "bsdnet/", "twinmixing/")
FILES = [name for name in list_recipes() if "@" not in name]
ROWS = [name for name in list_recipes() if "@" in name]


def heavy(name: str) -> bool:
    """Return whether a step of a recipe is left to the full run: one per folder is not."""
    return name.startswith(HEAVY) and not name.endswith("/synthetic")


def on_meta(*given: Any, **switches: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return create_model(*given, **switches)


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in CLASSES:
        monkeypatch.setitem(DATASETS, name, stand_in(name))
    monkeypatch.setitem(TEACHERS, "segformer", teacher)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def weightless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks have shapes and no weights."""
    monkeypatch.setattr("rtseg.recipe.building.create_model", on_meta)


def built(recipe: Recipe) -> Plan:
    return build(recipe)


def shrunk(recipe: Recipe) -> Recipe:
    """Return a recipe with the same steps at 64x64 pixels."""
    sections: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(recipe.sections))  # type: ignore[assignment]
    data, train = sections["data"], sections["train"]
    augment, preprocess = data.setdefault("augment", {}), data.setdefault("preprocess", {})
    kind = augment.get("name", "crop")
    if kind == "crop":
        augment["crop"] = [64, 64]
        for key, value in {"base_size": [48, 64], "short_side": [48], "max_long_side": 64}.items():
            if key in augment:
                augment[key] = value
    elif kind == "classification":
        augment["size"] = 64
    boxed = preprocess.get("letterbox") is not None
    small = {"size": [48, 64] if boxed else [64, 64], "letterbox": [64, 64], "short_side": 64}
    preprocess.update({key: size for key, size in small.items() if preprocess.get(key) is not None})
    data["workers"] = 0
    train.update(batch_size=2, accumulate=1, precision="fp32", compile=False)
    return Recipe(sections, recipe.source)


def files() -> list[Path]:
    return sorted(recipe_folder().rglob("*.yaml"))


def header(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


def test_the_recipes_are_those_expected() -> None:
    found = {
        "files": Counter(name.split("/")[0] for name in FILES),
        "rows": Counter(name.split("/")[0] for name in ROWS),
    }
    expected = {
        folder: (found["files"][folder], found["rows"][folder]) for folder in found["files"]
    }
    assert expected == COUNTS
    assert sorted(PARAMETERS) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("weightless")
def test_recipe_builds_with_every_section_checked(name: str) -> None:
    recipe = read_recipe(name)
    assert tuple(name for name in recipe.sections if name in SECTIONS) == SECTIONS
    model = built(recipe).model
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("weightless")
def test_row_differs_from_its_recipe_and_builds(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.sections != read_recipe(name.partition("@")[0]).sections
    built(recipe)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("section", SECTIONS)
def test_misspelt_key_is_refused_in_every_section(name: str, section: str) -> None:
    mixed = isinstance(read_recipe(name).sections["data"]["train"], list)
    train = "data.train.1" if mixed else "data.train"
    sections = (train, "data.val", "data.augment", "data.preprocess")
    for place in sections if section == "data" else (section,):
        with pytest.raises(ConfigError, match=r"misspelt is unknown|takes no .*misspelt"):
            built(read_recipe(name, [f"{place}.misspelt=1"]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * heavy(name)) for name in list_recipes()],
)
def test_one_step_changes_the_weights_and_keeps_them_finite(name: str) -> None:
    run = built(shrunk(read_recipe(name)))
    data, options = run.data, run.options
    order = TrainBatches(len(data.train), batch_size=2, seed=options.seed)
    loader = train_loader(
        data.train, order, augment=data.augment, preprocess=data.preprocess,
        target=run.task.target, workers=0,
    )  # fmt: skip
    batch = next(opened(iter(loader)))
    assert batch.images.shape == (2, 3, 64, 64)
    optimizer = run.optimizer(run.model)
    apply_schedule(optimizer, run.schedule(options.steps(order.batches_per_epoch))(1))
    if isinstance(run.model, QuantizedNetwork):
        calibrate(run.model, [batch.images])
        follow_ranges(run.model, on=True)
    else:
        run.model.train()
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    terms = run.task.training_step(run.model, batch)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    after = run.model.state_dict()
    tensors = [key for key in before if isinstance(before[key], torch.Tensor)]
    changed = [key for key in tensors if not torch.equal(before[key], after[key])]
    assert len(changed) > 0.7 * len(tensors)  # factors of binary weights rest
    assert all(torch.isfinite(after[key]).all() for key in tensors)


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_header_says_paper_command_and_what_to_expect(path: Path) -> None:
    lines = header(path)
    limit = 400 if path.name == "ablations.yaml" else 80
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit
    assert lines[0].startswith(("# Paper: ", "# Our own "))
    expected = [line for line in lines if line.startswith("# Expected: ")]
    assert len(expected) == 1
    commands = [line for line in lines if line.startswith("# Command: ")]
    assert len(commands) == 1
    match = re.fullmatch(r"# Command: +rtseg train (\S+)", commands[0])
    assert match is not None
    own = str(path.relative_to(recipe_folder()).with_suffix(""))
    rows = path.name == "ablations.yaml"
    assert match[1] in ROWS if rows else match[1] == own


def test_ablation_rows_say_where_they_come_from_and_what_was_published() -> None:
    tables = [path for path in files() if path.name == "ablations.yaml"]
    assert tables
    for path in tables:
        rows = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(rows, dict)
        for row in rows.values():
            assert set(row) == {"recipe", "source", "published", "overrides"}
            assert row["source"].startswith(("table ", "figure "))
            assert row["published"] or row["source"].startswith("figure ")
            assert all(0 < score <= 100 for score in row["published"].values())


# ---------------------------------------------------------------- LSA-BiNet and DABNet
@pytest.mark.usefixtures("weightless")
def test_rows_switch_off_the_modules_in_their_name() -> None:
    names = [name for name in list_recipes() if name.startswith(("lsa_binet/", "dabnet/"))]
    for name in names:
        recipe, _, row = name.partition("@")
        model = built(read_recipe(name)).model
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
