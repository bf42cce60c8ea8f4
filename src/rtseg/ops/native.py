"""Find the compiled kernels and call them; everything works, more slowly, where they are missing.

The environment variable `RTSEG_KERNELS` chooses: `auto` (default), `off`, or the instruction set
`portable`, `avx2` or `avx512`. It is read at every call.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtseg.errors import ConfigError

VERSION = 1
"""Of the interface of the kernels; a library that was built for another one is left alone."""
SWITCH = "RTSEG_KERNELS"
VARIANTS = {"auto": 0, "portable": 1, "avx2": 2, "avx512": 3}
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
NARROW = 256
"""Most classes whose ids fit into uint8."""


class Window(NamedTuple):
    """A part of a map: its first row and column, its number of rows and columns."""

    top: int
    left: int
    rows: int
    columns: int


@functools.cache
def library(path: Path = Path(__file__).parents[1] / "_kernels.so") -> ctypes.CDLL | None:
    """Load the kernels; None if they were not built, or for another version of the package."""
    try:
        found = ctypes.CDLL(str(path))
        if found.rtseg_kernels_version() != VERSION:
            return None
    except (OSError, AttributeError):
        return None
    numbers = ctypes.POINTER(ctypes.c_int64)
    found.rtseg_resize_argmax.argtypes = [
        ctypes.c_void_p, ctypes.c_int, numbers, numbers, numbers, numbers,
        ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    return found


def active() -> str:
    """Return which kernels run on this machine: an instruction set, or `off` and why.

    Raises:
        ConfigError: `RTSEG_KERNELS` has an unknown value, or names what the processor lacks.
    """
    chosen = _switch()
    if chosen == "off":
        return f"off ({SWITCH}=off)"
    found = library()
    if found is None:
        return "off (not built: install a C++ compiler, then rtseg again)"
    return _names()[VARIANTS[chosen] or found.rtseg_best_variant()]


def usable(logits: Tensor) -> bool:
    """Return whether `resize_argmax` takes these scores (B, K, h, w).

    Raises:
        ConfigError: As for `active`.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and type(logits) in (Tensor, torch.nn.Parameter)  # no stand-in of an exporter
        and logits.device.type == "cpu"
        and logits.layout == torch.strided
        and logits.dtype in DTYPES
        and logits.numel() > 0
        and _switch() != "off"
        and library() is not None
    )


def resize_argmax(
    logits: Tensor,
    size: tuple[int, int],
    window: Window,
    *,
    variant: str | None = None,
    threads: int | None = None,
) -> Tensor:
    """Do what `rtseg.ops.resize.resize_argmax` says with the compiled kernel.

    Args:
        logits: (B, K, h, w) for which `usable` holds, in any memory layout.
        size: (H, W) of the whole result.
        window: The part of it that is wanted, not empty.
        variant: Key of `VARIANTS`; None: what `RTSEG_KERNELS` says.
        threads: At most so many; None: as many as torch uses.

    Returns:
        (B, rows, columns) uint8, above 256 classes int64.

    Raises:
        ConfigError: The processor lacks the instruction set.
        MemoryError: There is no room for two rows of scores.
    """
    found = library()
    assert found is not None, "usable() was not asked"
    name = variant or _switch()
    wide = logits.shape[1] > NARROW
    dtype = torch.int64 if wide else torch.uint8
    out = torch.empty((logits.shape[0], window.rows, window.columns), dtype=dtype)
    code = found.rtseg_resize_argmax(
        logits.data_ptr(), DTYPES[logits.dtype], _numbers(logits.shape), _numbers(logits.stride()),
        _numbers(size), _numbers(window), out.data_ptr(), wide,
        threads or torch.get_num_threads(), VARIANTS[name],
    )  # fmt: skip
    if code == 2:
        raise ConfigError(
            f"this processor lacks {name!r}", where=SWITCH, fix="use auto, or leave it out"
        )
    if code:
        raise MemoryError
    return out


def _numbers(values: Any) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def _names() -> dict[int, str]:
    return {number: name for name, number in VARIANTS.items()}


def _switch() -> str:
    """Return what `RTSEG_KERNELS` says."""
    chosen = os.environ.get(SWITCH) or "auto"
    if chosen != "off" and chosen not in VARIANTS:
        raise ConfigError(
            f"{chosen!r} is unknown", where=SWITCH, fix=f"use {', '.join(VARIANTS)} or off"
        )
    return chosen
