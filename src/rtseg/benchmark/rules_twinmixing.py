"""Count TwinMixing's operations as the tables of its paper do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rtseg.models.twinmixing import PCAA, TwinMixing


def published_flops(model: TwinMixing, size: tuple[int, int]) -> int:
    """Count the operations of one image by the rule behind tables 1, 3, 4 and 8 of the paper.

    The figures are those of the tool that its released code calls (thop 0.1.1), which counts
    multiply-adds once, those of transposed convolutions four times, 4 per element of a batch norm,
    1 per element of a PReLU and of a pooled map, 11 per element of a bilinear one, and leaves out
    matrix products, softmax and sums. Three operations of the released code, which this network
    does without, are added: the image is pooled to 1/2 a second time on the way to 1/4, the
    value of PCAA is computed for each of its patches, and these are averaged by a pooling layer.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode. Not one that is made
            `deployable`, whose norms are gone.
        size: (H, W) of the image.
    """
    twin = copy.deepcopy(model).to("meta").eval()
    total = 3 * (size[0] // 2) * (size[1] // 2)  # the second pooling to 1/2

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        total += _operations(module, inputs[0], output)

    for module in list(twin.modules())[1:]:  # all but the network itself, which returns a tuple
        module.register_forward_hook(count)
    with torch.no_grad():
        twin(torch.empty(1, 3, *size, device="meta"))
    return total


def _operations(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Return what one call of a layer counts; 0 for a block of layers."""
    if isinstance(module, nn.ConvTranspose2d):
        return 4 * output.numel() * module.in_channels  # kernel 2 at stride 2: one tap per pixel
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, nn.Upsample):
        return 11 * output.numel()
    if isinstance(module, PCAA):
        return _repeated_by_pcaa(module, x)
    factors = {nn.BatchNorm2d: 4, nn.PReLU: 1, nn.AvgPool2d: 1}
    return factors.get(type(module), 0) * output.numel()


def _repeated_by_pcaa(module: PCAA, x: Tensor) -> int:
    """Return what the released code adds: the value of all patches but one, and their averages."""
    patches, channels = module.patch_act.num_parameters, module.maps.out_channels
    pixels = x.shape[-2] * x.shape[-1] // patches
    value = channels * module.value.in_features * module.value.out_features
    return (patches - 1) * value + (pixels + 1) * patches * channels
