"""Rounding to the values of eight bits, with gradients that pass through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 255
"""Largest value of an unsigned byte."""
WEIGHT_LIMIT = 127
"""Largest size of a weight; -128 is left out, so that the grid is symmetric."""
MOMENTUM = 0.01
"""Weight of a training batch in the running range."""
SMALLEST_SCALE = 1e-12


class FakeQuantize(nn.Module):
    """Round a tensor to 256 equally spaced values, one range for all of it.

    The range always holds 0, exactly. While `training` is set it follows the batches as a moving
    average; `widening` makes it hold all that passes, and nothing is rounded. The gradient is that
    of the identity inside the range and 0 outside.

    decision: unsigned and affine, since that is what CPU engines compute fastest with; the mean of
    extremes follows the usual quantization-aware training.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.widening = False

    def forward(self, x: Tensor) -> Tensor:
        """Round float values of any shape; shape and dtype stay."""
        if self.widening:
            self._widen(x.detach())
            return x
        if self.training:
            self._follow(x.detach())
        scale, zero = self.grid()
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, LEVELS)
        return rounded.to(x.dtype)

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return distance of neighbouring values (float32) and the byte that means 0 (int32)."""
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        scale = ((high - low) / LEVELS).clamp(min=SMALLEST_SCALE)
        return scale, (-low / scale).round().clamp(0, LEVELS).to(torch.int32)

    @torch.no_grad()
    def _widen(self, x: Tensor) -> None:
        low, high = torch.aminmax(x.float())
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = torch.aminmax(x.float())
        self.low.lerp_(low, MOMENTUM)
        self.high.lerp_(high, MOMENTUM)


def weight_grid(weight: Tensor) -> Tensor:
    """Return the distance of neighbouring values for each output channel: (D, ...) -> (D,)."""
    largest = weight.detach().float().abs().flatten(1).amax(dim=1)
    return (largest / WEIGHT_LIMIT).clamp(min=SMALLEST_SCALE)


def round_weight(weight: Tensor) -> Tensor:
    """Round weights (D, ...) to 255 values, symmetric around 0, by output channel."""
    scale = weight_grid(weight)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(
        weight.float(), scale, zeros, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT
    )
    return rounded.to(weight.dtype)


def integer_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the int8 weights (D, ...) and factors (D,) whose product `round_weight` computes."""
    scale = weight_grid(weight)
    shape = (-1, *[1] * (weight.dim() - 1))
    # As the rounding above: a product with the inverse.
    whole = (weight.detach().float() * (1 / scale).view(shape)).round()
    return whole.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8), scale
