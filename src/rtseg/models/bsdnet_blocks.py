"""Blocks that BSDNet takes over from other networks, and those that its tables compare it with.

Shared: convolution with batch norm, residual block, attention along stripes (SCTNet). Alternatives
to the paper's FCB (its table 4): CFBlock (SCTNet), GFA (RTFormer), MSCAN (SegNeXt), SegFormer.
Alternatives to its DASP (table 5): ASPP (DeepLab), DAPPM (DDRNet). Every convolution has a bias,
also before a batch norm, as in SCTNet.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.nn.fuse import fuse_conv_norm

STRIPE_KERNELS = 64
"""Learnable rows N of a stripe attention, whatever the width. Source: SCTNet's public code."""
STRIPE_TAPS = 7
"""Pixels k under a stripe. Source: SCTNet's public code."""
GROUPS = 8
"""Groups G of the grouped double normalisation. Source: RTFormer and SCTNet."""
GDNNorm = Literal["l1", "l2"]


# ---------------------------------------------------------------- convolutions
def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Build convolution and batch norm; the size stays at stride 1 and halves (up) at 2."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Build `conv_norm` and a ReLU."""
    block = conv_norm(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
    return block.append(nn.ReLU())


def norm_relu_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Build batch norm, ReLU and a convolution that keeps the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)


def fold_norms(model: nn.Module) -> None:
    """Fold, in place, each batch norm that follows a convolution in a sequence into it."""
    for sequence in model.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for index, (conv, norm) in enumerate(itertools.pairwise(sequence)):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index] = fuse_conv_norm(conv, norm)
                sequence[index + 1] = nn.Identity()


class DropPath(nn.Module):
    """In training, drop whole images of a residual branch and scale up those that are kept."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if not self.training:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, 1, 1), self.probability)


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions to the features; the shortcut adapts width and size if needed.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        stride: Step of the first convolution.
        final_relu: Whether a ReLU follows the sum; not so in the last block of a stage.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, final_relu: bool = True
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm_relu(in_channels, out_channels, 3, stride=stride),
            *conv_norm(out_channels, out_channels, 3),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if same else conv_norm(in_channels, out_channels, 1, stride=stride)
        )
        self.act: nn.Module = nn.ReLU() if final_relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride), rounded up."""
        result: Tensor = self.act(self.body(x) + self.shortcut(x))
        return result


# ---------------------------------------------------------------- attention by convolution
def grouped_double_norm(scores: Tensor, *, norm: GDNNorm) -> Tensor:
    """Normalise attention scores over space, then over each group of channels, in float32.

    The softmax over space is multiplied by the number of pixels. That factor cancels on paper, but
    without it the squares of a large map underflow in half precision.

    Args:
        scores: (B, N, H, W), N a multiple of 8.
        norm: `l2` divides by the length of a group, `l1` by its sum.

    Returns:
        Weights (B, N, H, W) in [0, 1], in the type of `scores`.

    Source: the paper, section 3.2 (l2); the public code of RTFormer and SCTNet (l1).
    """
    batch, channels, height, width = scores.shape
    pixels = height * width
    weights = scores.float().flatten(2).softmax(dim=2) * pixels
    weights = weights.reshape(batch, GROUPS, channels // GROUPS, pixels)
    if norm == "l2":
        total = (weights.square().sum(dim=2, keepdim=True) + 1e-6).sqrt()
    else:
        total = weights.sum(dim=2, keepdim=True) + 1e-6
    return (weights / total).reshape(batch, channels, height, width).to(scores.dtype)


class StripeAttention(nn.Module):
    """Attend by convolving with learnable rows and columns, which serve as keys and as values.

    Source: SCTNet, and the bracket of the paper's eq. 3.
    """

    def __init__(self, channels: int, *, norm: GDNNorm) -> None:
        super().__init__()
        self.horizontal = _small_kernels(channels, 1, STRIPE_TAPS)
        self.vertical = _small_kernels(channels, STRIPE_TAPS, 1)
        self.norm: GDNNorm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.along(x, self.horizontal) + self.along(x, self.vertical)

    def along(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Attend along one direction; `kernels`: (N, C, rows, columns)."""
        padding = (kernels.shape[2] // 2, kernels.shape[3] // 2)
        weights = grouped_double_norm(F.conv2d(x, kernels, padding=padding), norm=self.norm)
        return F.conv2d(weights, kernels.transpose(0, 1), padding=padding)

    def fold(self, projection: nn.Conv2d | None = None) -> FoldedStripeAttention:
        """Return the attention, followed by a 1x1 `projection` if there is one, as plain layers."""
        return FoldedStripeAttention(self, projection)


class FoldedStripeAttention(nn.Module):
    """`StripeAttention` for deployment: keys and values are separate convolutions.

    A 1x1 projection of the result is folded into the values; its bias is added once.
    """

    def __init__(self, attention: StripeAttention, projection: nn.Conv2d | None) -> None:
        super().__init__()
        values = [k.detach().transpose(0, 1) for k in (attention.horizontal, attention.vertical)]
        bias = None
        if projection is not None:
            mix = projection.weight.detach()[:, :, 0, 0].double()
            values = [
                torch.einsum("oc,cnij->onij", mix, value.double()).to(value) for value in values
            ]
            bias = projection.bias
        self.horizontal_keys = _plain_conv(attention.horizontal)
        self.vertical_keys = _plain_conv(attention.vertical)
        self.horizontal_values = _plain_conv(values[0], bias)
        self.vertical_values = _plain_conv(values[1])
        self.norm: GDNNorm = attention.norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        rows = grouped_double_norm(self.horizontal_keys(x), norm=self.norm)
        columns = grouped_double_norm(self.vertical_keys(x), norm=self.norm)
        result: Tensor = self.horizontal_values(rows) + self.vertical_values(columns)
        return result


def _small_kernels(channels: int, rows: int, columns: int) -> nn.Parameter:
    kernels = torch.empty(STRIPE_KERNELS, channels, rows, columns)
    return nn.Parameter(nn.init.trunc_normal_(kernels, std=0.001))


def _plain_conv(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution with these weights (D, C, rows, columns) that keeps the size."""
    out_channels, in_channels, rows, columns = weight.shape
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        (rows, columns),
        padding=(rows // 2, columns // 2),
        bias=bias is not None,
    )
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv


# ---------------------------------------------------------------- alternatives to FCB
class CFBlock(nn.Module):
    """Attend along stripes, then mix locally, both before-normed. Source: SCTNet."""

    def __init__(self, channels: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention: nn.Module = StripeAttention(channels, norm="l1")
        self.local = _local_mix(channels, eps=1e-6)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x + self.drop_path(self.attention(self.norm(x)))
        result: Tensor = x + self.drop_path(self.local(x))
        return result

    def fold(self) -> None:
        """Turn the attention into plain layers, in place."""
        assert isinstance(self.attention, StripeAttention)
        self.attention = self.attention.fold()


class GFABlock(nn.Module):
    """Attend with learnable keys and values of one pixel each, then mix locally.

    Source: RTFormer, its GPU-friendly attention.
    """

    def __init__(self, channels: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.keys = nn.Conv2d(channels, channels, 1, bias=False)
        self.values = nn.Conv2d(channels, channels, 1, bias=False)
        self.local = _local_mix(channels, eps=1e-5)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        weights = grouped_double_norm(self.keys(self.norm(x)), norm="l1")
        x = x + self.drop_path(self.values(weights))
        result: Tensor = x + self.drop_path(self.local(x))
        return result


def _local_mix(channels: int, *, eps: float) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels, eps=eps),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


class MSCANBlock(nn.Module):
    """Weigh features by depth-wise convolutions of several sizes. Source: SegNeXt.

    Both branches are scaled per channel, from 0.01 at the start.
    """

    def __init__(self, channels: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.embed = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.local = DepthwiseConv2d(channels, (5, 5), bias=True)
        self.stripes = nn.ModuleList(
            nn.Sequential(
                DepthwiseConv2d(channels, (1, taps), bias=True),
                DepthwiseConv2d(channels, (taps, 1), bias=True),
            )
            for taps in (7, 11, 21)
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.ffn = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 4 * channels, 1),
            DepthwiseConv2d(4 * channels, bias=True),
            nn.GELU(),
            nn.Conv2d(4 * channels, channels, 1),
        )
        self.attention_scale = nn.Parameter(torch.full((channels, 1, 1), 0.01))
        self.ffn_scale = nn.Parameter(torch.full((channels, 1, 1), 0.01))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        normed = self.norm(x)
        embedded = self.embed(normed)
        local = self.local(embedded)
        weights = self.mix(sum((stripe(local) for stripe in self.stripes), start=local))
        attended = self.project(weights * embedded) + normed
        x = x + self.drop_path(self.attention_scale * attended)
        result: Tensor = x + self.drop_path(self.ffn_scale * self.ffn(x))
        return result


class SegFormerBlock(nn.Module):
    """Attend between all pixels, then mix by a depth-wise convolution. Source: SegFormer.

    Args:
        channels: Channels in and out, a multiple of 64: one head for every 64.
        reduction: Factor by which keys and values are smaller than the map along each side.
        drop_path: Probability of dropping a branch of one image in training.
    """

    def __init__(self, channels: int, *, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.reduce: nn.Module = nn.Identity()
        self.reduce_norm: nn.Module = nn.Identity()
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.reduce_norm = nn.LayerNorm(channels, eps=1e-6)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.local = DepthwiseConv2d(4 * channels, bias=True)
        self.narrow = nn.Linear(4 * channels, channels)
        self.drop_path = DropPath(drop_path)
        self.heads = channels // 64
        for layer in (self.query, self.key_value, self.out, self.widen, self.narrow):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; H and W at least `reduction`."""
        x = x + self.drop_path(self._attend(_normed(x, self.norm1)))
        hidden = self.widen(_normed(x, self.norm2).permute(0, 2, 3, 1))
        hidden = F.gelu(self.local(hidden.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        result: Tensor = x + self.drop_path(self.narrow(hidden).permute(0, 3, 1, 2))
        return result

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        small = self.reduce_norm(self.reduce(x).flatten(2).transpose(1, 2))
        query = self.query(x.flatten(2).transpose(1, 2))
        key, value = self.key_value(small).chunk(2, dim=2)
        query, key, value = (self._split(tokens) for tokens in (query, key, value))
        weights = (query @ key.transpose(2, 3) * 64**-0.5).softmax(dim=-1)
        joined = (weights @ value).transpose(1, 2).flatten(2)  # (B, H*W, C)
        attended: Tensor = self.out(joined).transpose(1, 2)
        return attended.reshape(batch, channels, height, width)

    def _split(self, tokens: Tensor) -> Tensor:
        """Map (B, T, C) to one row of tokens per head (B, C/64, T, 64)."""
        batch, count, _ = tokens.shape
        return tokens.reshape(batch, count, self.heads, 64).transpose(1, 2)


def _normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalise each pixel of (B, C, H, W) over its channels."""
    result: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return result


# ---------------------------------------------------------------- alternatives to DASP
class ASPP(nn.Module):
    """Join dilated convolutions and the pooled map, all in parallel. Source: DeepLab v3.

    The pooled branch has no batch norm, so that a batch of one image can train.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm_relu(in_channels, channels, 1),
                *(conv_norm_relu(in_channels, channels, 3, dilation=d) for d in (6, 12, 18)),
            ]
        )
        self.pooled = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU())
        self.compress = conv_norm_relu(5 * channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True))
        features = [branch(x) for branch in self.branches]
        features.append(pooled.expand(-1, -1, *x.shape[-2:]))
        result: Tensor = self.compress(torch.cat(features, dim=1))
        return result


class DAPPM(nn.Module):
    """Pool at growing sizes and add each result to the next. Source: DDRNet, as SCTNet uses it.

    Training needs two images or more: the global average of one has no variance.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.point = norm_relu_conv(in_channels, channels, 1)
        self.pools = nn.ModuleList(
            [
                *(nn.AvgPool2d(k, stride=s, padding=k // 2) for k, s in ((5, 2), (9, 4), (17, 8))),
                nn.AdaptiveAvgPool2d(1),
            ]
        )
        self.embeds = nn.ModuleList(norm_relu_conv(in_channels, channels, 1) for _ in range(4))
        self.smooths = nn.ModuleList(norm_relu_conv(channels, channels, 3) for _ in range(4))
        self.compress = norm_relu_conv(5 * channels, out_channels, 1)
        self.shortcut = norm_relu_conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        features = [self.point(x)]
        for pool, embed, smooth in zip(self.pools, self.embeds, self.smooths, strict=True):
            pooled = F.interpolate(
                embed(pool(x)), size=x.shape[-2:], mode="bilinear", align_corners=False
            )
            features.append(smooth(pooled.to(features[0].dtype) + features[-1]))
        result: Tensor = self.compress(torch.cat(features, dim=1)) + self.shortcut(x)
        return result
