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
from torch import Tensor

from rtseg.data.batch_augment import way_to
from rtseg.data.loader import TrainBatches, eval_loader, opened, train_loader
from rtseg.errors import DataError, InterruptedRunError
from rtseg.evaluation import evaluate
from rtseg.structures import Batch
from rtseg.training.guard import not_finite
from rtseg.training.memory import freed_memory_kept
from rtseg.training.meter import Meter
from rtseg.training.optim import apply_schedule
from rtseg.training.options import Plan
from rtseg.training.processes import together
from rtseg.training.run_log import RunLog
from rtseg.training.samples import SampleSheet
from rtseg.training.session import Session, freeze_norms, restore, save, start


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
        RtsegError: The loss is not finite, or another process of the run has ended.
    """
    here, nodes = plan.options.layout
    with together(here, nodes, folder=folder):
        session = start(plan, folder, log)
        if resume:
            restore(session)
        _train(session)
    return session.scores


def _train(session: Session) -> None:
    """Take all steps that are left, validate and save."""
    plan = session.plan
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
        figures = {**meter.summary(), "scores": session.scores}
        session.log.add("end", step=session.step, epoch=session.epoch, **figures)


def train_step(session: Session, parts: Sequence[Batch]) -> dict[str, float]:
    """Take one optimizer step on a batch that comes in one or more parts.

    Returns:
        The loss terms of the whole batch, over all parts and processes.

    Raises:
        RtsegError: A loss term is not a finite number.
    """
    options, fabric, optimizer = session.plan.options, session.fabric, session.optimizer
    session.hooks.before_step(session)
    apply_schedule(optimizer, session.schedule(session.step))
    if options.freeze_batch_norm:
        freeze_norms(session.plan.model)
    sums: dict[str, Tensor] = {}
    shares: list[dict[str, float]] = [{}]
    for number, batch in enumerate(parts):
        images = batch.images.to(fabric.device, non_blocking=True)
        if options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with fabric.no_backward_sync(session.module, enabled=number < len(parts) - 1):
            terms = session.module(images, fabric.to_device(batch.target))
            if len(parts) > 1 and number == 0:
                shares = part_shares(session, parts)
            equal = 1 / len(parts)
            terms = {name: shares[number].get(name, equal) * terms[name] for name in terms}
            fabric.backward(torch.stack(list(terms.values())).sum())
        for name, value in terms.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    means = fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean").tolist()
    totals = dict(zip(sums, means, strict=True))
    if not all(math.isfinite(value) for value in means):
        raise not_finite(session, parts, totals)
    if options.clip_norm is not None:
        fabric.clip_gradients(session.module, optimizer, max_norm=options.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    session.hooks.after_step(session)
    if session.ema is not None:
        session.ema.update_parameters(session.plan.model)
    session.step += 1
    return totals


def part_shares(session: Session, parts: Sequence[Batch]) -> list[dict[str, float]]:
    """Return the share that each part has in each loss term of a batch, over all processes.

    A term that is a mean over labelled pixels weighs a part by its labelled pixels; a term of which
    the task names no divisor is missing here and weighs all parts alike.
    """
    divisors = [session.plan.task.divisors(batch.target) for batch in parts]
    names = list(divisors[0])
    if not names:
        return [{} for _ in parts]
    table = torch.tensor(
        [[float(item[name]) for name in names] for item in divisors],
        dtype=torch.float64, device=session.fabric.device,
    )  # fmt: skip
    table = session.fabric.all_reduce(table, reduce_op="sum")
    whole = table.sum(0)
    shares = torch.where(whole > 0, table / whole, 1 / len(parts))
    return [dict(zip(names, row, strict=True)) for row in shares.tolist()]


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
    shown = options.show_images if fabric.is_global_zero else 0
    sheet = SampleSheet(data.val, count=shown, every=fabric.world_size)
    with fabric.autocast():
        result = evaluate(
            session.scored, session.plan.task, opened(loader),
            device=fabric.device, visit=sheet.collect,
        )  # fmt: skip
    session.log.show(sheet.draw(), step=session.step)
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
