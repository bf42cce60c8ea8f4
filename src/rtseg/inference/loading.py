"""Open whatever can be run: a checkpoint, or what was exported from one."""

from __future__ import annotations

from pathlib import Path

import torch

from rtseg import checkpoint, config
from rtseg.checkpoint import Checkpoint
from rtseg.data.preprocess import Preprocess
from rtseg.errors import CheckpointError, ConfigError
from rtseg.inference.automatic import Notify, warn, with_runtime
from rtseg.runtimes import Runtime, is_export, open_export
from rtseg.tasks import Task, rebuild


def open_model(
    path: str | Path,
    *,
    runtime: str | None = None,
    device: torch.device,
    threads: int | None = None,
    notify: Notify = warn,
) -> Checkpoint:
    """Load a checkpoint or an exported folder with something that runs it.

    Args:
        path: Checkpoint or run folder, name of shipped weights, or exported folder.
        runtime: Key of `rtseg.runtimes.RUNTIMES`, or `auto` for the fastest. By default torch for
            a checkpoint; for an export, as with `auto`, an engine that opens its format.
        device: Where to compute.
        threads: Threads to compute with; those of torch if left out.
        notify: Called with a line whenever something takes long, and with what came of it.

    Raises:
        CheckpointError: Nothing there, or damaged.
        ConfigError: The runtime has no such name, or does not open this export.
        MissingError: The runtime is not installed, or not for this device.
    """
    if is_export(path):
        return open_export(path, runtime=runtime or "auto", device=device, threads=threads)
    loaded = checkpoint.load(path)
    _, preprocess = task_and_preprocess(loaded)
    return with_runtime(
        loaded, preprocess, runtime=runtime or "torch", device=device, threads=threads,
        notify=notify,
    )  # fmt: skip


def task_and_preprocess(loaded: Checkpoint) -> tuple[Task, Preprocess]:
    """Build the task and the preprocessing that a checkpoint was trained with.

    Raises:
        CheckpointError: Its `config.json` names an unknown task, option or preprocessing.
    """
    info, where = loaded.info, str(loaded.path / checkpoint.CONFIG)
    try:
        task = rebuild(info.task, info.classes, info.recipe.get("task", {}))
        preprocess = config.call(Preprocess, info.preprocess, section="preprocess")
    except ConfigError as error:
        raise CheckpointError(error.what, where=where, fix="update rtseg") from None
    if isinstance(loaded.model, Runtime) and loaded.model.takes_pixels:
        preprocess = preprocess.in_pixels()
    return task, preprocess
