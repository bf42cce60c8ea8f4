"""Recipes: read, override, check, build everything, train.

A recipe is one complete YAML file. Each section holds the keyword arguments of one callable; dotted
overrides pass the same check. `name@row` takes a row of the model's `ablations.yaml`: overrides of
one recipe, with a published score.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError  # type: ignore[import-untyped]

from rtseg.checkpoint import ModelInfo, create_model, environment, git_revision, versions
from rtseg.config import call, check, pick
from rtseg.data import DATASETS
from rtseg.data.dataset import Dataset
from rtseg.data.transforms import Augment, Preprocess
from rtseg.data.weights import class_statistics
from rtseg.data.weights import class_weights as weights_by_class
from rtseg.errors import ConfigError, DataError, nearest
from rtseg.models import MODELS
from rtseg.tasks import TASKS, Task
from rtseg.training.loop import fit
from rtseg.training.optim import BATCH_SCALING, OPTIMIZERS, SCHEDULES
from rtseg.training.options import Plan, TrainData, TrainOptions
from rtseg.training.run_log import Event, RunLog

SECTIONS = ("model", "data", "task", "train", "optimizer", "schedule")
DATA_KEYS = ("train", "val", "augment", "preprocess", "max_bad", "workers")
WEIGHTING_KEYS = ("class_weights", "inverse_log_offset")
CONFIG_FILE = "config.yaml"
Display = Callable[[Event], None]


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: its sections, where it came from, and what was changed on reading it."""

    sections: dict[str, Any]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the resolved sections."""
        text = json.dumps(self.sections, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the resolved recipe as a file that trains the same run."""
        return f"# resolved from {self.source}\n" + OmegaConf.to_yaml(
            OmegaConf.create(self.sections)
        )


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with the package."""
    return Path(str(resources.files("rtseg") / "recipes"))


def list_recipes() -> list[str]:
    """Return the names of all recipes, ablation rows included (`model/dataset@row`)."""
    root = recipe_folder()
    names = [
        str(path.relative_to(root).with_suffix(""))
        for path in root.rglob("*.yaml")
        if path.name != "ablations.yaml"
    ]
    for path in root.rglob("ablations.yaml"):
        rows = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(rows, dict)
        names += [f"{row['recipe']}@{name!s}" for name, row in rows.items()]
    return sorted(names)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by file or name and apply overrides.

    Args:
        source: Path of a YAML file, or a name such as `lsa_binet/camvid` or
            `lsa_binet/camvid@no_rcad`.
        overrides: `key.sub=value` strings; they win. `key={...}` replaces the whole section.

    Raises:
        ConfigError: Unknown recipe, unreadable YAML, or a section that is unknown or missing.
    """
    base, row = _find(str(source))
    try:
        plain = _override(OmegaConf.load(base), row)
        config = _override(plain, overrides)
        before = _plain(plain)
        sections = _plain(config)
    except (OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        message = " ".join(lines) if isinstance(error, YAMLError) else lines[0]
        fix = "correct the YAML or the override"
        raise ConfigError(f"cannot be read ({message})", where=str(base), fix=fix) from None
    _check_sections(sections, str(source))
    chosen = any(item.partition("=")[0] in ("optimizer", "optimizer.lr") for item in overrides)
    notes = () if chosen else _scale_learning_rate(before, sections)
    return Recipe(sections, str(source), notes)


def _override(config: Any, changes: Sequence[str]) -> Any:
    """Return a copy with each `key.sub=value` set; a mapping replaces the old one as a whole."""
    changed = copy.deepcopy(config)
    for change in changes:
        key, separator, _ = change.partition("=")
        if not separator:
            raise ValueError(f"override {change!r} has no '='")
        value = OmegaConf.select(OmegaConf.from_dotlist([change]), key)
        OmegaConf.update(changed, key, value, merge=False, force_add=True)
    return changed


def _plain(config: Any) -> dict[str, Any]:
    if not isinstance(config, DictConfig):
        raise ValueError("a recipe is a mapping of sections")
    value = OmegaConf.to_container(config, resolve=True)
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


def _find(source: str) -> tuple[Path, list[str]]:
    """Return the file of a recipe and the overrides of its ablation row."""
    name, _, row = source.partition("@")
    path = Path(name)
    if not path.is_file():
        path = recipe_folder() / f"{name}.yaml"
    if not path.is_file():
        close = ", ".join(nearest(name, list_recipes()))
        raise ConfigError(f"recipe {name!r} is unknown", fix=f"give a YAML file or one of: {close}")
    return path, _ablation(path, name, row) if row else []


def _ablation(path: Path, name: str, row: str) -> list[str]:
    table = path.with_name("ablations.yaml")
    rows = OmegaConf.to_container(OmegaConf.load(table)) if table.is_file() else {}
    assert isinstance(rows, dict)
    mine = {str(key): item for key, item in rows.items() if item["recipe"] == name}
    if row not in mine:
        close = ", ".join(nearest(row, mine)) or "none"
        raise ConfigError(f"{name} has no row {row!r}", where=str(table), fix=f"rows: {close}")
    overrides: list[str] = mine[row]["overrides"]
    return overrides


def _check_sections(sections: Mapping[str, Any], source: str) -> None:
    unknown = [key for key in sections if key not in SECTIONS]
    if unknown:
        hint = nearest(unknown[0], SECTIONS, count=1)[0]
        raise ConfigError(
            f"section {unknown[0]!r} is unknown", where=source, fix=f"did you mean {hint!r}?"
        )
    missing = [key for key in SECTIONS if not isinstance(sections.get(key), dict)]
    if missing:
        raise ConfigError(
            f"section {missing[0]!r} is missing", where=source, fix="a recipe is complete: add it"
        )
    for key in sections["data"]:
        if key not in DATA_KEYS:
            hint = nearest(key, DATA_KEYS, count=1)[0]
            raise ConfigError(f"data.{key} is unknown", where=source, fix=f"did you mean {hint!r}?")
    if "train" not in sections["data"]:
        raise ConfigError("data.train is missing", where=source, fix="name a data set to train on")


def _scale_learning_rate(before: Mapping[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """Let the learning rate follow an overridden batch size; wrong values are reported later."""
    try:
        old, new = before["train"]["batch_size"], after["train"]["batch_size"]
        rate = after["optimizer"]["lr"]
        exponent = BATCH_SCALING[after["optimizer"]["name"]]
        factor = max(0.0, new / old) ** exponent
    except (KeyError, TypeError, ZeroDivisionError):
        return ()
    if factor in (0, 1):
        return ()
    after["optimizer"]["lr"] = rate * factor
    rule = "linear" if exponent == 1 else "square-root"
    return (
        f"batch size {old} -> {new}: learning rate {rate:g} -> {rate * factor:g} ({rule} rule; "
        "set optimizer.lr to choose your own)",
    )


def build_dataset(section: Mapping[str, Any], *, where: str) -> Dataset:
    """Build the data set of a `{name, root, split, ...}` section."""
    target, options = pick(DATASETS, section, section=where)
    return call(target, options, section=where)


def build(recipe: Recipe, *, model: nn.Module | None = None) -> Plan:
    """Build the objects of a recipe; nothing is written and nothing is trained.

    Args:
        recipe: Resolved recipe.
        model: A network of the user's own instead of the one that the recipe names.

    Raises:
        ConfigError: A section does not fit its callable, or model and task do not fit together.
        DataError: A data set cannot be read.
    """
    sections = recipe.sections
    data = sections["data"]
    options = TrainOptions(**check(TrainOptions, sections["train"], section="train"))
    train_set = build_dataset(data["train"], where="data.train")
    val_set = build_dataset(data["val"], where="data.val") if data.get("val") else None
    _check_splits(data, train_set, val_set)
    augment = call(Augment, data.get("augment") or {}, section="data.augment")
    preprocess = call(Preprocess, data.get("preprocess") or {}, section="data.preprocess")
    task = _build_task(sections["task"], train_set)
    name, switches = ("", {}) if model is not None else _model_of(sections["model"])
    if model is None:
        torch.manual_seed(options.seed)
        model = create_model(name, len(train_set.classes), **switches)
        _check_output(model, task)
    schedule, schedule_options = pick(SCHEDULES, sections["schedule"], section="schedule")
    checked = check(schedule, schedule_options, section="schedule", given=1)
    optimizer, optimizer_options = pick(OPTIMIZERS, sections["optimizer"], section="optimizer")
    rates = check(optimizer, optimizer_options, section="optimizer", given=1)
    info = ModelInfo(
        name, switches, sections["task"]["name"], tuple(train_set.classes),
        json.loads(json.dumps(asdict(preprocess))), sections, _facts(recipe, options, data),
    )  # fmt: skip
    reading = {key: data[key] for key in ("workers", "max_bad") if key in data}
    train_data = TrainData(
        train_set, val_set, augment, preprocess,
        **check(TrainData, reading, section="data", given=4),
        select=val_set is None or _split(data["val"]) != "test",
    )  # fmt: skip
    plan = Plan(
        model, task, train_data, options,
        functools.partial(optimizer, **rates), functools.partial(schedule, **checked), info,
    )  # fmt: skip
    plan.check()
    return plan


def _model_of(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name and switches of the network that section `model` describes."""
    builder, switches = pick(MODELS, section, section="model")
    check(builder, switches, section="model", given=1)
    return section["name"], switches


def _check_output(model: nn.Module, task: Task) -> None:
    returned = typing.get_type_hints(type(model).forward)["return"]
    if not issubclass(returned, task.output_type):
        what = f"the model returns {returned.__name__}, the task needs {task.output_type.__name__}"
        raise ConfigError(what, where="model.name", fix="choose another model or task")


def _split(section: Mapping[str, Any]) -> Any:
    """Return the split that a section of `data` names, or the one that its reader takes instead."""
    parameters = inspect.signature(DATASETS[section["name"]]).parameters
    return section.get("split", parameters["split"].default)


def _check_splits(data: Mapping[str, Any], train_set: Dataset, val_set: Dataset | None) -> None:
    if val_set is None:
        return
    train, val = data["train"], data["val"]
    if train["name"] == val["name"] and train.get("root") == val.get("root"):
        split = _split(train)
        if _split(val) in ({"train", "val", "trainval"} if split == "trainval" else {split}):
            raise ConfigError(
                f"{_split(val)!r} is part of the training set",
                where="data.val.split",
                fix="leave data.val out (the run ends with `last`), or score on another split",
            )
    names = [item.name for item in train_set.classes]
    if names != [item.name for item in val_set.classes]:
        raise ConfigError(
            "classes differ from data.train", where="data.val", fix="use matching data sets"
        )


def _build_task(section: Mapping[str, Any], train_set: Dataset) -> Task:
    target, options = pick(TASKS, section, section="task")
    needs = TASKS[section["name"]].needs
    lacking = [kind for kind in needs if kind not in train_set.kinds]
    if lacking:
        what = f"the data set offers {', '.join(train_set.kinds)}, the task needs {lacking[0]!r}"
        raise ConfigError(what, where="task.name", fix="choose another task or data set")
    weighting = {key: options.pop(key) for key in WEIGHTING_KEYS if key in options}
    weights = call(_loss_weights, weighting, train_set, section="task")
    return call(target, options, train_set.classes, weights, section="task")


def _loss_weights(
    train_set: Dataset,
    *,
    class_weights: Literal["none", "inverse_log", "median_frequency"] | tuple[float, ...] = "none",
    inverse_log_offset: float = 1.02,
) -> tuple[float, ...] | None:
    """Turn the weighting keys of section `task` into one number per class, by counting."""
    if class_weights == "none":
        return None
    if not isinstance(class_weights, str):
        return class_weights
    statistics = class_statistics(train_set)
    return weights_by_class(statistics, scheme=class_weights, offset=inverse_log_offset)


def _facts(recipe: Recipe, options: TrainOptions, data: Mapping[str, Any]) -> dict[str, Any]:
    val = data.get("val")
    return {
        "recipe": recipe.source,
        "recipe_sha256": recipe.sha256,
        "seed": options.seed,
        "versions": versions(),
        "git_revision": git_revision(),
        "scored_on": f"{val['name']} {_split(val)}" if val else "no validation set",
    }


def train(
    recipe: Recipe,
    folder: Path,
    *,
    model: nn.Module | None = None,
    resume: bool = False,
    display: Display = lambda _: None,
) -> dict[str, float]:
    """Build a recipe and train it; see `build` and `run`."""
    return run(build(recipe, model=model), recipe, folder, resume=resume, display=display)


def run(
    plan: Plan,
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    display: Display = lambda _: None,
) -> dict[str, float]:
    """Train a plan into a run folder.

    Args:
        plan: What `build` made of the recipe.
        recipe: Written into the folder, so that the run can be resumed and repeated.
        folder: Run folder; must not hold a run unless `resume`.
        resume: Go on where the run in the folder stopped.
        display: Called with every event of the log.

    Returns:
        The last validation scores.

    Raises:
        DataError: The folder holds a run already.
    """
    log = RunLog(folder if _first_process() else None, display=display)
    if not resume and _first_process():
        if (folder / CONFIG_FILE).exists():
            raise DataError(
                "holds a run already",
                where=str(folder),
                fix="go on with --resume, replace it with --overwrite, or choose another --output",
            )
        log.write("env.json", json.dumps(environment(), indent=2) + "\n")
        log.write(CONFIG_FILE, recipe.to_yaml())
    for note in () if resume else recipe.notes:
        log.add("note", step=0, message=note)
    return fit(plan, folder, log, resume=resume)


def _first_process() -> bool:
    """Return whether this process is the one that writes; launchers number them all."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def resume_recipe(folder: Path) -> Recipe:
    """Read the recipe of a run folder.

    Raises:
        RtsegError: The folder holds no run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise DataError(f"has no {CONFIG_FILE}", where=str(folder), fix="give the folder of a run")
    return read_recipe(path)
