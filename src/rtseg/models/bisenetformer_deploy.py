"""BiSeNetFormer's decoder as it is deployed: the same function with fewer products.

Rounding apart, nothing changes, for any weights: the 1x1 convolution of a level goes into the
projections of its keys and values, which then read 128 channels instead of 256, and the positional
codes are projected on their own. For an input of one size those are constants that an engine
computes once, as is all that does not depend on the image: the queries of the first layer and the
masks that they stand for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.models.bisenetformer import (
    QUERY_DIM,
    Attention,
    Decoder,
    DecoderLayer,
    attention_bias,
    position_code,
    resize,
)
from rtseg.structures import MaskOutput


class CrossAttention(nn.Module):
    """The attention of a layer to its level, with the level's 1x1 convolution in it."""

    def __init__(self, attention: Attention, level: nn.Conv2d) -> None:
        super().__init__()
        query, key, value = attention.in_proj_weight.detach().chunk(3)
        offsets = attention.in_proj_bias.detach().chunk(3)
        self.query = _linear(query, offsets[0])
        self.key = _linear(*_behind(level, key, offsets[1]))
        self.value = _linear(*_behind(level, value, offsets[2]))
        self.place = nn.Parameter(key.clone())
        self.attention = attention

    def forward(self, query: Tensor, x: Tensor, place: Tensor, bias: Tensor | None) -> Tensor:
        """Attend from (B or 1, N, D) to a level (B, S, C) with positional codes (S, D)."""
        key = self.key(x) + F.linear(place, self.place)
        return self.attention.attend(self.query(query), key, self.value(x), bias)


def _behind(level: nn.Conv2d, weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and offset of a projection that follows a 1x1 convolution, as one."""
    assert level.bias is not None
    matrix = weight.double()
    offset = matrix @ level.bias.detach().double() + offset.double()
    return matrix @ level.weight.detach().double()[:, :, 0, 0], offset


def _linear(weight: Tensor, offset: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight.float().clone())
    linear.bias = nn.Parameter(offset.float().clone())
    return linear


class DeployedDecoder(nn.Module):
    """The decoder in evaluation.

    Args:
        decoder: The decoder; its parts are used, and those that are not needed taken out.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.q_feat, self.q_pos = decoder.q_feat, decoder.q_pos
        self.heads, self.layers = decoder.heads, decoder.layers
        self.masked_attention = decoder.masked_attention
        self.levels = len(decoder.project)
        for index, layer in enumerate(self.layers):
            level = decoder.project[index % self.levels]
            assert isinstance(level, nn.Conv2d)
            assert isinstance(layer, DecoderLayer)
            layer.cross = CrossAttention(layer.cross, level)  # type: ignore[assignment]

    def forward(self, context: list[Tensor], features: Tensor) -> MaskOutput:
        """Read F1, F2, F3 (B, C, ., .) and mask features (B, C, h, w)."""
        levels = context[: self.levels]
        sizes = [level.shape[-2:] for level in levels]
        tokens = [level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels]  # (B, S, C)
        like = self.q_pos.new_empty(0, QUERY_DIM)
        places = [position_code(*size, like=like) for size in sizes]  # (S, D)
        small = [resize(features, size) for size in sizes]
        x = self.q_feat[None]
        for index, layer in enumerate(self.layers):
            level = index % self.levels
            bias = None
            if self.masked_attention:
                bias = attention_bias(self.heads.masks(x, small[level]).flatten(2))
            x = layer(x, self.q_pos, tokens[level], places[level], bias)
        output: MaskOutput = self.heads(x, features)
        return output
