"""BiSegUNet: a U-shaped network whose convolution weights end up as +1 and -1 times a factor.

Paper: "BiSegUNet: An Efficient Binary Convolution Network With Multi-Scale Feature Refinement for
Semantic Segmentation". No code of the paper is public: its table 1 fixes the shapes; the groups of
the convolutions were found by matching its parameters and operations.

    image (3)
      |-- stem: streams of 32, 32, 64, each reading those before - 1/1    128
      |-- encoder1 ----------------------------------------------- 1/2    256 -- capacity1 --+
      |-- encoder2 ----------------------------------------------- 1/4    512 -- capacity2 --|--+
      |-- encoder3 ----------------------------------------------- 1/8   1024 -- capacity3 --|--|--+
      |-- encoder4 ---------------------------------------------- 1/16   2048                |  |  |
      |-- capacity4 --------------------------------------------- 1/16   2048 --+            |  |  |
      |-- aspp: rates 1 6 12 18, 256 each ----------------------- 1/16   1024   |            |  |  |
      |-- attention: every position to every other -------------- 1/16   1024   |            |  |  |
      |-- + projection, ReLU ------------------------------------ 1/16   1024 <-+            |  |  |
      |-- decoder1: convolve, resize ----------------------------- 1/8   1024                |  |  |
      |-- decoder2: add, convolve, resize ------------------------ 1/4    512 <--------------|--|--+
      |-- decoder3: add, convolve, resize ------------------------ 1/2    256 <--------------|--+
      |-- decoder4: add, convolve, resize ------------------------ 1/1    128 <--------------+
      |-- capacity_out ------------------------------------------- 1/1    128
      +-- head --------------------------------------------------- 1/1      K

All convolutions but the first and the last, those of the attention and those that weigh channels
can become binary (`nn/binary.py`): 50 layers. A network starts with real weights.

Exact counts with 19 classes; operations at 512x1024, twice the multiply-adds of convolutions and
matrix products; in brackets what the paper prints:

    name            parameters           binary weights  operations
    bisegunet       18,485,123 (18.5 M)      15,082,176  195,053,305,856 (194.7 G)
    bisegunet_s2    18,485,123               15,082,176   48,364,863,488
    bisegunet_half   5,301,579                4,429,536   34,314,473,472
    bisegunet_edge   1,713,779                1,484,592   14,795,495,424

Counting a binary weight as 1/32 parameter and an operation with it as 1/64, `bisegunet` has 3.87 M
(4.3 M) parameters and 10.68 G (10.4 G) operations.
`bisegunet` has 18,485,381 parameters with 21 classes and 18,502,022 with 150. The other three are
ours: half the size at the stem, fewer channels, groups of 32 channels and more, which fill a word
of packed bits.

Where the paper contradicts itself:
- Its parameters and operations at 1024x2048 (23.4 M, 390.3 G) cannot be those of the network that
  has 18.5 M and 194.7 G at 512x1024: four times the pixels, same weights.
- 18.5 million parameters in 7.8 MB are 3 bits for each, and half a bit in the 1.2 MB of the binary
  network.
- More of its scores and ablations exclude each other; `docs/models/bisegunet.md` lists them all.

Deviations from the paper and silent points:
- Groups: stem 4 and 8, encoder and decoder 8, ASPP 4, projection 2; in the capacity block 32 for
  binary, 64 for grouped, 8 for 1x1 convolutions; none narrower than 8 channels. Groups read
  interleaved channels, so that each sees all parts of what was concatenated.
- The stem's streams read the streams before them: only so do the widths 32, 64, 128 of table 1, the
  concatenation of eq. 1 and the 128 channels of the result agree.
- The stem's first convolution, the head, the attention and the weighing of channels keep real
  weights, as first and last layers do in XNOR-Net and Bi-Real Net; `binarize_stem_first` follows
  table 1 instead.
- The capacity block halves the channels by a 1x1 convolution before its 7x7 one, which is
  depth-wise (a full one would have 103 M weights), ends with a 1x1 convolution and adds its input:
  table 1 wants as many channels as came in, and a shortcut helps binary layers. This addition is
  also eq. 16's fusion.
- Capacity blocks stand on the skips and before the head, as in table 1; section VI puts them behind
  the additions. Skips are added: eq. 16 says concatenated, but the channels of table 1 are those of
  a sum. The bottleneck reads the last stage only; table 1's concatenation has no size that fits.
- The attention projects back to its 1024 channels and is added to its input through a norm that
  starts at 0; eq. 14 alone would leave 128 channels.
- The decoder convolves before it resizes, which costs a quarter and keeps the shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.binary import BinaryConv2d, deploy_binary
from rtseg.nn.fuse import fuse_conv_norm
from rtseg.structures import SemanticOutput

STEM_CHANNELS = (32, 32, 64)
STAGE_CHANNELS = (256, 512, 1024, 2048)
ASPP_RATES = (1, 6, 12, 18)
ATTENTION_CHANNELS = 128
SQUEEZE = 16
"""Factor by which channels shrink where they are weighed."""

Branch = Literal["binary", "dilated", "grouped"]
BinaryLayer = Callable[..., "ConvNorm"]
"""Channels in, channels out, kernel size, and keywords of `binary_layer` -> the layer."""


# ---------------------------------------------------------------- layers
class ConvNorm(nn.Module):
    """Convolve, normalise, and rectify unless told otherwise."""

    def __init__(self, conv: nn.Conv2d, *, activation: Literal["relu", "none"] = "relu") -> None:
        super().__init__()
        self.conv: nn.Module = conv
        self.norm: nn.Module = nn.BatchNorm2d(conv.out_channels)
        self.act: nn.Module = nn.ReLU() if activation == "relu" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride), rounded up."""
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result

    def fuse(self) -> None:
        """Fold the norm into the convolution, which becomes an ordinary one with a bias."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        if isinstance(self.conv, BinaryConv2d):
            self.conv = deploy_binary(self.conv, self.norm)
        else:
            assert isinstance(self.conv, nn.Conv2d)
            self.conv = fuse_conv_norm(self.conv, self.norm)
        self.norm = nn.Identity()


def binary_layer(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    groups: int = 1,
    stride: int = 1,
    dilation: int = 1,
    activation: Literal["relu", "none"] = "relu",
    min_group_width: int,
    act_bits: Literal[1, 32],
) -> ConvNorm:
    """Build a binary convolution with norm; `groups` is lowered by `group_count`."""
    conv = BinaryConv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        dilation=dilation,
        groups=group_count(groups, in_channels, out_channels, min_width=min_group_width),
        act_bits=act_bits,
    )
    return ConvNorm(conv, activation=activation)


def group_count(wanted: int, in_channels: int, out_channels: int, *, min_width: int) -> int:
    """Return the largest number of groups up to `wanted` that fits.

    Both numbers of channels are multiples of it, and each group reads `min_width` channels or more
    (a layer with fewer has one group).
    """
    groups = min(wanted, max(1, in_channels // min_width))
    while in_channels % groups or out_channels % groups:
        groups -= 1
    return groups


def _float_conv(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1
) -> nn.Conv2d:
    """Build a convolution without bias whose weights stay real."""
    padding = kernel_size // 2
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


# ---------------------------------------------------------------- stem and encoder
class Stem(nn.Module):
    """Extract streams of features, each from the streams before it. Source: the paper, eq. 1."""

    def __init__(
        self, widths: Sequence[int], *, stride: int, layer: BinaryLayer, binarize_first: bool
    ) -> None:
        super().__init__()
        first, second, third = widths
        conv = (
            BinaryConv2d(3, first, 3, stride=stride)
            if binarize_first
            else _float_conv(3, first, 3, stride=stride)
        )
        self.stream1 = ConvNorm(conv)
        self.stream2 = layer(first, second, 3, groups=4)
        self.stream3 = layer(first + second, third, 3, groups=8)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to (B, 128, H / stride, W / stride), rounded up."""
        first = self.stream1(images)
        both = torch.cat([first, self.stream2(first)], dim=1)
        return torch.cat([both, self.stream3(both)], dim=1)


class ShortcutStage(nn.Module):
    """Halve the size and double the channels beside a shortcut: an encoder stage of binary inputs.

    The shortcut is the pooled input twice. Source: ReActNet.
    """

    def __init__(self, layer: ConvNorm) -> None:
        super().__init__()
        self.layer = layer
        self.pool = nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2 C, ceil(H/2), ceil(W/2))."""
        pooled = self.pool(x)
        return F.relu(self.layer(x) + torch.cat([pooled, pooled], dim=1))


# ---------------------------------------------------------------- capacity block
class SqueezeExcite(nn.Module):
    """Weigh channels by what their means say. Source: the paper, eqs. 8 to 10."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // SQUEEZE)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)
        for conv in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        means = x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class SpatialAttention(nn.Module):
    """Weigh positions by the mean and the maximum of their channels. Source: CBAM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _float_conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        both = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(both))


class RefinementBlock(nn.Module):
    """Refine features by parallel branches, attention over all of them, and a projection back.

    Args:
        branches: By name; each maps (B, C, H, W) to (B, C / 2, H, W).
        attention: Keeps the shape of the concatenated branches.
        project: Brings them back to C channels.
        residual: Add the input before the last ReLU.

    Source: the paper, eqs. 3 to 10 and figure 3.
    """

    def __init__(
        self,
        branches: dict[str, nn.Module],
        *,
        attention: nn.Module,
        project: nn.Module,
        residual: bool,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.attention = attention
        self.project = project
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        joined = torch.cat([branch(x) for branch in self.branches.values()], dim=1)
        refined: Tensor = self.project(self.attention(joined))
        return F.relu(refined + x) if self.residual else F.relu(refined)


def capacity_block(
    channels: int,
    *,
    layer: BinaryLayer,
    branches: Sequence[Branch],
    attention: bool,
    residual: bool,
) -> RefinementBlock:
    """Build the paper's block: two binary branches, a dilated and a grouped one."""
    half = channels // 2
    built: dict[str, nn.Module] = {}
    if "binary" in branches:
        built["binary_pair"] = nn.Sequential(
            layer(channels, half, 3, groups=32), layer(half, half, 3, groups=32)
        )
        built["binary_single"] = layer(channels, half, 3, groups=32)
    if "dilated" in branches:
        depthwise = BinaryConv2d(half, half, 7, dilation=2, groups=half)
        built["dilated"] = nn.Sequential(layer(channels, half, 1, groups=8), ConvNorm(depthwise))
    if "grouped" in branches:
        built["grouped"] = layer(channels, half, 3, groups=64)
    width = half * len(built)
    return RefinementBlock(
        built,
        attention=SqueezeExcite(width) if attention else nn.Identity(),
        project=layer(width, channels, 1, groups=8, activation="none"),
        residual=residual,
    )


def multi_scale_block(
    channels: int, *, layer: BinaryLayer, spatial: bool, residual: bool
) -> RefinementBlock:
    """Build what the paper compares its block with: four dilations and a standard attention."""
    half = channels // 2
    width = half * len(ASPP_RATES)
    channel_weights = SqueezeExcite(width)
    return RefinementBlock(
        {f"rate{rate}": layer(channels, half, 3, groups=32, dilation=rate) for rate in ASPP_RATES},
        attention=(
            nn.Sequential(channel_weights, SpatialAttention()) if spatial else channel_weights
        ),
        project=layer(width, channels, 1, groups=8, activation="none"),
        residual=residual,
    )


# ---------------------------------------------------------------- bottleneck
class ASPP(nn.Module):
    """Look at features with several dilations and concatenate. Source: the paper, eq. 11."""

    def __init__(self, in_channels: int, out_channels: int, *, layer: BinaryLayer) -> None:
        super().__init__()
        width = out_channels // len(ASPP_RATES)
        self.branches = nn.ModuleList(
            layer(in_channels, width, 3, groups=4, dilation=rate) for rate in ASPP_RATES
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class PositionAttention(nn.Module):
    """Let every position attend to all others and add what it finds.

    The paper's "attention network part", eqs. 12 to 14; the way back to all channels, the shortcut
    and the norm that starts at 0 are ours.

    Args:
        channels: Channels in and out.
        width: Channels of queries, keys and values.
        kv_pool: Side of the squares over which keys and values are averaged first; positions at the
            border of an odd map have smaller squares.
        fused: Use torch's fused attention; exported files need the plain one.
    """

    def __init__(self, channels: int, *, width: int, kv_pool: int, fused: bool) -> None:
        super().__init__()
        self.query = _float_conv(channels, width, 1)
        self.key = _float_conv(channels, width, 1)
        self.value = _float_conv(channels, width, 1)
        self.project = ConvNorm(_float_conv(width, channels, 1), activation="none")
        nn.init.zeros_(self.project.norm.get_parameter("weight"))
        self.pool: nn.Module = (
            nn.AvgPool2d(kv_pool, ceil_mode=True) if kv_pool > 1 else nn.Identity()
        )
        self.attend = F.scaled_dot_product_attention if fused else _attend

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        pooled = self.pool(x)
        query, key, value = (
            part.flatten(2).transpose(1, 2)  # (B, positions, width)
            for part in (self.query(x), self.key(pooled), self.value(pooled))
        )
        found = self.attend(query, key, value).transpose(1, 2)  # (B, width, H * W)
        found = found.reshape(x.shape[0], -1, x.shape[2], x.shape[3])
        added: Tensor = self.project(found)
        return x + added


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(Q K^T / sqrt(width)) V for (B, N, D), (B, M, D), (B, M, D): (B, N, D)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)  # (B, N, M)
    found: Tensor = scores.softmax(dim=-1) @ value
    return found


# ---------------------------------------------------------------- network
class BiSegUNet(nn.Module):
    """Segment street scenes with convolutions whose weights can become binary.

    Any input from 32x32 works; multiples of 16, or 32 with `stem_stride=2`, waste nothing.

    Args:
        num_classes: Classes K.
        width: Factor of all channels, a multiple of 1/16.
        stem_stride: 2 computes at half the size; the scores are brought back to full size.
        min_group_width: Fewest channels that a group of a convolution reads.
        kv_pool: Side of the squares over which the attention averages keys and values.
        fused_attention: Use torch's fused attention; exported files need the plain one.
        block: What stands on the skips and before the head: the paper's capacity block, one of the
            two blocks that it is compared with, or nothing.
        branches: Branches of the capacity block that exist; `binary` is a pair and a single one.
        block_count: Skips with a block, deepest first; the others pass unchanged.
        output_block: Whether one stands before the head; None: only with all four skips.
        block_attention: Whether the capacity block weighs its channels.
        block_residual: Whether a block adds its input.
        binarize_stem_first: Let the very first convolution become binary too.
        act_bits: Bits that the inputs of binary layers may come to have. With 1, encoder stages
            have shortcuts and layers thresholds; 7x7 and first convolutions keep real inputs.

    Raises:
        ValueError: `width`, `branches` or `block_count` fits no network.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: float = 1.0,
        stem_stride: Literal[1, 2] = 1,
        min_group_width: int = 8,
        kv_pool: int = 1,
        fused_attention: bool = False,
        block: Literal["capacity", "ms_se", "ms_cbam", "none"] = "capacity",
        branches: tuple[Branch, ...] = ("binary", "dilated", "grouped"),
        block_count: int = 4,
        output_block: bool | None = None,
        block_attention: bool = True,
        block_residual: bool = True,
        binarize_stem_first: bool = False,
        act_bits: Literal[1, 32] = 32,
    ) -> None:
        super().__init__()
        _check(width=width, branches=branches, block_count=block_count)
        streams = [round(width * channels) for channels in STEM_CHANNELS]
        c1, c2, c3, c4 = (round(width * channels) for channels in STAGE_CHANNELS)
        c0 = sum(streams)
        layer = partial(binary_layer, min_group_width=min_group_width, act_bits=act_bits)
        self.stem = Stem(
            streams, stride=stem_stride, layer=layer, binarize_first=binarize_stem_first
        )
        self.encoder1 = _encoder_stage(c0, c1, layer=layer, act_bits=act_bits)
        self.encoder2 = _encoder_stage(c1, c2, layer=layer, act_bits=act_bits)
        self.encoder3 = _encoder_stage(c2, c3, layer=layer, act_bits=act_bits)
        self.encoder4 = _encoder_stage(c3, c4, layer=layer, act_bits=act_bits)
        make = _block_builder(
            block,
            layer=layer,
            branches=branches,
            attention=block_attention,
            residual=block_residual,
        )
        kept = [make if index >= 4 - block_count else nn.Identity for index in range(4)]
        self.capacity1, self.capacity2 = kept[0](c1), kept[1](c2)
        self.capacity3, self.capacity4 = kept[2](c3), kept[3](c4)
        has_output = block_count == 4 if output_block is None else output_block
        self.capacity_out = make(c0) if has_output else nn.Identity()
        self.aspp = ASPP(c4, c3, layer=layer)
        self.attention = PositionAttention(
            c3,
            width=int(ATTENTION_CHANNELS * max(width, 0.25)),
            kv_pool=kv_pool,
            fused=fused_attention,
        )
        self.project = layer(c4, c3, 1, groups=2, activation="none")
        self.decoder1 = layer(c3, c3, 3, groups=8)
        self.decoder2 = layer(c3, c2, 3, groups=8)
        self.decoder3 = layer(c2, c1, 3, groups=8)
        self.decoder4 = layer(c1, c0, 3, groups=8)
        self.head = nn.Conv2d(c0, num_classes, 1)
        self.resizes_logits = stem_stride > 1

    def forward(self, images: Tensor) -> SemanticOutput:
        """Score the classes of every pixel of normalised images (B, 3, H, W).

        Returns:
            Logits (B, K, H, W); no auxiliary ones.
        """
        f0 = self.stem(images)  # (B, 128, H, W), or half of it with `stem_stride=2`
        f1 = self.encoder1(f0)
        f2 = self.encoder2(f1)
        f3 = self.encoder3(f2)
        s1, s2, s3 = self.capacity1(f1), self.capacity2(f2), self.capacity3(f3)
        s4 = self.capacity4(self.encoder4(f3))  # (B, 2048, H/16, W/16)
        x = F.relu(self.attention(self.aspp(s4)) + self.project(s4))  # eq. 15
        x = _resize(self.decoder1(x), s3)  # (B, 1024, H/8, W/8)
        x = _resize(self.decoder2(x + s3), s2)
        x = _resize(self.decoder3(x + s2), s1)
        x = _resize(self.decoder4(x + s1), f0)  # (B, 128, H, W)
        logits = self.head(self.capacity_out(x))
        return SemanticOutput(_resize(logits, images) if self.resizes_logits else logits)

    def deployable(self) -> BiSegUNet:
        """Return a copy for evaluation of ordinary convolutions, with the norms folded in.

        Binary layers become convolutions whose weights are the factors times the signs.
        """
        clone = copy.deepcopy(self).eval()
        for block in clone.modules():
            if isinstance(block, ConvNorm):
                block.fuse()
        return clone


def _check(*, width: float, branches: Sequence[Branch], block_count: int) -> None:
    if width <= 0 or width * 16 % 1:
        raise ValueError(f"width {width} is no multiple of 1/16; use 0.25, 0.5 or 1.0")
    if not branches:
        raise ValueError("a capacity block needs a branch; block='none' builds none")
    if not 0 <= block_count <= 4:
        raise ValueError(f"block_count {block_count} is not 0 to 4, the number of skips")


def _block_builder(
    kind: Literal["capacity", "ms_se", "ms_cbam", "none"],
    *,
    layer: BinaryLayer,
    branches: Sequence[Branch],
    attention: bool,
    residual: bool,
) -> Callable[[int], nn.Module]:
    """Return what builds a block of the given kind from its number of channels."""
    capacity = partial(capacity_block, branches=branches, attention=attention)
    kinds: dict[str, Callable[..., nn.Module]] = {
        "capacity": capacity,
        "ms_se": partial(multi_scale_block, spatial=False),
        "ms_cbam": partial(multi_scale_block, spatial=True),
    }
    return nn.Identity if kind == "none" else partial(kinds[kind], layer=layer, residual=residual)


def _encoder_stage(
    in_channels: int, out_channels: int, *, layer: BinaryLayer, act_bits: Literal[1, 32]
) -> nn.Module:
    build = partial(layer, in_channels, out_channels, 3, groups=8, stride=2)
    return build() if act_bits == 32 else ShortcutStage(build(activation="none"))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize (B, C, h, w) bilinearly to the size of `like`; corners are not aligned."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


bisegunet_s2 = partial(BiSegUNet, stem_stride=2)
"""The paper's network at half the size inside, for a quarter of the operations."""
bisegunet_half = partial(BiSegUNet, width=0.5, stem_stride=2, min_group_width=32, kv_pool=2)
bisegunet_edge = partial(BiSegUNet, width=0.25, stem_stride=2, min_group_width=32, kv_pool=2)
