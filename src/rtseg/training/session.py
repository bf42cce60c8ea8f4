"""The state of a run: built at step 0, saved in `last`, restored from it bit for bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rtseg import checkpoint
from rtseg.errors import CheckpointError, MissingError
from rtseg.losses.batch import batch_gather
from rtseg.structures import Batch
from rtseg.tasks import Task
from rtseg.training.hooks import Hooks
from rtseg.training.optim import Schedule, apply_schedule
from rtseg.training.options import Plan, TrainOptions, device_of, native_bf16
from rtseg.training.processes import launched
from rtseg.training.run_log import RunLog

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Step(nn.Module):
    """The network and its loss in one module, so that both are compiled and distributed."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: Tensor, target: Any) -> dict[str, Tensor]:
        """Return the loss terms of images (B, 3, H, W)."""
        return self.task.training_step(self.model, Batch(images, target, ()))


@dataclass
class Session:
    """A run while it goes on: the plan, its distributed and compiled step, and all that changes.

    best, best_step, waited: best score so far, its step, validations since. scores, scored_step: of
    the last validation. terms, summed: loss terms added up over the steps since the last line of
    the log. figures: further figures of these steps, of hooks, added up. bad_files: what could not
    be read.
    """

    plan: Plan
    fabric: Any
    module: Any
    optimizer: Any
    schedule: Schedule
    folder: Path
    log: RunLog
    total: int
    batches_per_epoch: int
    hooks: Hooks
    ema: AveragedModel | None = None
    step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    scored_step: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    bad_files: set[str] = field(default_factory=set)

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and saved: the average if there is one."""
        return self.plan.model if self.ema is None else self.ema.module

    @property
    def finished(self) -> bool:
        """Whether all steps are done or patience has run out; the same before and after a stop."""
        patience = self.plan.options.early_stop
        return self.step >= self.total or (patience is not None and self.waited >= patience)

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return round(self.step / self.batches_per_epoch, 3)


def start(plan: Plan, folder: Path, log: RunLog) -> Session:
    """Build the session at step 0: launch processes, place the network, prepare the optimizer."""
    options = plan.options
    fabric = _fabric(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed + 1000 * fabric.global_rank)
    if options.channels_last:
        plan.model.to(memory_format=torch.channels_last)
        if isinstance(plan.task, nn.Module):
            plan.task.to(memory_format=torch.channels_last)
    if options.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(plan.model)  # type: ignore[no-untyped-call]
    step: Any = Step(plan.model, plan.task)
    optimizer = plan.optimizer(step)
    apply_schedule(optimizer, 1.0)  # records the base rates, which a resumed run has to find
    if options.compile:
        step = torch.compile(step, dynamic=False)
    module, optimizer = fabric.setup(step, optimizer)
    batches = max(1, plan.data.epoch_length // options.batch_size)
    total = options.steps(batches)
    ema = None
    if options.ema_decay is not None:
        ema = _average(plan.model, options.ema_decay, options.ema_ramp)
    if not fabric.is_global_zero:
        log = RunLog(None, display=lambda _: None)
    schedule, hooks = plan.schedule(total), plan.hooks(total)
    return Session(
        plan, fabric, module, optimizer, schedule, folder, log, total, batches, hooks, ema=ema
    )  # fmt: skip


def _fabric(options: TrainOptions) -> Any:
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment
        from lightning.fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise MissingError(
            "training needs the package `lightning`", fix="pip install 'rtseg[train]'"
        ) from None
    for name in ("lightning.fabric", "lightning.pytorch"):  # they report every process
        logging.getLogger(name).setLevel(logging.WARNING)
    device, precision, (here, nodes) = device_of(options), options.precision, options.layout
    if precision == "auto":
        precision = "bf16" if native_bf16(device.type) else "fp32"
    fabric = Fabric(
        accelerator=device.type,
        devices=here if device.index is None else [device.index],
        num_nodes=nodes,
        # A task may leave outputs unused, and with them parameters, such as auxiliary heads.
        strategy=DDPStrategy(find_unused_parameters=True) if here * nodes > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        plugins=LightningEnvironment() if launched() is None else None,
    )
    fabric.launch()
    return fabric


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics that they have; their weights go on learning."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _average(model: nn.Module, decay: float, ramp: float | None) -> AveragedModel:
    """Return the moving average of a network: its weights, and the statistics of its norms.

    Statistics of the present weights do not fit averaged ones: with a high learning rate a network
    with both scored 10 points of mIoU less. Without a ramp the average begins with the first step.
    With one, the weights before it count as well. Source: TwinMixing's released code.
    """
    rise = (
        _short_rise(decay) if ramp is None else lambda count: decay * (1 - math.exp(-count / ramp))
    )
    average = AveragedModel(model, multi_avg_fn=_moving_average(rise), use_buffers=True)
    if ramp is not None:
        average.n_averaged.fill_(1)  # as if the start had been the first step
    return average


def _short_rise(decay: float) -> Callable[[int], float]:
    """Return the decay of update n: at most (1 + n) / (10 + n).

    decision: so that the random start does not dominate a short run.
    """
    return lambda count: min(decay, (1 + count) / (10 + count))


def _moving_average(decay: Callable[[int], float]) -> Callable[[Any, Any, Any], None]:
    """Return the update of the average, where the decay depends on the number of updates so far."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay(int(count)))
        else:  # how many batches a norm has seen
            torch._foreach_copy_(averaged, current)

    return update


def save(session: Session, name: str) -> None:
    """Write the checkpoint `last` (with the training state) or `best` (without)."""
    random = _random_states(session.fabric)
    if not session.fabric.is_global_zero:
        return
    scores = session.scores if session.scored_step == session.step else {}
    facts = {
        **session.plan.info.facts,
        "step": session.step,
        "epoch": session.epoch,
        "scores": scores,
    }
    info = replace(session.plan.info, facts=facts)
    state = _state(session, random) if name == "last" else None
    checkpoint.save(session.folder / name, session.scored.state_dict(), info, state=state)


def _random_states(fabric: Any) -> dict[str, Tensor]:
    """Gather the random state of every process: (processes, bytes) uint8."""
    states = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    gathered = {kind: batch_gather(state.to(fabric.device)) for kind, state in states.items()}
    return {kind: state.cpu().reshape(fabric.world_size, -1) for kind, state in gathered.items()}


def _state(session: Session, random: dict[str, Tensor]) -> dict[str, Any]:
    task = session.plan.task
    return {
        "step": session.step,
        "model": session.plan.model.state_dict(),
        "task": task.state_dict() if isinstance(task, nn.Module) else {},
        "optimizer": session.optimizer.state_dict(),
        "ema": None if session.ema is None else session.ema.state_dict(),
        "scaler": session.fabric.strategy.precision.state_dict(),
        "random": random,
        "threads": torch.get_num_threads(),
        "best": [session.best, session.best_step, session.waited],
        "scores": session.scores,
        "scored_step": session.scored_step,
        "sums": [session.terms, session.summed, session.figures],
        "bad_files": sorted(session.bad_files),
    }


def restore(session: Session) -> None:
    """Go back to the state of `last`; a run that stopped before its first save begins at step 0.

    Raises:
        CheckpointError: The state is damaged, or of another network or number of processes.
    """
    last = session.folder / "last"
    if not last.exists() and not checkpoint.previous_of(last).exists():
        return
    folder = checkpoint.locate(last)
    state = checkpoint.read_state(folder)
    try:
        _apply(session, state)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"does not fit this run ({error})",
            where=str(folder / checkpoint.STATE),
            fix="resume with the recipe, network and version that the run began with",
        ) from None


def _apply(session: Session, state: dict[str, Any]) -> None:
    fabric, task = session.fabric, session.plan.task
    processes = len(state["random"]["cpu"])
    if processes != fabric.world_size:
        raise ValueError(f"it is of {processes} processes, not {fabric.world_size}")
    session.plan.model.load_state_dict(state["model"])
    if isinstance(task, nn.Module):
        task.load_state_dict(state["task"])
    session.optimizer.load_state_dict(state["optimizer"])
    if session.ema is not None:
        session.ema.load_state_dict(state["ema"])
    fabric.strategy.precision.load_state_dict(state["scaler"])
    if session.plan.options.threads is None:
        torch.set_num_threads(state["threads"])
    # A copy: PyTorch reads a row of a larger tensor beyond its end and crashes.
    torch.set_rng_state(state["random"]["cpu"][fabric.global_rank].clone())
    if fabric.device.type == "cuda" and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"][fabric.global_rank].clone())
    session.step = state["step"]
    session.best, session.best_step, session.waited = state["best"]
    session.scores = state["scores"]
    session.scored_step = state["scored_step"]
    session.terms, session.summed, session.figures = state["sums"]
    session.bad_files = set(state["bad_files"])
