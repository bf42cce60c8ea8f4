"""Train a recipe into a run folder."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from rtseg.checkpoint import environment
from rtseg.data.check import check_dataset
from rtseg.data.check_cache import cache_folder
from rtseg.data.dataset import DiskDataset
from rtseg.data.mixture import sets_of
from rtseg.errors import DataError
from rtseg.recipe.building import build
from rtseg.recipe.reading import CONFIG_FILE, Recipe
from rtseg.training.loop import fit
from rtseg.training.options import Plan
from rtseg.training.run_log import Event, RunLog

Display = Callable[[Event], None]


def train(
    recipe: Recipe,
    folder: Path,
    *,
    model: nn.Module | None = None,
    resume: bool = False,
    display: Display = lambda _: None,
) -> dict[str, float]:
    """Build a recipe, check its data and train it; see `build`, `check_data` and `run`."""
    plan = build(recipe, model=model)
    plan = dataclasses.replace(plan, notes=(*plan.notes, *check_data(plan)))
    return run(plan, recipe, folder, resume=resume, display=display)


def check_data(
    plan: Plan, *, progress: Callable[[int, int], None] | None = None
) -> tuple[str, ...]:
    """Check every file of the training and validation sets, unless `train.check` is false.

    Files without a fault are remembered, and not read again while they do not change. Of several
    processes the first one checks for all. decision: a class without a pixel is no reason not to
    train, for instance with the classes of another data set; it is one of the warnings.

    Args:
        plan: What `build` made of the recipe.
        progress: Called as `progress(done, total)` after each sample.

    Returns:
        Warnings, for the user.

    Raises:
        DataError: The data have faults; the first one is named.
    """
    parts = list(sets_of(plan.data.train))
    names = ["train"] if len(parts) == 1 else [f"train.{number}" for number in range(len(parts))]
    named = {**dict(zip(names, parts, strict=True)), "val": plan.data.val}
    sets = {name: item for name, item in named.items() if isinstance(item, DiskDataset)}
    if not (plan.options.check and sets and first_process()):
        return ()
    report = check_dataset(sets, allow=("empty_class",), cache=cache_folder(), progress=progress)
    if report.faults:
        first = report.faults[0]
        count = len(report.faults)
        raise DataError(
            f"{count} fault{'s' * (count > 1)} in the data, the first: {first.message}",
            where=first.file,
            fix="see `rtseg data check`, correct them, or train as it is with --no-check "
            "(train.check=false)",
        )
    return tuple(f"{warning.file}: {warning.message}" for warning in report.warnings)


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
    log = RunLog(folder if first_process() else None, display=display)
    if not resume and first_process():
        if (folder / CONFIG_FILE).exists():
            raise DataError(
                "holds a run already",
                where=str(folder),
                fix="go on with --resume, replace it with --overwrite, or choose another --output",
            )
        log.write("env.json", json.dumps(environment(), indent=2) + "\n")
        log.write(CONFIG_FILE, recipe.to_yaml())
    for note in () if resume else (*recipe.notes, *plan.notes):
        log.add("note", step=0, message=note)
    with plan.around():
        return fit(plan, folder, log, resume=resume)


def first_process() -> bool:
    """Return whether this process is the one that writes; launchers number them all."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)
