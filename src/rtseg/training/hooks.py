"""The places at which a run lets something change its network: phases, observers, statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtseg.training.session import Session


def _nothing(_: Session, /) -> None:
    pass


def _always(_: int, /) -> bool:
    return True


@dataclass(frozen=True)
class Hooks:
    """What the loop calls while it trains; without arguments, nothing happens.

    What a hook does must follow from the session's step and from what a checkpoint holds: only then
    does a run that goes on do the same as one that never stopped. What it has to remember belongs
    into the state of the plan's task (an `nn.Module`) or of the network.

    before_step: Before the forward pass of step `session.step` (0 = first). Lines that it writes
        to the log belong to `session.step + 1`, as the log counts steps that are done.
    after_step: When the optimizer has changed the weights, before they are averaged; it may add
        figures of this step to `session.figures`.
    before_validation: Before `session.scored` is scored, and perhaps kept as `best`.
    may_be_best: Whether the network after so many steps may become `best`.
    """

    before_step: Callable[[Session], None] = _nothing
    after_step: Callable[[Session], None] = _nothing
    before_validation: Callable[[Session], None] = _nothing
    may_be_best: Callable[[int], bool] = _always


def no_hooks(_: int, /) -> Hooks:
    """Return hooks that do nothing, for a run of any number of steps."""
    return Hooks()
