"""Layers that compute with rounded weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.binary import InterleavedConv2d
from rtseg.nn.depthwise import DepthwiseConv2d, convolve
from rtseg.quantization.fake import FakeQuantize, round_weight


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with weights, and perhaps inputs, rounded to eight bits.

    Args:
        layer: The layer; it goes on holding the real weights, which are trained.
        round_input: Whether the input is rounded here; otherwise it has been before.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, *, round_input: bool) -> None:
        super().__init__()
        self.layer = layer
        self.input: nn.Module = FakeQuantize() if round_input else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the layer computes, (B, C, H, W) or (..., C), with rounded values."""
        x, layer, weight = self.input(x), self.layer, self.weight()
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        if isinstance(layer, DepthwiseConv2d):
            return convolve(layer, x, weight)
        if isinstance(layer, InterleavedConv2d):
            return layer.convolve(x, weight)
        result: Tensor = layer._conv_forward(x, weight, layer.bias)
        return result

    def weight(self) -> Tensor:
        """Return the rounded weights (D, ...)."""
        return round_weight(self.layer.weight)
