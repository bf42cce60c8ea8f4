"""The training loop: one step after the other, the same on one CPU and on many GPUs.

A run that is stopped at any moment goes on from its last checkpoint as if nothing had happened: on
the CPU the weights are equal bit for bit. What makes that so: order and augmentation of the images
come from counters (data/loader.py), the learning rate is a function of the step, and the rest
(optimizer, averages, random state) is in the checkpoint (training/session.py).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from rtseg.data.loader import TrainBatches, eval_loader, opened, train_loader
from rtseg.errors import ConfigError, DataError, InterruptedRunError, RtsegError
from rtseg.evaluation import evaluate
from rtseg.structures import Batch
from rtseg.training.optim import apply_schedule
from rtseg.training.options import Plan
from rtseg.training.run_log import RunLog
from rtseg.training.session import Session, restore, save, start


def fit(plan: Plan, folder: Path, log: RunLog, *, resume: bool = False) -> dict[str, float]:
    """Train; leave `last` in the run folder, and `best` if a validation set may choose it.

    Args:
        plan: Network, task, data and options.
        folder: The run folder.
        log: Where events go.
        resume: Go on from `last` in the folder, if it is there.

    Returns:
        The scores of the last validation (empty without a validation set).

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
        DataError: Too many unreadable images.
        RtsegError: The loss is not finite.
    """
    session = start(plan, folder, log)
    if resume:
        restore(session)
    session.log.open(step=session.step)
    with contextlib.closing(batches(session)) as source, StopSignals() as signals:
        meter = Meter(session)
        while session.step < session.total:
            began = time.perf_counter()
            parts = [next(source) for _ in range(plan.options.accumulate)]
            waited = time.perf_counter() - began
            terms = train_step(session, parts)
            meter.add(terms, waited=waited, seconds=time.perf_counter() - began)
            _check_faults(session, parts)
            finished = _after_step(session)
            if signals.received:
                raise _interrupted(session)
            if finished:
                break
    save(session, "last")
    session.log.add("end", step=session.step, epoch=session.epoch, scores=session.scores)
    session.log.close()
    return session.scores


def train_step(session: Session, parts: Sequence[Batch]) -> dict[str, float]:
    """Take one optimizer step on a batch that comes in one or more parts; return the loss terms.

    Raises:
        RtsegError: A loss term is not a finite number.
    """
    options, fabric, optimizer = session.plan.options, session.fabric, session.optimizer
    apply_schedule(optimizer, session.schedule(session.step))
    totals: dict[str, float] = {}
    for number, batch in enumerate(parts, start=1):
        images = batch.images.to(fabric.device, non_blocking=True)
        if options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with fabric.no_backward_sync(session.module, enabled=number < len(parts)):
            terms = session.module(images, fabric.to_device(batch.target))
            fabric.backward(torch.stack(list(terms.values())).sum() / len(parts))
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach()) / len(parts)
    if not all(math.isfinite(value) for value in totals.values()):
        raise RtsegError(
            f"the loss is not finite at step {session.step}: {totals}",
            where=", ".join(item.path for item in parts[-1].meta[:2]),
            fix="lower optimizer.lr, set train.clip_norm, or train.precision=fp32",
        )
    if options.clip_norm is not None:
        fabric.clip_gradients(session.module, optimizer, max_norm=options.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if session.ema is not None:
        session.ema.update_parameters(session.plan.model)
    session.step += 1
    return totals


def batches(session: Session) -> Generator[Batch, None, None]:
    """Yield the batches of the rest of the run; closing it ends the reading processes."""
    fabric, options, data = session.fabric, session.plan.options, session.plan.data
    order = TrainBatches(
        len(data.train),
        batch_size=options.batch_size,
        seed=options.seed,
        start=session.step,
        parts=options.accumulate,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    loader = train_loader(
        data.train,
        order,
        augment=data.augment,
        preprocess=data.preprocess,
        target=session.plan.task.target,
        workers=data.workers,
    )
    iterator = iter(loader)
    try:
        yield from opened(iterator)
    finally:
        if data.workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _after_step(session: Session) -> bool:
    """Validate and save when it is time; return whether the run should end early."""
    options, step = session.plan.options, session.step
    val_every = options.val_every or session.batches_per_epoch
    save_every = options.save_every or session.batches_per_epoch
    finished = False
    if session.plan.data.val is not None and (step % val_every == 0 or step == session.total):
        finished = _validate(session)
    if step % save_every == 0:
        save(session, "last")
    return finished


def _validate(session: Session) -> bool:
    """Score the network, keep it if it is the best so far; return whether patience has run out."""
    fabric, data, options = session.fabric, session.plan.data, session.plan.options
    assert data.val is not None
    loader = eval_loader(
        data.val,
        preprocess=data.preprocess,
        target=session.plan.task.target,
        workers=data.workers,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    with fabric.autocast():
        result = evaluate(session.scored, session.plan.task, opened(loader), device=fabric.device)
    session.scores = result.scores
    figures = {"scores": result.scores, "seconds": round(result.seconds, 2)}
    session.log.add("validation", step=session.step, epoch=session.epoch, **figures)
    if not data.select:
        return False
    if options.monitor not in result.scores:
        known = ", ".join(sorted(result.scores))
        raise ConfigError(
            f"{options.monitor!r} is no score", where="train.monitor", fix=f"choose one of: {known}"
        )
    score = result.scores[options.monitor]
    if session.best is None or score > session.best:
        session.best, session.best_step, session.waited = score, session.step, 0
        save(session, "best")
    else:
        session.waited += 1
    return options.early_stop is not None and session.waited >= options.early_stop


def _check_faults(session: Session, parts: Sequence[Batch]) -> None:
    """Name every unreadable image once; end the run when there are too many of them."""
    data = session.plan.data
    for fault in (fault for batch in parts for fault in batch.faults):
        if fault not in session.bad_files:
            session.bad_files.add(fault)
            session.log.add("fault", step=session.step, message=fault)
    if len(session.bad_files) > data.max_bad * len(data.train):
        save(session, "last")
        raise DataError(
            f"{len(session.bad_files)} of {len(data.train)} training images cannot be read, more "
            f"than data.max_bad ({data.max_bad:g}) allows; one of them: {min(session.bad_files)}",
            fix="run `rtseg data check`, then go on with --resume",
        )


def _interrupted(session: Session) -> InterruptedRunError:
    """Save the state of a run that was told to stop, and return the error that says so."""
    save(session, "last")
    return InterruptedRunError(
        f"stopped at step {session.step} of {session.total}; the state is saved",
        where=str(session.folder),
        fix=f"go on with `rtseg train --resume {session.folder}`",
    )


class Meter:
    """Average the loss terms and times of the steps between two lines of the log."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._reset()

    def _reset(self) -> None:
        self.terms: dict[str, float] = {}
        self.waited, self.seconds, self.steps = 0.0, 0.0, 0

    def add(self, terms: dict[str, float], *, waited: float, seconds: float) -> None:
        """Count one step; write a line every `log_every` steps and at the end."""
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
        self.waited += waited
        self.seconds += seconds
        self.steps += 1
        session, options = self.session, self.session.plan.options
        if session.step % options.log_every and session.step != session.total:
            return
        means = {name: value / self.steps for name, value in self.terms.items()}
        session.log.add(
            "train",
            step=session.step,
            total=session.total,
            epoch=session.epoch,
            loss=sum(means.values()),
            terms=means,
            lr=session.optimizer.param_groups[0]["lr"],
            images_per_second=round(self.steps * options.batch_size / self.seconds, 3),
            data_share=round(self.waited / self.seconds, 3),
            eta_seconds=round((session.total - session.step) * self.seconds / self.steps, 1),
        )
        self._reset()


class StopSignals:
    """Turn Ctrl-C and SIGTERM into a flag while a step is computed; a second one ends at once."""

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not the main thread: leave signals alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, *_: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
