"""Errors that a user can cause: what went wrong, where, and what to do, each with its exit code."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from typing import Any


class RtsegError(Exception):
    """Say what went wrong, where (file, key or image) and what to do, in one sentence."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        place = f"{where}: " if where else ""
        advice = f"; {fix}" if fix else ""
        super().__init__(f"{place}{what}{advice}")

    def __reduce__(self) -> tuple[Any, ...]:
        remake = functools.partial(type(self), where=self.where, fix=self.fix)
        return remake, (self.what,), self.__dict__  # the state of subclasses travels along


class ConfigError(RtsegError, ValueError):
    """A key, value or option that does not fit (exit code 2)."""

    exit_code = 2


class DataError(RtsegError):
    """Data or a folder that is missing, broken or contradicts its description (exit code 3)."""

    exit_code = 3


class CheckpointError(RtsegError):
    """A checkpoint or exported artifact that cannot be used (exit code 4)."""

    exit_code = 4


class MissingError(RtsegError):
    """An optional package, a device or a codec that is not there (exit code 5)."""

    exit_code = 5


class CheckFailedError(RtsegError):
    """A parity, accuracy or regression check that did not pass (exit code 6)."""

    exit_code = 6


class MemoryFullError(RtsegError):
    """Device or host memory ran out (exit code 7)."""

    exit_code = 7


class InterruptedRunError(RtsegError):
    """A run that the user stopped; its state is saved (exit code 130)."""

    exit_code = 130


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the `count` names of `known` that look most like `name`, best first."""
    names = sorted(known)
    return difflib.get_close_matches(name, names, n=count, cutoff=0.0)
