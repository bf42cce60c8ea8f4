"""What a quantized network takes in memory, counted from its tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtseg.nn.packed import state_bytes
from rtseg.quantization.fake import FakeQuantize, integer_weight
from rtseg.quantization.layers import QuantizedLayer


@torch.no_grad()
def integer_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that an engine needs of a quantized network, by name.

    Rounded weights are int8 with one float32 factor per output channel; a rounded tensor needs a
    float32 factor and a byte; biases and what stays float are float32.
    """
    state = _float_state(model)
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLayer):
            key = f"{name}.layer.weight"
            state[key], state[f"{name}.layer.scale"] = integer_weight(module.layer.weight)
        elif isinstance(module, FakeQuantize):
            scale, zero = module.grid()
            state[f"{name}.scale"] = scale
            state[f"{name}.zero"] = zero.to(torch.uint8)
    return state


def size_ratio(model: nn.Module) -> float:
    """Return the bytes of `integer_state` over those of the same network in float32."""
    return state_bytes(integer_state(model)) / state_bytes(_float_state(model))


def _float_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the network without the ranges."""
    ranges = tuple(
        f"{name}." for name, module in model.named_modules() if isinstance(module, FakeQuantize)
    )
    return {
        name: value for name, value in model.state_dict().items() if not name.startswith(ranges)
    }
