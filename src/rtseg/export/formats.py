"""The formats: what writes them, in which precisions, and what has to be installed for it."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from rtseg.errors import ConfigError, MissingError, nearest
from rtseg.export import onnx, openvino, tensorrt, torch_export
from rtseg.export.graph import Traced

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What a network computes in, by precision; in int8 it computes in float but for the layers that
the graph says."""
PRECISIONS = (*DTYPES, "int8")


Write = Callable[[Traced, Path], str]
"""Writes a traced network into a folder, and returns the name of the file to open."""


class Format(NamedTuple):
    """How a format is written.

    write: by precision. typed: whether the precision is that of the graph; if not, the graph stays
    float32. packages: what it needs besides torch. install: how a user gets them.
    """

    write: dict[str, Write]
    typed: bool
    packages: tuple[str, ...] = ()
    install: str = ""


_HALF_OPENVINO = functools.partial(openvino.write, halve=True)
FORMATS: dict[str, Format] = {
    "onnx": Format(
        dict.fromkeys(("fp32", "fp16", "int8"), onnx.write),
        typed=True,
        packages=("onnx", "onnxscript", "onnxruntime"),
        install="pip install 'rtseg[onnx]'",
    ),
    "openvino": Format(
        {**dict.fromkeys(("fp32", "bf16", "int8"), openvino.write), "fp16": _HALF_OPENVINO},
        typed=False,
        packages=("openvino", "onnx", "onnxscript"),
        install="pip install 'rtseg[onnx,openvino]'",
    ),
    "torch_export": Format(dict.fromkeys(DTYPES, torch_export.write), typed=True),
    "aoti": Format(dict.fromkeys(DTYPES, torch_export.write_compiled), typed=True),
    "tensorrt": Format(
        dict.fromkeys(DTYPES, tensorrt.write),
        typed=True,
        packages=("tensorrt", "onnx", "onnxscript"),
        install="pip install tensorrt 'rtseg[onnx]'",
    ),
}
"""Every format by name."""


def require_format(name: str, precision: str) -> Format:
    """Return a format that can be written here in a precision.

    Raises:
        ConfigError: There is no such format or precision, or not together.
        MissingError: A package is not installed.
    """
    if name not in FORMATS:
        close = ", ".join(nearest(name, FORMATS))
        raise ConfigError(
            f"format {name!r} is unknown", where="format", fix=f"did you mean one of: {close}?"
        )
    found = FORMATS[name]
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision {precision!r} is unknown", where="precision", fix=f"use {_list(PRECISIONS)}"
        )
    if precision not in found.write:
        others = [key for key, other in FORMATS.items() if precision in other.write]
        raise ConfigError(
            f"{name} files in {precision} run on hardly any engine",
            where="precision",
            fix=f"use {_list(found.write)} for {name}, or {_list(others)} for {precision}",
        )
    missing = [item for item in found.packages if importlib.util.find_spec(item) is None]
    if missing:
        raise MissingError(f"{missing[0]} is not installed", fix=found.install)
    return found


def _list(names: Iterable[str]) -> str:
    return " or ".join(names)
