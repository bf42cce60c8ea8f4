"""Memory of torch for the outputs of an engine, so that results need not be copied out of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rtseg.runtimes.manifest import Manifest


class Buffers:
    """Give fresh tensors of the shapes that outputs had for the same shape of the input.

    Args:
        manifest: Names, in order, the types of the outputs.
        device: Where they lie.
    """

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        self.types = [getattr(torch, port.dtype) for port in manifest.outputs]
        self.device = device
        self.shapes: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def outputs(self, images: Tensor) -> list[Tensor] | None:
        """Return new tensors for the outputs, or None if their shapes are not known yet."""
        shapes = self.shapes.get(tuple(images.shape))
        if shapes is None:
            return None
        return [
            torch.empty(shape, dtype=dtype, device=self.device)
            for shape, dtype in zip(shapes, self.types, strict=True)
        ]

    def remember(self, images: Tensor, outputs: Sequence[Tensor]) -> None:
        """Keep the shapes of the outputs for inputs of this shape."""
        self.shapes[tuple(images.shape)] = [tuple(value.shape) for value in outputs]
