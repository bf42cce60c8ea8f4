"""Count parameters, multiply-adds, and operations by the rule of the small-network papers."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_SHAPE_KEEPING = (nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.PReLU, nn.GELU, nn.Sigmoid)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trainable or not; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


class Complexity(NamedTuple):
    """What one image costs in evaluation.

    `parameters`: of the modules that are used, without heads that only training has.
    `macs`: multiply-adds of convolutions and matrix products.
    `operations`: as `count_operations` counts them.
    """

    parameters: int
    macs: int
    operations: int


def measure(model: nn.Module, input_size: tuple[int, int]) -> Complexity:
    """Count all that a network needs for one RGB image, in one pass without data.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.
    """
    twin = shape_only_copy(model)
    elementwise = 0
    used: dict[nn.Parameter, int] = {}

    def add(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal elementwise
        elementwise += output.numel() * (1 if isinstance(module, nn.PReLU) else 4)

    def use(module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        used.update({item: item.numel() for item in module.parameters(recurse=False)})

    for module in twin.modules():
        module.register_forward_pre_hook(use)
        if isinstance(module, nn.PReLU) or (isinstance(module, nn.BatchNorm2d) and module.affine):
            module.register_forward_hook(add)
    counter = FlopCounterMode(display=False)
    with counter:
        twin(torch.empty(1, 3, *input_size, device="meta"))
    macs = int(counter.get_total_flops()) // 2
    return Complexity(sum(used.values()), macs, macs + elementwise)


def count_macs(model: nn.Module, input_size: tuple[int, int]) -> int:
    """Count the multiply-adds of convolutions and matrix products for one RGB image.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.
    """
    return measure(model, input_size).macs


def count_operations(model: nn.Module, input_size: tuple[int, int]) -> int:
    """Count as the tables of LSA-BiNet do: multiply-adds, plus norms and PReLUs.

    An affine batch norm costs 4 and a PReLU 1 per output element; pooling, resizing, sigmoids,
    GELUs and biases cost nothing. This rule reproduces every figure of the paper's ablation.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.
    """
    return measure(model, input_size).operations


def shape_only_copy(model: ModuleT) -> ModuleT:
    """Return a copy in evaluation mode whose tensors have shapes and no data.

    Norms and activations hand on what they get, which costs nothing and keeps the shapes; hooks
    see them all the same.
    """
    # Frozen parameters, not no_grad: the counter stumbles over views of parameters without it.
    twin = copy.deepcopy(model).to("meta").eval()
    for module in twin.modules():
        if isinstance(module, _SHAPE_KEEPING):
            module.forward = _hand_on  # type: ignore[assignment, method-assign]
    return twin.requires_grad_(requires_grad=False)


def _hand_on(x: Tensor) -> Tensor:
    return x
