"""ONNX Runtime: opens ONNX files, on the CPU or a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.errors import MissingError
from rtseg.runtimes.buffers import Buffers
from rtseg.runtimes.manifest import Manifest

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """Run an ONNX file; inputs and outputs are memory of torch, nothing is copied.

    Args:
        path: The file.
        manifest: Of the file.
        device: `cpu` or `cuda`.
        threads: Of one operator. They do not spin while they wait, as that would slow down
            whatever else the process does.

    Raises:
        MissingError: The package, or its part for CUDA, is not installed.
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, device: torch.device, threads: int
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingError(
                "onnxruntime is not installed", fix="pip install 'rtseg[onnx]'"
            ) from None
        provider = PROVIDERS[device.type]
        if provider not in onnxruntime.get_available_providers():
            raise MissingError(
                f"onnxruntime cannot compute on {device}", fix="pip install onnxruntime-gpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        place = {"device_id": device.index or 0} if device.type == "cuda" else {}
        self.session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=[(provider, place)]
        )
        found = {item.name for item in self.session.get_outputs()}
        for port in manifest.outputs:
            if port.name not in found:
                raise ValueError(f"it has no output {port.name}")
        self.manifest, self.device = manifest, device
        self.buffers = Buffers(manifest, device)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs in the order of the manifest."""
        outputs = self.buffers.outputs(images)
        if outputs is None:  # the first of this shape: the engine tells those of its outputs
            return self._measure(images)
        binding = self.session.io_binding()
        self._bind(binding.bind_input, self.manifest.image.name, images)
        for port, value in zip(self.manifest.outputs, outputs, strict=True):
            self._bind(binding.bind_output, port.name, value)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self.session.run_with_iobinding(binding)
        return outputs

    def _bind(self, bind: Any, name: str, value: Tensor) -> None:
        numpy_type = torch.empty(0, dtype=value.dtype).numpy().dtype.type
        index = self.device.index or 0
        bind(name, self.device.type, index, numpy_type, tuple(value.shape), value.data_ptr())

    def _measure(self, images: Tensor) -> list[Tensor]:
        names = [port.name for port in self.manifest.outputs]
        arrays = self.session.run(names, {self.manifest.image.name: images.cpu().numpy()})
        outputs = [torch.from_numpy(array).to(self.device) for array in arrays]
        self.buffers.remember(images, outputs)
        return outputs
