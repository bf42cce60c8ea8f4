"""A quantized network with its bytes: QuantizeLinear and DequantizeLinear, as engines read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtseg.quantization import FakeQuantize, QuantizedLayer, QuantizedNetwork
from rtseg.quantization.fake import integer_weight


def in_bytes(model: QuantizedNetwork) -> nn.Module:
    """Return a copy that can be exported to ONNX, and to nothing else: it has no values in torch.

    Weights are int8. Every rounding is a pair of operators of ONNX between which a tensor is uint8,
    with the factors that torch computed. Engines compute whole convolutions between such pairs in
    integers.

    Args:
        model: A network whose ranges are set.
    """
    network = model.deployable()
    for name, module in list(network.named_modules()):
        if isinstance(module, QuantizedLayer):
            network.set_submodule(name, IntegerLayer(module))
    for name, module in list(network.named_modules()):
        if isinstance(module, FakeQuantize):
            network.set_submodule(name, Pair(module))
    return network


class Pair(nn.Module):
    """Round a tensor to bytes and back, with the scale and the zero of a `FakeQuantize`."""

    scale: Tensor
    zero: Tensor

    def __init__(self, source: FakeQuantize) -> None:
        super().__init__()
        scale, zero = source.grid()
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero", zero.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor like `x`, of any shape, float32."""
        small = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale, self.zero), dtype=torch.uint8, shape=x.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (small, self.scale, self.zero), dtype=torch.float32, shape=x.shape
        )


class IntegerLayer(QuantizedLayer):
    """A quantized layer that holds its weights as int8, one scale per output channel."""

    integers: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, source: QuantizedLayer) -> None:
        super().__init__(source.layer, round_input=False)
        self.input = source.input
        integers, scale = integer_weight(source.layer.weight)
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int8))
        self.layer.weight = nn.Parameter(torch.empty(0))  # nothing reads it any more

    def weight(self) -> Tensor:
        """Return the weights (D, ...) as the file makes them of its integers."""
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (self.integers, self.scale, self.zero),
            {"axis": 0},
            dtype=torch.float32,
            shape=self.integers.shape,
        )
