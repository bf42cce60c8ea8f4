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

from rtseg.data.batch_augment import way_to
from rtseg.data.loader import TrainBatches, eval_loader, opened, train_loader
from rtseg.errors import DataError, InterruptedRunError, RtsegError
from rtseg.evaluation import evaluate
from rtseg.structures import Batch
from rtseg.training.memory import freed_memory_kept
from rtseg.training.optim import apply_schedule
from rtseg.training.options import Plan
from rtseg.training.run_log import RunLog
from rtseg.training.session import Session, restore, save, start

DATA_SHARE_LIMIT = 0.3
"""Share of a step's time spent waiting for images above which the log advises."""


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
    with (
        contextlib.closing(session.log),
        freed_memory_kept(session.fabric.device.type),
        contextlib.closing(batches(session)) as source,
        StopSignals() as signals,
    ):
        meter = Meter(session)
        while not session.finished:
            began = time.perf_counter()
            parts = [next(source) for _ in range(plan.options.accumulate)]
            waited = time.perf_counter() - began
            terms = train_step(session, parts)
            meter.add(terms, waited=waited, seconds=time.perf_counter() - began)
            _check_faults(session, parts)
            _after_step(session)
            if _anywhere(session.fabric, flag=signals.received):
                raise _interrupted(session)
        save(session, "last")
        session.log.add("end", step=session.step, epoch=session.epoch, scores=session.scores)
    return session.scores


def train_step(session: Session, parts: Sequence[Batch]) -> dict[str, float]:
    """Take one optimizer step on a batch that comes in one or more parts; return the loss terms.

    Raises:
        RtsegError: A loss term is not a finite number.
    """
    options, fabric, optimizer = session.plan.options, session.fabric, session.optimizer
    session.hooks.before_step(session)
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
    if _anywhere(fabric, flag=not all(math.isfinite(value) for value in totals.values())):
        raise RtsegError(
            f"the loss is not finite at step {session.step}: {totals}",
            where=", ".join(item.path for item in parts[-1].meta[:2]),
            fix="lower optimizer.lr, set train.clip_norm, or train.precision=fp32",
        )
    if options.clip_norm is not None:
        fabric.clip_gradients(session.module, optimizer, max_norm=options.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    session.hooks.after_step(session)
    if session.ema is not None:
        session.ema.update_parameters(session.plan.model)
    session.step += 1
    return totals


def batches(session: Session) -> Generator[Batch, None, None]:
    """Yield the batches of the rest of the run; closing it ends the reading processes."""
    fabric, options, data = session.fabric, session.plan.options, session.plan.data
    order = TrainBatches(
        data.source,
        batch_size=options.batch_size,
        seed=options.seed,
        start=session.step,
        parts=options.accumulate,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    way = way_to(data.augment, data.preprocess, on=data.augment_on, device=fabric.device)
    loader = train_loader(
        data.train,
        order,
        augment=way.augment,
        preprocess=data.preprocess,
        collate=way.collate,
        target=data.target or session.plan.task.target,
        workers=data.workers,
    )
    iterator = iter(loader)
    try:
        yield from map(way.finish, opened(iterator))
    finally:
        if data.workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _anywhere(fabric: Any, *, flag: bool) -> bool:
    """Return whether a flag is set on any process: all must stop together, as saving needs all."""
    if fabric.world_size == 1:
        return flag
    count = fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum")
    return bool(count > 0)


def _after_step(session: Session) -> None:
    """Validate and save when it is time."""
    options, step = session.plan.options, session.step
    val_every = options.val_every or session.batches_per_epoch
    save_every = options.save_every or session.batches_per_epoch
    if session.plan.data.val is not None and (step % val_every == 0 or step == session.total):
        _validate(session)
    if step % save_every == 0:
        save(session, "last")


def _validate(session: Session) -> None:
    """Score the network, and keep it if it is the best so far."""
    fabric, data, options = session.fabric, session.plan.data, session.plan.options
    assert data.val is not None
    session.hooks.before_validation(session)
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
    session.scores, session.scored_step = result.scores, session.step
    figures = {"scores": result.scores, "seconds": round(result.seconds, 2)}
    session.log.add("validation", step=session.step, epoch=session.epoch, **figures)
    if not data.select or not session.hooks.may_be_best(session.step):
        return
    score = result.scores.get(options.monitor)  # a score may be left out where nothing is defined
    if score is not None and (session.best is None or score > session.best):
        session.best, session.best_step, session.waited = score, session.step, 0
        save(session, "best")
    else:
        session.waited += 1


def _check_faults(session: Session, parts: Sequence[Batch]) -> None:
    """Name every unreadable image once; end the run when there are too many of them."""
    data, bad = session.plan.data, session.bad_files
    found = sorted({fault for batch in parts for fault in batch.faults} - bad)
    if _anywhere(session.fabric, flag=bool(found)) and session.fabric.world_size > 1:
        everywhere: list[list[str]] = [[]] * session.fabric.world_size
        torch.distributed.all_gather_object(everywhere, found)
        found = sorted({fault for faults in everywhere for fault in faults})
    for fault in found:
        session.log.add("fault", step=session.step, message=fault)
    bad.update(found)
    if len(bad) > data.max_bad * len(data.train):
        error = DataError(
            f"{len(bad)} of {len(data.train)} training images cannot be read, more than "
            f"data.max_bad ({data.max_bad:g}) allows; one of them: {min(bad)}",
            fix="run `rtseg data check`, then go on with --resume",
        )
        bad.clear()  # once the files are repaired, the run goes on with a new count
        save(session, "last")
        raise error


def _interrupted(session: Session) -> InterruptedRunError:
    """Save the state of a run that was told to stop, and return the error that says so."""
    save(session, "last")
    return InterruptedRunError(
        f"stopped at step {session.step} of {session.total}; the state is saved",
        where=str(session.folder),
        fix=f"go on with `rtseg train --resume {session.folder}`",
    )


class Meter:
    """Average the loss terms and times of the steps between two lines of the log.

    The sums of the terms are part of the session, so that a resumed run writes the same lines.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.advised = session, False
        self.waited, self.seconds, self.timed = 0.0, 0.0, 0

    def add(self, terms: dict[str, float], *, waited: float, seconds: float) -> None:
        """Count one step; write a line every `log_every` steps and at the end."""
        session, options = self.session, self.session.plan.options
        for name, value in terms.items():
            session.terms[name] = session.terms.get(name, 0.0) + value
        session.summed += 1
        self.waited += waited
        self.seconds += seconds
        self.timed += 1
        if session.step % options.log_every and session.step != session.total:
            return
        share = round(self.waited / self.seconds, 3)
        if share > DATA_SHARE_LIMIT and not self.advised and session.step > options.log_every:
            self.advised = True
            advice = f"{share:.0%} of the time goes into waiting for images; raise data.workers"
            session.log.add("note", step=session.step, message=advice)
        means, figures = (
            {name: value / session.summed for name, value in sums.items()}
            for sums in (session.terms, session.figures)
        )
        session.log.add(
            "train",
            step=session.step,
            total=session.total,
            epoch=session.epoch,
            loss=sum(means.values()),
            terms=means,
            lr=session.optimizer.param_groups[0]["lr"],
            **figures,
            images_per_second=round(self.timed * options.batch_size / self.seconds, 3),
            data_share=share,
            eta_seconds=round((session.total - session.step) * self.seconds / self.timed, 1),
        )
        session.terms, session.summed, session.figures = {}, 0, {}
        self.waited, self.seconds, self.timed = 0.0, 0.0, 0


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
