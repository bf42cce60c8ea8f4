"""Networks with binary weights as they are stored: one bit per weight, one factor per channel.

A frozen network computes in float with the unpacked weights. It is small in files and in memory,
and not faster than the network it was made from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.binary import InterleavedConv2d, binary_layers, interleave, sign

BITS = 8
"""Bits of a byte, in which the weights of an output channel end."""


class Deployable(Protocol):
    """A network that can fold its norms and factors into ordinary convolutions."""

    def deployable(self) -> nn.Module:
        """Return the copy that has them."""
        ...


def pack_signs(weight: Tensor) -> Tensor:
    """Write the signs of weights (D, C, k, k) as bits: (D, ceil(C k k / 8)) uint8.

    A bit is 1 where the weight is 0 or more. The bits of an output channel run over rows, columns
    and inputs, the last ones fastest, and fill each byte from its lowest bit.

    decision: channels end with a byte. Words of 64 bits would make the smallest network's bits a
    tenth longer; what wants words can lay them out on loading.
    """
    bits = (weight >= 0).permute(0, 2, 3, 1).flatten(1).to(torch.uint8)
    bits = F.pad(bits, (0, -bits.shape[1] % BITS)).reshape(len(weight), -1, BITS)
    places = torch.arange(BITS, device=weight.device, dtype=torch.uint8)
    packed: Tensor = (bits << places).sum(dim=-1, dtype=torch.uint8)
    return packed


def unpack_signs(bits: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return the float32 signs (D, C, k, k) that `pack_signs` wrote."""
    out_channels, channels, height, width = shape
    places = torch.arange(BITS, device=bits.device, dtype=torch.uint8)
    values = (bits[..., None] >> places & 1).flatten(1)[:, : channels * height * width]
    signs = values.to(torch.float32) * 2 - 1
    return signs.view(out_channels, height, width, channels).permute(0, 3, 1, 2)


class PackedConv2d(nn.Module):
    """Convolve with weights kept as bits, for evaluation only.

    Args:
        conv: A deployed binary layer: in each output channel all weights have one size.

    Raises:
        ValueError: They have not.
    """

    bits: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, conv: InterleavedConv2d) -> None:
        super().__init__()
        weight, bias = conv.weight.detach(), conv.bias
        assert bias is not None
        scale = weight.abs().amax(dim=(1, 2, 3))
        if not torch.equal(weight, sign(weight) * scale[:, None, None, None]):
            raise ValueError("the weights of a channel differ in more than their signs")
        self.shape = weight.shape
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.groups = conv.groups
        self.register_buffer("bits", pack_signs(weight))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W) to (B, D, H', W')."""
        if 1 < self.groups < x.shape[1]:
            x = interleave(x, self.groups)
        return F.conv2d(
            x, self.weight(), self.shift, self.stride, self.padding, self.dilation, self.groups
        )

    def weight(self) -> Tensor:
        """Return the weights (D, C / groups, k, k), in each channel of one size."""
        out_channels, channels, height, width = self.shape
        signs = unpack_signs(self.bits, (out_channels, channels, height, width))
        return signs * self.scale[:, None, None, None]


@torch.no_grad()
def freeze(model: Deployable) -> nn.Module:
    """Return a copy for evaluation that keeps binary weights as bits and has norms folded in.

    Its state dict is what to store: per binary layer `bits` (uint8), `scale` and `shift`, besides
    the weights that are real. `thaw` makes a network of it again.

    Args:
        model: A network all of whose binary layers have been made binary.

    Raises:
        ValueError: It has none, or one of them still has real weights.
    """
    assert isinstance(model, nn.Module)
    layers = binary_layers(model)
    real = [name for name, layer in layers.items() if not layer.binarized]
    if real or not layers:
        what = f"{real[0]} has real weights" if real else "no layer of this network can be binary"
        raise ValueError(f"{what}; train it with a section `binarize` first")
    frozen = model.deployable()
    for parent in list(frozen.modules()):
        for name, child in parent.named_children():
            if isinstance(child, InterleavedConv2d):
                setattr(parent, name, PackedConv2d(child))
    return frozen.requires_grad_(requires_grad=False)


def thaw(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the frozen network that a state dict of one describes.

    Args:
        model: A network as it is built for training, with the same switches; it is left as it is.
        state: State dict of the frozen network; real values may have been made float16.

    Raises:
        RuntimeError: The state is of another network.
    """
    shell = copy.deepcopy(model)
    for name, layer in binary_layers(shell).items():
        if not layer.binarized:
            layer.binarize()
        if f"{name}.0.tau" in state:
            layer.binarize_inputs(torch.zeros(layer.in_channels))
    frozen = freeze(shell)  # type: ignore[arg-type]  # it has deployable, or freeze would fail
    frozen.load_state_dict(dict(state))
    return frozen


def state_bytes(state: Mapping[str, Tensor]) -> int:
    """Return the bytes of all tensors of a state dict."""
    return sum(value.numel() * value.element_size() for value in state.values())
