"""A network that an engine runs: the same call and the same output, and no parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.runtimes.manifest import Manifest

Run = Callable[[Tensor], Any]
"""Images in, the network's output tuple out."""


class Runtime(nn.Module):
    """Stand in for a network in evaluation, prediction and benchmarks.

    It has no parameters, so `.to(device)` and `.eval()` change nothing: the device is chosen when
    it is made. Outputs lie in memory of their own; the next call does not change them.

    Args:
        run: Images (B, 3, H, W) float32 -> the output of the task.
        engine: Key of `RUNTIMES`.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
        device: Where the images are brought.
        manifest: The facts of an exported file; None if a network in memory is run.
    """

    def __init__(
        self,
        run: Run,
        *,
        engine: str,
        precision: str,
        device: torch.device,
        manifest: Manifest | None = None,
    ) -> None:
        super().__init__()
        self.engine, self.precision, self.device = engine, precision, device
        self.manifest = manifest
        self._run = (run,)  # in a tuple, so that a network is not taken for a part of this one

    @property
    def takes_pixels(self) -> bool:
        """Whether it normalizes inside: images are then RGB in 0..255."""
        return self.manifest is not None and self.manifest.with_preprocess

    @property
    def gives_classes(self) -> bool:
        """Whether it returns maps of classes instead of their scores."""
        return self.manifest is not None and self.manifest.with_argmax

    def deployable(self) -> Runtime:
        """Return itself: it has that form already."""
        return self

    def forward(self, images: Tensor) -> Any:
        """Run the engine.

        Args:
            images: (B, 3, H, W) float32, normalized; or RGB in 0..255 where the file normalizes,
                then also (B, H, W, 3) uint8.

        Raises:
            ConfigError: The engine or the file does not take such images.
        """
        return self._run[0](images.to(self.device))
