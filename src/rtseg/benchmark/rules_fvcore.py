"""Count multiply-adds as the tables of BiSeNetFormer do, with the habits of the tool fvcore."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtseg.benchmark.complexity import shape_only_copy
from rtseg.models.bisenetformer import BiSeNetFormer, DecoderLayer

BATCH_NORM, LAYER_NORM, RESIZE = 2, 5, 4
"""Operations per element: of an affine norm in evaluation, and of a bilinear resize's output."""


def fvcore_operations(model: BiSeNetFormer, input_size: tuple[int, int]) -> int:
    """Count a BiSeNetFormer as its paper does for semantic segmentation, one RGB image.

    Multiply-adds of convolutions and matrix products count once, norms and bilinear resizes as
    above. All predictions of the decoder are computed, each at the size of the mask features, as
    in the authors' code. The tool knows no rule for a matrix product with an added bias, so the
    product of queries and keys is missing wherever the attention is masked. Pooling, activations,
    additions and softmax cost nothing.

    Args:
        model: Left as it is; a copy without data runs in evaluation mode.
        input_size: (H, W) of the image.

    Source: BiSeNetFormer, tables 1 to 4: reproduces every figure of its own networks.
    """
    twin = shape_only_copy(model)
    twin.decoder.training = True  # of the decoder alone: every prediction, but norms as evaluated
    extra = 0

    def add_norm(module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal extra
        extra += output.numel() * (LAYER_NORM if isinstance(module, nn.LayerNorm) else BATCH_NORM)

    def leave_out_scores(_module: nn.Module, inputs: tuple[Any, ...], _output: Tensor) -> None:
        nonlocal extra
        queries, keys, _, bias = inputs
        if bias is not None:
            extra -= queries.shape[1] * keys.shape[1] * keys.shape[2]

    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.register_forward_hook(add_norm)
        elif isinstance(module, DecoderLayer):
            module.cross.register_forward_hook(leave_out_scores)
    counter = FlopCounterMode(display=False, custom_mapping={_BILINEAR: _resized})
    with counter:
        twin(torch.empty(1, 3, *input_size, device="meta"))
    return int(counter.get_total_flops()) // 2 + extra


def fvcore_panoptic_operations(model: BiSeNetFormer, input_size: tuple[int, int]) -> int:
    """Count as for the panoptic tables: all masks are resized to the image as well."""
    queries = model.decoder.q_feat.shape[0]
    masks = RESIZE * queries * input_size[0] * input_size[1]
    return fvcore_operations(model, input_size) + masks


_BILINEAR = torch.ops.aten.upsample_bilinear2d


def _resized(*_shapes: Any, out_shape: tuple[int, ...], **_options: Any) -> int:
    return 2 * RESIZE * math.prod(out_shape)  # the counter counts a multiply-add twice
