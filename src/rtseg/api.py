"""The functions behind `rtseg.train` and `rtseg.evaluate`: whole jobs in one call."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from rtseg import evaluation, recipe
from rtseg.checkpoint import Checkpoint
from rtseg.data.dataset import Dataset
from rtseg.data.spec import open_data
from rtseg.inference.loading import open_model
from rtseg.inference.predictor import choose_device
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
    """Score a checkpoint or an export on one split of a data set, at native label size.

    Args:
        model: Checkpoint, run or exported folder, or what `rtseg.load` returned. Torch runs a
            checkpoint; what opens its format runs an export.
        data: A data set, or the text that opens one: a native folder, its `data.yaml`,
            `NAME=ROOT` for a built-in reader such as `camvid=data/camvid`, or `synthetic`.
        split: Name of the split; not used if `data` is a data set.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
        workers: Reading processes.
        visit: Called with each batch and its results.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        DataError: The data are missing or broken, or have other classes.
    """
    place = choose_device(device)
    loaded = model if isinstance(model, Checkpoint) else open_model(model, device=place)
    dataset = open_data(str(data), split) if isinstance(data, str | Path) else data
    return evaluation.score(loaded, dataset, device=place, workers=workers, visit=visit)
