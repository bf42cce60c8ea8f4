"""`rtseg train`: train a recipe into a run folder, or go on with a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared
from rtseg.cli.run_display import duration, run_display
from rtseg.errors import ConfigError

if TYPE_CHECKING:
    from rtseg.recipe import Recipe
    from rtseg.training.options import Plan

RUN_FILES = ("config.yaml", "env.json", "log.jsonl", "metrics.csv")
RATE_FILES = ("find_lr.png", "find_lr.json")
"""What the search for a learning rate leaves."""
RUN_FOLDERS = ("last", "best", "plots", "tensorboard", "last.previous", "best.previous")


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe name (lsa_binet/camvid) or YAML file.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as train.epochs=2.")
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; runs/<recipe> if not given.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, exactly.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Check every image and mask before the first step.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data, recipe, memory and a step; keep nothing.")
    ] = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Try rising learning rates, suggest one.")
    ] = False,
    shared: Shared,
) -> None:
    """Train a recipe.

    Ctrl-C saves the state; `rtseg train --resume RUN` goes on as if nothing had happened.
    """
    from rtseg import recipe as recipes

    if not recipes.first_process():  # the first one speaks for all, and removes what is replaced
        shared = replace(shared, quiet=True, json=False, overwrite=False)
    if resume is not None:
        if recipe is not None or overrides:
            raise ConfigError(
                "--resume goes on with the run as it is and takes no recipe or overrides",
                fix=f"use `rtseg train --resume {resume}` alone, or start a new run",
            )
        chosen, folder = recipes.resume_recipe(resume), resume
    else:
        chosen, folder = _new_run(recipe, overrides or [], output, shared)
    plan = recipes.build(chosen)
    if check:
        _check_data(plan, shared)
    summary = _summarize(plan, folder)
    shared.log(summary["text"])
    if find_lr:
        _find_rate(plan, folder, shared)
        return
    if dry_run:
        tried = _try_step(plan, folder, summary["steps"])
        shared.finish({**summary, **tried, "trained": False}, tried["text"])
        return
    if resume is None and shared.overwrite:
        _remove_run(folder)
    with run_display(shared) as display:
        scores = recipes.run(plan, chosen, folder, resume=resume is not None, display=display)
    width = max(map(len, scores), default=0)
    lines = [f"{name:{width}s}  {value:.4f}" for name, value in scores.items()]
    document = {"run": folder, "scores": scores, "steps": summary["steps"]}
    shared.finish(document, *lines, f"run folder: {folder}")


def _new_run(
    recipe: str | None, overrides: list[str], output: Path | None, shared: Shared
) -> tuple[Recipe, Path]:
    """Read the recipe with the shared options as overrides, and choose its folder."""
    from rtseg.recipe import read_recipe

    if recipe is None:
        raise ConfigError(
            "no recipe was given",
            fix="name one, such as `rtseg train lsa_binet/synthetic` (see docs/recipes.md)",
        )
    changes = list(overrides)
    if shared.seed is not None:
        changes.append(f"train.seed={shared.seed}")
    if shared.device != "auto":
        changes.append(f"train.device={shared.device}")
    stem = Path(recipe).with_suffix("") if recipe.endswith((".yaml", ".yml")) else Path(recipe)
    name = "-".join(stem.parts[-2:]).replace("@", "-")
    return read_recipe(recipe, changes), output or Path("runs") / name


def _check_data(plan: Plan, shared: Shared) -> None:
    from rtseg.recipe import check_data

    with shared.progress("checking data") as progress:
        warnings = check_data(plan, progress=progress)
    for warning in warnings:
        shared.log(f"warning: {warning}")


def _try_step(plan: Plan, folder: Path, steps: int) -> dict[str, Any]:
    """Take two steps that leave nothing behind, and tell what the run will cost."""
    from rtseg.training.memory import peak_memory
    from rtseg.training.options import device_of
    from rtseg.training.probe import step_seconds

    seconds = step_seconds(plan, folder, warmup=1, steps=1)
    memory = peak_memory(device_of(plan.options))
    text = (
        f"a step takes {seconds:.3g} s, all steps about {duration(seconds * steps)} without "
        f"validations; {memory:,.0f} MB of memory at most so far; nothing was trained"
    )
    figures = {"step_seconds": seconds, "training_seconds": seconds * steps}
    return {**figures, "peak_memory_mb": memory, "text": text}


def _find_rate(plan: Plan, folder: Path, shared: Shared) -> None:
    """Run a range test, and write its picture and its figures into the run folder."""
    from dataclasses import asdict

    from rtseg import visualize
    from rtseg.cli.val import refuse_existing
    from rtseg.training.find_lr import draw_rates
    from rtseg.training.find_lr import find_lr as run_test

    refuse_existing(folder, RATE_FILES, shared)
    result = run_test(plan, folder)
    picture = draw_rates(result, folder / RATE_FILES[0])
    document = {**asdict(result), "picture": picture}
    visualize.write_text(folder / RATE_FILES[1], json.dumps(asdict(result), indent=2) + "\n")
    found = result.suggested
    advice = (
        "the loss never fell: try another optimizer, or look at the data"
        if found is None
        else f"steepest fall of the loss at optimizer.lr={found:.3g}"
    )
    shared.finish(document, advice, f"written to {picture}; nothing was trained")


def _remove_run(folder: Path) -> None:
    """Remove what an earlier run left in a folder, and nothing else."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for name in RUN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def _summarize(plan: Plan, folder: Path) -> dict[str, Any]:
    options, data = plan.options, plan.data
    steps = options.steps(data.epoch_length // options.batch_size)
    parameters = sum(item.numel() for item in plan.model.parameters())
    validation = "no validation set" if data.val is None else f"{len(data.val)} validation images"
    classes = f", {len(plan.info.classes)} classes" if plan.info.classes else ""
    return {
        "run": folder,
        "model": plan.info.name,
        "parameters": parameters,
        "train_images": len(data.train),
        "images_per_epoch": data.epoch_length,
        "steps": steps,
        "text": (
            f"{plan.info.name}: {parameters:,} parameters{classes}; "
            f"{len(data.train)} training images, {validation}; {steps} steps of "
            f"{options.batch_size} images -> {folder}"
        ),
    }
