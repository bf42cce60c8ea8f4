"""What the log says about speed: images per second, waiting for images, memory."""

from __future__ import annotations

import torch

from rtseg.training.memory import peak_memory
from rtseg.training.session import Session

DATA_SHARE_LIMIT = 0.3
"""Share of a step's time spent waiting for images above which the log advises."""


class Meter:
    """Average the loss terms and times of the steps between two lines of the log.

    The sums of the terms are part of the session, so that a resumed run writes the same lines. The
    times are those of this session: since its start, or since it was resumed.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.advised = session, False
        self.lately, self.ever = Times(), Times()

    def add(self, terms: dict[str, float], *, waited: float, seconds: float) -> None:
        """Count one step; write a line every `log_every` steps and at the end."""
        session, options = self.session, self.session.plan.options
        for name, value in terms.items():
            session.terms[name] = session.terms.get(name, 0.0) + value
        session.summed += 1
        self.lately.add(waited, seconds)
        self.ever.add(waited, seconds)
        if session.step % options.log_every and session.step != session.total:
            return
        speed = self._speed(self.lately)
        share = speed["data_share"]
        if share > DATA_SHARE_LIMIT and not self.advised and session.step > options.log_every:
            self.advised = True
            advice = f"{share:.0%} of the time goes into waiting for images; raise data.workers"
            session.log.add("note", step=session.step, message=advice)
        means, figures = (
            {name: value / session.summed for name, value in sums.items()}
            for sums in (session.terms, session.figures)
        )
        left = (session.total - session.step) * self.lately.seconds / self.lately.steps
        session.log.add(
            "train",
            step=session.step,
            total=session.total,
            epoch=session.epoch,
            loss=sum(means.values()),
            terms=means,
            lr=session.optimizer.param_groups[0]["lr"],
            **figures,
            **speed,
            eta_seconds=round(left, 1),
        )
        session.terms, session.summed, session.figures = {}, 0, {}
        self.lately = Times()

    def summary(self) -> dict[str, float]:
        """Return the speed of all steps of this session; empty without any."""
        return self._speed(self.ever) if self.ever.steps else {}

    def _speed(self, times: Times) -> dict[str, float]:
        """Return images per second of all processes, and the worst of the rest among them."""
        fabric = self.session.fabric
        own = [times.waited / times.seconds, peak_memory(fabric.device)]
        worst = fabric.all_reduce(
            torch.tensor(own, dtype=torch.float64, device=fabric.device), reduce_op="max"
        )
        images = times.steps * self.session.plan.options.batch_size
        return {
            "images_per_second": round(images / times.seconds, 3),
            "data_share": round(float(worst[0]), 3),
            "peak_memory_mb": round(float(worst[1])),
        }


class Times:
    """Seconds of some steps, and how many of them went into waiting for images."""

    def __init__(self) -> None:
        self.waited, self.seconds, self.steps = 0.0, 0.0, 0

    def add(self, waited: float, seconds: float) -> None:
        """Count one step."""
        self.waited += waited
        self.seconds += seconds
        self.steps += 1
