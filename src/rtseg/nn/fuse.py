"""Fold batch norms into the convolutions before them, for deployment."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rtseg.nn.conv import ConvNormAct


@torch.no_grad()
def fuse_conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution (with a bias) that equals `conv` followed by `norm` in evaluation.

    The class and the options of `conv` are kept; neither input is changed. The new weights are
    worked out in float64, so that only one rounding is added.

    Raises:
        ValueError: The batch norm keeps no running statistics or has no scale and shift.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not norm.affine:
        raise ValueError(
            "only an affine batch norm with running statistics can be folded; "
            "build it with affine=True, track_running_stats=True"
        )
    scale = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
    offset = -mean.double() if conv.bias is None else conv.bias.double() - mean.double()
    fused = copy.deepcopy(conv)
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() + offset * scale
    fused.weight = nn.Parameter(weight.to(conv.weight.dtype))
    fused.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return fused


def fuse_batch_norms(model: nn.Module) -> nn.Module:
    """Fold the batch norm of every `ConvNormAct` inside `model`, in place; return `model`.

    Batch norms elsewhere (before a convolution, after a concatenation) stay: a zero-padded
    convolution or a second input keeps them from being folded.
    """
    for block in model.modules():
        if isinstance(block, ConvNormAct) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv = fuse_conv_norm(block.conv, block.norm)
            block.norm = nn.Identity()
    return model
