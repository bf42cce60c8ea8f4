"""TensorRT: opens engines that were built on this kind of GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.errors import CheckpointError, MissingError
from rtseg.runtimes.manifest import Manifest


class TensorRt:
    """Run a TensorRT engine on the current stream of torch, in torch's memory.

    Args:
        path: The engine.
        manifest: Of the file.
        device: A CUDA device.
        threads: Not used: everything happens on the device.

    Raises:
        MissingError: The package is not installed.
        CheckpointError: The engine is of another version of TensorRT or another kind of GPU.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, device: torch.device, threads: int
    ) -> None:
        del threads
        try:
            import tensorrt
        except ImportError:
            raise MissingError("tensorrt is not installed", fix="pip install tensorrt") from None
        with torch.cuda.device(device):
            loader = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
            self.engine: Any = loader.deserialize_cuda_engine(path.read_bytes())
            if self.engine is None:
                raise CheckpointError(
                    "was built by another version of TensorRT or for another GPU",
                    where=str(path),
                    fix="export again on this machine",
                )
            self.context: Any = self.engine.create_execution_context()
        self.manifest, self.device = manifest, device

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs in the order of the manifest."""
        image = self.manifest.image.name
        self.context.set_input_shape(image, tuple(images.shape))
        self.context.set_tensor_address(image, images.data_ptr())
        outputs = []
        for port in self.manifest.outputs:
            shape = tuple(self.context.get_tensor_shape(port.name))
            dtype = getattr(torch, port.dtype)
            outputs.append(torch.empty(shape, dtype=dtype, device=self.device))
            self.context.set_tensor_address(port.name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream(self.device)
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError(f"TensorRT could not run {tuple(images.shape)}")
        images.record_stream(stream)
        return outputs
