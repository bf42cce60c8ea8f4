"""Count parameters and operations the way BiSegUNet's tables count a binarised network.

Both figures say what a network costs where one-bit kernels exist. The rule for operations assumes
that inputs have one bit too, which the paper's networks do not have: with binary weights alone
there are as many additions as before, and no multiplications. It is the accounting of XNOR-Net and
Bi-Real Net.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.nn.binary import BinaryConv2d, binary_layers

BITS_PER_WORD = 32
BINARY_OPERATIONS_PER_FLOAT = 64


def effective_parameters(model: nn.Module) -> int:
    """Count each parameter as one, and the binary weights by words of 32, rounded up.

    Weights count as binary before their switch as well: what counts is the network's design.
    """
    weights = sum(layer.weight.numel() for layer in binary_layers(model).values())
    return count_parameters(model) - weights + -(-weights // BITS_PER_WORD)


def binary_flops(model: nn.Module, input_size: tuple[int, int]) -> int:
    """Count the operations of binary convolutions for one image, two per multiply-add.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    macs = 0

    def add(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, BinaryConv2d)
        macs += output.numel() * module.weight[0].numel()

    for layer in binary_layers(twin).values():
        layer.register_forward_hook(add)
    with torch.no_grad():
        twin(torch.empty(1, 3, *input_size, device="meta"))
    return 2 * macs


def effective_flops(model: nn.Module, input_size: tuple[int, int]) -> float:
    """Count the operations of one image, each operation of a binary convolution as 1/64.

    Convolutions and matrix products count two per multiply-add, everything else nothing.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.
    """
    total, binary = 2 * count_macs(model, input_size), binary_flops(model, input_size)
    return total - binary + binary / BINARY_OPERATIONS_PER_FLOAT
