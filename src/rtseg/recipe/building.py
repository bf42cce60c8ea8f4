"""Build the objects of a recipe, each checked against the signature of its callable."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from rtseg.checkpoint import (
    ModelInfo,
    Started,
    class_count,
    class_layers,
    create_model,
    git_revision,
    locate,
    previous_of,
    read_info,
    start_from,
    versions,
)
from rtseg.config import call, check, pick
from rtseg.data import DATASETS
from rtseg.data.dataset import Dataset
from rtseg.data.mixture import CLASS_KINDS, Mixture, mixed_statistics, sets_of
from rtseg.data.transforms import AUGMENTS, Augmentation, Preprocess
from rtseg.data.weights import class_statistics
from rtseg.data.weights import class_weights as weights_by_class
from rtseg.errors import ConfigError
from rtseg.models import MODELS
from rtseg.recipe.binarizing import binarized
from rtseg.recipe.distilling import distilled, read_distillation
from rtseg.recipe.quantizing import quantized
from rtseg.recipe.reading import Recipe
from rtseg.tasks import TASKS, WEIGHTING_KEYS, Task
from rtseg.training.optim import OPTIMIZERS, SCHEDULES
from rtseg.training.options import Plan, TrainData, TrainOptions

FITTING_KEYS = ("mask_resize", "score_at")
"""Keys of section `data` that are part of the preprocessing, and so of the checkpoint."""
UNTRAINED = "ranges are taken from random weights; give model.weights=<folder of the float run>"


def build_dataset(section: Mapping[str, Any], *, where: str) -> Dataset:
    """Build the data set of a `{name, root, split, ...}` section."""
    target, options = pick(DATASETS, section, section=where)
    return call(target, options, section=where)


def build_train_set(section: Mapping[str, Any] | list[Any]) -> Dataset:
    """Build the data set of a section, or the mixture of a list of sections with weights."""
    if not isinstance(section, list):
        return build_dataset(section, where="data.train")
    parts, weights = [], []
    for number, item in enumerate(section):
        where = f"data.train.{number}"
        options = dict(item) if isinstance(item, Mapping) else item
        given = {"weight": options.pop("weight")} if "weight" in options else {}
        weights.append(call(_weight, given, section=where))
        parts.append(build_dataset(options, where=where))
    return Mixture(parts, weights)


def _weight(*, weight: float = 1.0) -> float:
    """Return how often an epoch draws a sample of a set: the schema of that key."""
    return weight


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
    train_set = build_train_set(data["train"])
    val_set = build_dataset(data["val"], where="data.val") if data.get("val") else None
    _check_splits(data, train_set, val_set)
    augment, preprocess = build_transforms(data)
    task = _build_task(sections["task"], train_set, val_set)
    schedule, schedule_options = pick(SCHEDULES, sections["schedule"], section="schedule")
    checked = check(schedule, schedule_options, section="schedule", given=1)
    optimizer, optimizer_options = pick(OPTIMIZERS, sections["optimizer"], section="optimizer")
    rates = check(optimizer, optimizer_options, section="optimizer", given=1)
    distillation = read_distillation(sections.get("distill"))
    network = (
        _Network(model)
        if model is not None
        else _build_network(recipe, len(train_set.classes), task, seed=options.seed)
    )
    task, hooks = binarized(sections.get("binarize"), task, network.model)
    model = network.model
    notes = [] if network.started is None else [network.started.note]
    if sections.get("quantize") is not None:
        _refuse_binary_weights(sections)
        model, hooks = quantized(sections["quantize"], model, options)
        if network.started is None:
            notes.append(UNTRAINED)
    info = ModelInfo(
        network.name, network.switches, sections["task"]["name"], tuple(train_set.classes),
        json.loads(json.dumps(asdict(preprocess))), sections,
        _facts(recipe, options, data, network.started),
    )  # fmt: skip
    reading = {key: data[key] for key in ("workers", "max_bad", "augment_on") if key in data}
    train_data = TrainData(
        train_set, val_set, augment, preprocess,
        **check(TrainData, reading, section="data", given=4),
        select=val_set is None or _split(data["val"]) != "test",
    )  # fmt: skip
    plan = Plan(
        model, task, train_data, options,
        functools.partial(optimizer, **rates), functools.partial(schedule, **checked), info,
        notes=tuple(notes), hooks=hooks,
    )  # fmt: skip
    if distillation is not None:
        plan = distilled(plan, distillation, run=recipe.run)
    plan.check()
    return plan


def _refuse_binary_weights(sections: Mapping[str, Any]) -> None:
    if sections.get("binarize") is not None:
        raise ConfigError(
            "weights cannot become binary in a quantized network",
            where="quantize",
            fix="leave this section or binarize out",
        )


def build_transforms(data: Mapping[str, Any]) -> tuple[Augmentation, Preprocess]:
    """Build what section `data` says about augmentation and preprocessing."""
    given = data.get("augment") or {}
    named = {"name": "crop", **given} if isinstance(given, Mapping) else given
    target, options = pick(AUGMENTS, named, section="data.augment")
    augment = call(target, options, section="data.augment")
    section = dict(data.get("preprocess") or {})
    for key in FITTING_KEYS:
        if key in section:
            raise ConfigError(
                "is a key of section data", where=f"data.preprocess.{key}", fix=f"set data.{key}"
            )
        if key in data:
            section[key] = data[key]
    return augment, call(Preprocess, section, section="data.preprocess")


@dataclass(frozen=True)
class _Network:
    """A network with its name, switches and start; one of the user's own has no name."""

    model: nn.Module
    name: str = ""
    switches: Mapping[str, Any] = field(default_factory=dict)
    started: Started | None = None


def _build_network(recipe: Recipe, num_classes: int, task: Task, *, seed: int) -> _Network:
    name, switches, weights = _model_of(recipe.sections["model"])
    classes = class_count(name, num_classes)
    torch.manual_seed(seed)
    model = create_model(name, classes, **switches)
    _check_output(model, task)
    started = None
    if weights is not None:
        layers = class_layers(name, classes, **switches)
        started = _started(recipe) or start_from(model, weights, name=name, class_layers=layers)
    return _Network(model, name, switches, started)


def _model_of(section: Mapping[str, Any]) -> tuple[str, dict[str, Any], str | None]:
    """Return name, switches and starting weights of the network that section `model` describes."""
    builder, switches = pick(MODELS, section, section="model")
    weights = switches.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(
            f"{weights!r} is no text", where="model.weights", fix="give a folder or a file"
        )
    name: str = section["name"]
    check(builder, switches, section="model", given=0 if class_count(name, 1) is None else 1)
    return name, switches, weights


def _started(recipe: Recipe) -> Started | None:
    """Return what a run that goes on began with; its own weights take the place of those."""
    last = None if recipe.run is None else recipe.run / "last"
    if last is None or not (last.exists() or previous_of(last).exists()):
        return None
    facts = read_info(locate(last)).facts["starting_weights"]
    return Started(**{**facts, "random": tuple(facts["random"])})


def _check_output(model: nn.Module, task: Task) -> None:
    returned = typing.get_type_hints(type(model).forward)["return"]
    if not issubclass(returned, task.output_type):
        what = f"the model returns {returned.__name__}, the task needs {task.output_type.__name__}"
        raise ConfigError(what, where="model.name", fix="choose another model or task")


def _split(section: Mapping[str, Any]) -> Any:
    """Return the split that a section of `data` names, or the one that its reader takes instead."""
    parameters = inspect.signature(DATASETS[section["name"]]).parameters
    return section.get("split", parameters["split"].default if "split" in parameters else None)


def _check_splits(data: Mapping[str, Any], train_set: Dataset, val_set: Dataset | None) -> None:
    if val_set is None:
        return
    val = data["val"]
    for train in data["train"] if isinstance(data["train"], list) else [data["train"]]:
        if train["name"] != val["name"] or train.get("root") != val.get("root"):
            continue
        split = _split(train)
        if _split(val) in ({"train", "val", "trainval"} if split == "trainval" else {split}):
            raise ConfigError(
                f"{_split(val)!r} is part of the training set",
                where="data.val.split",
                fix="leave data.val out (the run ends with `last`), or score on another split",
            )
    names = [item.name for item in train_set.classes]
    counted = all(set(CLASS_KINDS) & set(item.kinds) for item in (train_set, val_set))
    if counted and names != [item.name for item in val_set.classes]:
        raise ConfigError(
            "classes differ from data.train", where="data.val", fix="use matching data sets"
        )


def _build_task(section: Mapping[str, Any], train_set: Dataset, val_set: Dataset | None) -> Task:
    target, options = pick(TASKS, section, section="task")
    weighting = {key: options.pop(key) for key in WEIGHTING_KEYS if key in options}
    task: Task = call(target, options, train_set.classes, None, section="task")
    _require_kinds(task, train_set, where="data.train")
    _require_kinds(task, val_set or train_set, where="data.val")
    weights = call(_loss_weights, weighting, train_set, section="task")
    if weights is not None:
        task = call(target, options, train_set.classes, weights, section="task")
    return task


def _require_kinds(task: Task, dataset: Dataset, *, where: str) -> None:
    """Refuse data without a kind that the task needs; a set of a mixture must have one of them."""
    parts = list(sets_of(dataset))
    useless = [number for number, part in enumerate(parts) if not set(task.needs) & set(part.kinds)]
    place = where
    if isinstance(dataset, Mixture) and useless:
        place, dataset = f"{where}.{useless[0]}", parts[useless[0]]
    lacking = [kind for kind in task.needs if kind not in dataset.kinds]
    if lacking:
        what = f"the data set offers {', '.join(dataset.kinds)}, the task needs {lacking[0]!r}"
        raise ConfigError(what, where=place, fix="choose another task or data set")


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
    if isinstance(train_set, Mixture):
        statistics = mixed_statistics(train_set)
    else:
        statistics = class_statistics(train_set)
    return weights_by_class(statistics, scheme=class_weights, offset=inverse_log_offset)


def _facts(
    recipe: Recipe, options: TrainOptions, data: Mapping[str, Any], started: Started | None
) -> dict[str, Any]:
    val = data.get("val")
    beginning = {} if started is None else {"starting_weights": asdict(started)}
    return {
        **beginning,
        "recipe": recipe.source,
        "recipe_sha256": recipe.sha256,
        "seed": options.seed,
        "versions": versions(),
        "git_revision": git_revision(),
        "scored_on": f"{val['name']} {_split(val)}" if val else "no validation set",
    }
