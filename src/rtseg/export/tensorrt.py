"""TensorRT: an engine for this kind of GPU, built from our ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from rtseg.errors import CheckpointError, MissingError
from rtseg.export import onnx
from rtseg.export.graph import SMALLEST, Traced
from rtseg.export.verify import BATCHES

FILE = "model.engine"


def write(traced: Traced, folder: Path) -> str:
    """Build `model.engine` and return that name.

    Every tensor keeps the type that it has in the ONNX file, so that the precision is ours and not
    the builder's choice; float32 is not shortened to TF32.

    Raises:
        MissingError: There is no CUDA device.
        CheckpointError: TensorRT cannot build the network.
    """
    import tensorrt

    if not torch.cuda.is_available():
        raise MissingError("TensorRT needs a CUDA device", fix="export it on the machine to use")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    typed = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(typed))
    parser = tensorrt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory() as between:
        path = Path(between) / onnx.write(traced, Path(between))
        if not parser.parse_from_file(str(path)):
            raise _refused(parser.get_error(0) if parser.num_errors else "unreadable ONNX")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    if None in traced.image.shape:
        config.add_optimization_profile(_profile(builder, traced))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _refused("its log tells why")
    (folder / FILE).write_bytes(engine)
    return FILE


def _profile(builder: Any, traced: Traced) -> Any:
    """Return the range of inputs: sides up to twice those of the example, batches up to 5.

    decision: an engine reserves memory for the largest input, so that it must have an end.
    """
    smallest = (-(-SMALLEST // part) * part for part in traced.divisors)
    largest = (2 * side for side in traced.size)
    bounds = [(1, *smallest), (BATCHES[0], *traced.size), (max(BATCHES), *largest)]
    shapes = []
    for count, *sides in bounds:
        free = (count, *sides, 3) if traced.image.dtype == "uint8" else (count, 3, *sides)
        pairs = zip(free, traced.image.shape, strict=True)
        shapes.append(tuple(side if fixed is None else fixed for side, fixed in pairs))
    profile = builder.create_optimization_profile()
    profile.set_shape(traced.image.name, *shapes)
    return profile


def _refused(reason: object) -> CheckpointError:
    return CheckpointError(
        f"TensorRT cannot build the network ({reason})",
        where=FILE,
        fix="export it for one size (--dynamic none), or as ONNX",
    )
