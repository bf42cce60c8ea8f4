"""ONNX: one file with its weights inside, for ONNX Runtime, OpenVINO, TensorRT and many others."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from rtseg.export.graph import Traced

FILE = "model.onnx"
LARGEST = 1_900_000_000
"""Bytes of weights that a file of ONNX holds itself; its format ends at 2 GiB."""


def write(traced: Traced, folder: Path) -> str:
    """Write `model.onnx` and return that name."""
    weights = sum(value.nbytes for value in traced.program.state_dict.values())
    with _quiet():
        program = torch.onnx.export(
            traced.program,
            (),
            dynamo=True,
            input_names=[traced.image.name],
            output_names=[port.name for port in traced.outputs],
            dynamic_shapes=(_free_names(traced),),
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # where in our code it comes from: half of a small file
        program.save(folder / FILE, external_data=weights > LARGEST)
    return FILE


def _free_names(traced: Traced) -> dict[int, str]:
    """Return the names of the lengths that may differ, by dimension."""
    sides = ("height", "width")
    names = ("batch", *sides, "") if traced.image.dtype == "uint8" else ("batch", "", *sides)
    return {
        dim: name
        for dim, (name, length) in enumerate(zip(names, traced.image.shape, strict=True))
        if length is None
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of the exporter about itself off the screen; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
