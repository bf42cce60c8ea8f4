"""The functions behind `rtseg.train` and `rtseg.evaluate`: whole jobs in one call."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from rtseg import checkpoint, evaluation, recipe
from rtseg.checkpoint import Checkpoint
from rtseg.data.dataset import Dataset
from rtseg.data.loader import eval_loader, opened
from rtseg.data.spec import open_data
from rtseg.errors import ConfigError
from rtseg.inference.predictor import choose_device, task_and_preprocess
from rtseg.training.run_log import Event


def train(
    source: str | Path | Mapping[str, Any],
    *,
    output: str | Path,
    model: nn.Module | None = None,
    overrides: Sequence[str] = (),
    display: Callable[[Event], None] = lambda _: None,
) -> dict[str, float]:
    """Train a recipe into a run folder.

    Args:
        source: Name of a recipe (`lsa_binet/camvid`), a YAML file, or its sections as a mapping.
        output: The run folder, which must not hold a run.
        model: A network of your own instead of the one that the recipe names.
        overrides: `key.sub=value` strings; they win.
        display: Called with every event of the log.

    Returns:
        The last validation scores.

    Raises:
        RtsegError: Recipe, data or folder are wrong; the message says what to do.
    """
    return recipe.train(_read(source, overrides), Path(output), model=model, display=display)


def _read(source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> recipe.Recipe:
    if not isinstance(source, Mapping):
        return recipe.read_recipe(source, overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        OmegaConf.save(OmegaConf.create(dict(source)), path)
        return dataclasses.replace(recipe.read_recipe(path, overrides), source="a mapping")


def evaluate(
    model: str | Path | Checkpoint,
    data: str | Path | Dataset,
    *,
    split: str = "val",
    device: str = "auto",
    workers: int = 0,
    visit: evaluation.Visitor | None = None,
) -> evaluation.Evaluation:
    """Score a checkpoint on one split of a data set, at native label size.

    Args:
        model: Checkpoint or run folder, or what `rtseg.load` returned.
        data: A data set, or the text that opens one: a native folder, its `data.yaml`,
            `NAME=ROOT` for a built-in reader such as `camvid=data/camvid`, or `synthetic`.
        split: Name of the split; not used if `data` is a data set.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
        workers: Reading processes.
        visit: Called with each batch and its results.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ConfigError: Its classes are not those of the data set.
        DataError: The data are missing or broken.
    """
    place = choose_device(device)
    loaded = model if isinstance(model, Checkpoint) else checkpoint.load(model)
    task, preprocess = task_and_preprocess(loaded)
    dataset = open_data(str(data), split) if isinstance(data, str | Path) else data
    _require_same_classes(loaded, dataset)
    lacking = [kind for kind in task.needs if kind not in dataset.kinds]
    if lacking:
        raise ConfigError(
            f"the data set offers {', '.join(dataset.kinds)}, the task needs {lacking[0]!r}",
            fix="choose another data set",
        )
    loader = eval_loader(dataset, preprocess=preprocess, target=task.target, workers=workers)
    network = loaded.model.to(place)
    return evaluation.evaluate(network, task, opened(loader), device=place, visit=visit)


def _require_same_classes(loaded: Checkpoint, dataset: Dataset) -> None:
    own = [item.name for item in loaded.info.classes]
    theirs = [item.name for item in dataset.classes]
    if own == theirs:
        return
    pairs = zip(own, theirs, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(own), len(theirs)))
    raise ConfigError(
        f"the checkpoint has {len(own)} classes and the data set {len(theirs)}; class {first} is "
        f"{_name(own, first)} there and {_name(theirs, first)} here",
        where=str(loaded.path),
        fix="score it on a data set with its own classes, in its order",
    )


def _name(names: Sequence[str], index: int) -> str:
    return repr(names[index]) if index < len(names) else "missing"
