"""OpenVINO: a graph (`model.xml`) and its weights (`model.bin`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rtseg.export import onnx
from rtseg.export.graph import Traced

FILE = "model.xml"


def write(traced: Traced, folder: Path, *, halve: bool = False) -> str:
    """Write `model.xml` with `model.bin`, by way of ONNX, and return the name of the first.

    Args:
        traced: The network.
        folder: Where it goes.
        halve: Store weights in float16; they are widened when the file is opened.
    """
    import openvino

    with tempfile.TemporaryDirectory() as between:
        # Not convert_model, which reports to its makers that it was used.
        model = openvino.Core().read_model(Path(between) / onnx.write(traced, Path(between)))
        openvino.save_model(model, folder / FILE, compress_to_fp16=halve)
    return FILE
