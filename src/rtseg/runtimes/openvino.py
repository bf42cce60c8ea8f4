"""OpenVINO: opens its own files and ONNX files, on the CPU."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.errors import MissingError
from rtseg.runtimes.buffers import Buffers
from rtseg.runtimes.manifest import Manifest

HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
"""What is computed in, by precision; fp16 and int8 say only what the file holds."""
FIXED_SHAPES = 2
"""decision: a file for any size is compiled for each of the first shapes, which is faster than code
for all of them, and only then once for all others."""
ANY_SHAPE: tuple[int, ...] = ()


class OpenVino:
    """Run a file with OpenVINO; inputs and outputs are memory of torch, nothing is copied.

    Args:
        path: The file: `.xml` or `.onnx`.
        manifest: Of the file; its precision is that of the computation.
        device: The CPU.
        threads: Threads to compute with.

    Raises:
        MissingError: The package is not installed.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, device: torch.device, threads: int
    ) -> None:
        self.model: Any = core().read_model(str(path))
        for port in manifest.outputs:
            self.model.output(port.name)  # raises if there is none
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": HINTS[manifest.precision],  # the default may be bf16
        }
        self.manifest, self.any_shape = manifest, None in manifest.image.shape
        self.buffers = Buffers(manifest, device)
        self.compiled: dict[tuple[int, ...], Any] = {}
        self.requests: dict[tuple[int, ...], Any] = {}
        self.lock = threading.Lock()  # a request serves one caller at a time

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs in the order of the manifest."""
        with self.lock:
            key = self._compile(tuple(images.shape))
            outputs = self.buffers.outputs(images)
            if outputs is None:  # the first of this shape: the engine tells those of its outputs
                return self._measure(images, key)
            request = self.requests[key]
            request.set_tensor(self.manifest.image.name, _shared(images))
            for port, value in zip(self.manifest.outputs, outputs, strict=True):
                request.set_tensor(port.name, _shared(value))
            request.infer()
            return outputs

    def _compile(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Have code for inputs of a shape, and return its key."""
        new = shape not in self.compiled
        key = ANY_SHAPE if not self.any_shape or (new and self._full()) else shape
        if key not in self.compiled:
            model = self.model.clone()
            if key != ANY_SHAPE:
                model.reshape({self.manifest.image.name: list(shape)})
            self.compiled[key] = core().compile_model(model, "CPU", self.options)
        return key

    def _full(self) -> bool:
        return len(self.compiled) >= FIXED_SHAPES

    def _measure(self, images: Tensor, key: tuple[int, ...]) -> list[Tensor]:
        """Run with memory of the engine, which then tells the shapes; copy the outputs."""
        request = self.requests[key] = self.compiled[key].create_infer_request()
        request.set_tensor(self.manifest.image.name, _shared(images))
        request.infer()
        names = [port.name for port in self.manifest.outputs]
        outputs = [torch.from_numpy(request.get_tensor(name).data.copy()) for name in names]
        self.buffers.remember(images, outputs)
        return outputs


def _shared(value: Tensor) -> Any:
    """Return a tensor of the engine in the same memory."""
    import openvino

    return openvino.Tensor(value.numpy(), shared_memory=True)


@functools.cache
def core() -> Any:
    """Return the engine of this process.

    Raises:
        MissingError: The package is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise MissingError(
            "openvino is not installed", fix="pip install 'rtseg[openvino]'"
        ) from None
    return openvino.Core()
