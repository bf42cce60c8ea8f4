"""Train a recipe into a run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from rtseg.checkpoint import environment
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
    for note in () if resume else (*recipe.notes, *plan.notes):
        log.add("note", step=0, message=note)
    return fit(plan, folder, log, resume=resume)


def _first_process() -> bool:
    """Return whether this process is the one that writes; launchers number them all."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)
