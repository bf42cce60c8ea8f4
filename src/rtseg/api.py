"""The functions behind `rtseg.load`, `rtseg.train` and `rtseg.evaluate`: whole jobs in one call."""

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
from rtseg.data.spec import open_data
from rtseg.data.views import Views
from rtseg.inference.loading import open_model
from rtseg.inference.predictor import choose_device
from rtseg.runtimes import is_export, open_export
from rtseg.tasks.views import Windows
from rtseg.training.run_log import Event


def load(path: str | Path, *, model: nn.Module | None = None) -> Checkpoint:
    """Load a checkpoint, or open an export with an engine that is installed.

    Args:
        path: Checkpoint, run or exported folder, or name of shipped weights.
        model: The network to fill, for a checkpoint of your own class.

    Returns:
        `.model`, `.info` (name, task, classes, preprocessing) and `.path`; a call runs the model.

    Raises:
        CheckpointError: Nothing there, damaged, or weights and architecture disagree.
        MissingError: No engine for the export is installed.
    """
    if model is None and is_export(path):
        return open_export(path)
    return checkpoint.load(path, model=model)


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
    runtime: str | None = None,
    threads: int | None = None,
    visit: evaluation.Visitor | None = None,
    views: Views | None = None,
    windows: Windows | None = None,
    by: Sequence[str] = (),
    boundary: bool = False,
    per_image: bool = False,
    worst: int = 0,
) -> evaluation.Evaluation:
    """Score a checkpoint or an export on one split of a data set, at native label size.

    Args:
        model: Checkpoint, run or exported folder, name of shipped weights, or what `rtseg.load`
            returned.
        data: A data set, or the text that opens one: a native folder, its `data.yaml`,
            `NAME=ROOT` for a built-in reader such as `camvid=data/camvid`, or `synthetic`.
        split: Name of the split; not used if `data` is a data set.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
        workers: Reading processes.
        runtime: What runs the network, a key of `rtseg.runtimes.RUNTIMES` or `auto`. By default
            torch for a checkpoint, and for an export what opens its format. Not used if `model` is
            loaded already; neither is `threads`.
        threads: Threads to compute with; those of torch if left out.
        visit: Called with each image, as a batch of one, and its results.
        views: At which size the network looks at an image, and whether it looks again at others or
            at the mirrored image: `rtseg.data.views.Views(scale, scales, flip)`.
        windows: Look through windows, `rtseg.tasks.views.Windows(size, stride)`, instead.
        by: Attributes of the images, such as `weather`, by whose values scores are grouped too.
        boundary: Also score outlines (Boundary IoU).
        per_image: Also score every image alone.
        worst: How many of the images with the lowest scores are kept with their results.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ConfigError: The task or its preprocessing does not allow what is asked for.
        DataError: The data are missing or broken, have other classes or no such attribute.
        MissingError: The runtime is not installed, or not for this device.
    """
    place = choose_device(device)
    dataset = open_data(str(data), split) if isinstance(data, str | Path) else data
    if not isinstance(model, Checkpoint):
        model = open_model(model, runtime=runtime, device=place, threads=threads)
    return evaluation.score(
        model, dataset, device=place, workers=workers, visit=visit, views=views or Views(),
        windows=windows, by=by, boundary=boundary, per_image=per_image, worst=worst,
    )  # fmt: skip
