"""LSA-BiNet and its baseline DABNet: small convolutional networks for street scenes.

Paper: "Local-Semantic Attentive Bidirectional Bottleneck Network with Residual Feature Augmentation
for Realtime Semantic Segmentation". The encoder is that of DABNet ("DABNet: Depth-wise Asymmetric
Bottleneck for Real-time Semantic Segmentation"). No code of the paper is public: placement and
widths were found by matching its tables of parameters and operations.

    image (3)
      |-- stem: 3 convolutions ---------------------- 1/2   32
      |   + pooled image, norm (cat1)                       35
      |-- down1 ------------------------------------- 1/4   64
      |   block1: 3 DAB, dilation 2                         64
      |   + down1 + pooled image, norm (cat2)              131 --- shallow --+
      |-- down2 ------------------------------------- 1/8  128               |
      |   block2: 6 DAB, dilation 4 4 8 8 16 16            128               |
      |   + down2 + pooled image, norm (cat3)              259               |
      |-- LRFA: gated local attention ---------------      259               |
      |-- SVFM: variance and detail branches --------      259 --- deep --+  |
      +-- RCAD: cross-level attention decoder ------- 1/4  131 <----------+--+
          classifier                                         K

Parameters, and operations as the paper counts them (multiply-adds once, 4 per element of a batch
norm, 1 per element of a PReLU), at 360x480 with 11 classes; in brackets what the paper prints:

    switches on        parameters             operations               multiply-adds alone
    (none: DABNet)        754,571  (0.75 M)   3,489,933,600            3,362,939,100
    LRFA                  798,606  (0.80 M)   3,503,617,200  (3.50 G)  3,376,622,700
    SVFM                1,435,482  (1.44 M)   5,135,018,720  (5.14 G)  5,008,024,220
    RCAD                1,116,164  (1.12 M)   7,152,232,500  (7.15 G)  6,996,588,300
    LRFA, SVFM          1,479,517  (1.48 M)   5,148,702,320  (5.15 G)  5,021,707,820
    all: LSA-BiNet      1,841,110  (1.84 M)   8,811,001,220  (8.81 G)  8,655,357,020

With 19 classes LSA-BiNet has 1,842,158 parameters and takes 26,297,595,488 multiply-adds at
512x1024 (26,769,831,520 operations).

Where the paper contradicts itself:
- It gives 8.81 G for 360x480 and for 512x1024. Only the first is right; the second is 26.8 G.
- Its ablation gives the baseline 20.9 G, which is about twice the multiply-adds at 512x1024. At the
  size of the other rows it is 3.49 G, so the modules add cost instead of saving it.
- 0.75 M and 0.76 M for the baseline are both right: 11 and 19 classes.
- In its ablation LRFA alone and SVFM alone lower the mIoU, and speeds do not follow the cost.

Deviations from the paper, or choices where it is silent:
- Max-pooling rounds up, so that any size from 8x8 works; at even sizes nothing changes.
- LRFA comes before SVFM; it is 16 channels wide, pools without padding, and shrinks its window on
  maps smaller than 7. SoftPool and the variance are computed in float32.
- SVFM has biases, one learnable alpha (start 1) and beta (start 0) per channel, and a detail branch
  whose depth-wise convolution doubles the channels: all needed to reach the printed counts.
- RCAD normalises and activates after every convolution, but for the second one of its residual
  block (norm alone) and the bare classifier.
"""

from __future__ import annotations

import copy
from functools import partial
from itertools import cycle, islice
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.conv import ConvNormAct, NormAct
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.nn.fuse import fuse_batch_norms
from rtseg.ops.pool import adaptive_max_pool
from rtseg.structures import SemanticOutput

STEM_CHANNELS = 32
STAGE_CHANNELS = (64, 128)
SHALLOW_CHANNELS = 2 * STAGE_CHANNELS[0] + 3
"""Channels at 1/4: stage features, stage input and the pooled image."""
DEEP_CHANNELS = 2 * STAGE_CHANNELS[1] + 3
"""Channels at 1/8, likewise."""


# ---------------------------------------------------------------- encoder
class DABlock(nn.Module):
    """Add local and dilated context to the features through a narrow pair of branches.

    Each branch factorises a depth-wise 3x3 into 3x1 and 1x3. Source: DABNet, figure 3.
    """

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = NormAct(channels)
        self.reduce = ConvNormAct(channels, half, 3)
        self.local = nn.Sequential(*_asymmetric_pair(half, dilation=1))
        self.context = nn.Sequential(*_asymmetric_pair(half, dilation=dilation))
        self.norm_sum = NormAct(half)
        self.expand = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        narrow = self.reduce(self.norm(x))
        both = self.local(narrow) + self.context(narrow)
        expanded: Tensor = self.expand(self.norm_sum(both))
        return x + expanded


def _asymmetric_pair(channels: int, *, dilation: int) -> tuple[ConvNormAct, ConvNormAct]:
    vertical = ConvNormAct(channels, channels, (3, 1), depthwise=True, dilation=(dilation, 1))
    horizontal = ConvNormAct(channels, channels, (1, 3), depthwise=True, dilation=(1, dilation))
    return vertical, horizontal


class PooledDown(nn.Module):
    """Halve the size by a strided convolution beside a max-pool, as wide as both together."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        new = out_channels - in_channels
        self.conv = nn.Conv2d(in_channels, new, 3, stride=2, padding=1, bias=False)
        # Rounding up gives odd sizes the shape that the strided convolution has.
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.norm = NormAct(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, ceil(H/2), ceil(W/2))."""
        pooled = self.pool(x)
        convolved = self.conv(x)
        result: Tensor = self.norm(torch.cat([convolved, pooled.to(convolved.dtype)], dim=1))
        return result


class Encoder(nn.Module):
    """Encode an image into features at 1/4 and 1/8, each joined with the pooled image."""

    def __init__(
        self, *, depths: tuple[int, int], dilations: tuple[tuple[int, ...], tuple[int, ...]]
    ) -> None:
        super().__init__()
        narrow, wide = STAGE_CHANNELS
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.stem = nn.Sequential(
            ConvNormAct(3, STEM_CHANNELS, 3, stride=2),
            ConvNormAct(STEM_CHANNELS, STEM_CHANNELS, 3),
            ConvNormAct(STEM_CHANNELS, STEM_CHANNELS, 3),
        )
        self.cat1 = NormAct(STEM_CHANNELS + 3)
        self.down1 = PooledDown(STEM_CHANNELS + 3, narrow)
        self.block1 = _stage(narrow, depth=depths[0], dilations=dilations[0])
        self.cat2 = NormAct(SHALLOW_CHANNELS)
        self.down2 = ConvNormAct(SHALLOW_CHANNELS, wide, 3, stride=2)
        self.block2 = _stage(wide, depth=depths[1], dilations=dilations[1])
        self.cat3 = NormAct(DEEP_CHANNELS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W).

        Returns:
            Shallow features (B, 131, H/4, W/4) and deep features (B, 259, H/8, W/8).
        """
        half = self.pool(images)
        quarter = self.pool(half)
        eighth = self.pool(quarter)
        x = self.cat1(_join(self.stem(images), half))  # (B, 35, H/2, W/2)
        x = self.down1(x)  # (B, 64, H/4, W/4)
        shallow = self.cat2(_join(self.block1(x), x, quarter))
        x = self.down2(shallow)  # (B, 128, H/8, W/8)
        deep = self.cat3(_join(self.block2(x), x, eighth))
        return shallow, deep


def _stage(channels: int, *, depth: int, dilations: tuple[int, ...]) -> nn.Sequential:
    chosen = islice(cycle(dilations), depth)
    return nn.Sequential(*(DABlock(channels, dilation=dilation) for dilation in chosen))


def _join(features: Tensor, *others: Tensor) -> Tensor:
    """Concatenate along the channels in the type of `features` (autocast would widen all)."""
    return torch.cat([features, *(other.to(features.dtype) for other in others)], dim=1)


# ---------------------------------------------------------------- LRFA
def soft_pool(x: Tensor, *, kernel_size: int, stride: int) -> Tensor:
    """Average every window weighted by the softmax of its own values, without padding.

    The window shrinks to the map where the map is smaller. Computed in float32, each window
    against its own maximum, so that neither large values nor large contrasts between windows
    overflow. Source: the paper, eq. 1.

    Args:
        x: (B, C, H, W).
        kernel_size: Side of the window.
        stride: Step of the window.

    Returns:
        (B, C, (H - k) // stride + 1, (W - k) // stride + 1), in the type of `x`.
    """
    batch, channels, height, width = x.shape
    kernel = (min(kernel_size, height), min(kernel_size, width))
    rows, columns = ((n - k) // stride + 1 for n, k in zip((height, width), kernel, strict=True))
    windows = F.unfold(x.float(), kernel, stride=stride)
    windows = windows.view(batch, channels, kernel[0] * kernel[1], rows * columns)
    pooled = (windows.softmax(dim=2) * windows).sum(dim=2)
    return pooled.view(batch, channels, rows, columns).to(x.dtype)


class LRFA(nn.Module):
    """Weigh features by attention from local receptive fields. Source: the paper, eqs. 1 and 2.

    Args:
        channels: Channels in and out.
        width: Channels of the attention path.
        gate: Multiply by the sigmoid of the first channel as well.
    """

    def __init__(self, channels: int, *, width: int, gate: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1)
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.expand = nn.Conv2d(width, channels, 3, padding=1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        pooled = soft_pool(self.reduce(x), kernel_size=7, stride=3)
        weights = torch.sigmoid(self.expand(self.shrink(pooled)))
        # The sigmoid comes first: it is cheap on the small map.
        weights = _resize(weights, x, mode="bilinear").to(x.dtype)
        attended = x * weights
        return attended * torch.sigmoid(x[:, :1]) if self.gate else attended


# ---------------------------------------------------------------- SVFM
def spatial_variance(x: Tensor, *, estimate: Literal["population", "sample"]) -> Tensor:
    """Return the variance of every map of (B, C, H, W) as (B, C, 1, 1), in float32.

    `sample` divides by the number of pixels less one (not a number on a map of one pixel).
    Source: the paper, eq. 5, which is the population's.
    """
    x = x.float()
    squares = (x - x.mean(dim=(2, 3), keepdim=True)).square()
    if estimate == "population":
        return squares.mean(dim=(2, 3), keepdim=True)
    return squares.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)


class VarianceAttention(nn.Module):
    """Modulate features by their pooled maxima and their variance (the paper's EASA branch).

    Source: the paper, eqs. 4 to 6.
    """

    def __init__(
        self,
        channels: int,
        *,
        pool_ratio: int,
        resize: Literal["nearest", "bilinear"],
        variance: Literal["population", "sample"],
    ) -> None:
        super().__init__()
        self.spread = DepthwiseConv2d(channels, bias=True)
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.mix = nn.Conv2d(channels, channels, 1)
        self.pool_ratio = pool_ratio
        self.resize = resize
        self.variance = variance

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x * _resize(self.modulation(x), x, mode=self.resize).to(x.dtype)

    def modulation(self, x: Tensor) -> Tensor:
        """Return the factors of (B, C, H, W) on the pooled map (B, C, H/ratio, W/ratio)."""
        rows, columns = (max(1, n // self.pool_ratio) for n in x.shape[-2:])
        pooled = self.spread(adaptive_max_pool(x, (rows, columns)))
        spread = spatial_variance(x, estimate=self.variance).to(x.dtype)
        return F.gelu(self.mix(self.alpha * pooled + self.beta * spread))


class SVFM(nn.Module):
    """Fuse variance-driven attention with a local detail branch. Source: the paper, eqs. 3 to 8.

    Args:
        channels: Channels in and out.
        branches: Which of the two branches exist.
        pool_ratio: Side of the attention's pooling cells.
        resize: How the attention returns to full size.
        variance: Estimate used by the attention.
        norm: `l2` divides the input by its length over the channels and adds an outer shortcut.
        residual: Add the input to the output.
    """

    def __init__(
        self,
        channels: int,
        *,
        branches: Literal["both", "easa", "lde"],
        pool_ratio: int,
        resize: Literal["nearest", "bilinear"],
        variance: Literal["population", "sample"],
        norm: Literal["none", "l2"],
        residual: bool,
    ) -> None:
        super().__init__()
        count = 2 if branches == "both" else 1
        self.channels = channels
        self.project = nn.Conv2d(channels, count * channels, 1)
        self.easa = (
            VarianceAttention(channels, pool_ratio=pool_ratio, resize=resize, variance=variance)
            if branches != "lde"
            else None
        )
        self.lde = _detail_branch(channels) if branches != "easa" else None
        self.fuse = nn.Conv2d(channels, channels, 1)
        self.norm = norm
        self.shortcut = residual or norm == "l2"

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        normed = F.normalize(x, dim=1) if self.norm == "l2" else x
        parts = self.project(normed).split(self.channels, dim=1)
        # With both branches the first half goes to the attention, the second to the details.
        results = []
        if self.easa is not None:
            results.append(self.easa(parts[0]))
        if self.lde is not None:
            results.append(self.lde(parts[-1]))
        fused: Tensor = self.fuse(sum(results[1:], start=results[0]))
        return x + fused if self.shortcut else fused


def _detail_branch(channels: int) -> nn.Sequential:
    """Build the paper's LDE branch (eq. 7); its depth-wise convolution doubles the channels."""
    return nn.Sequential(
        DepthwiseConv2d(channels, out_channels=2 * channels, bias=True),
        nn.Conv2d(2 * channels, 2 * channels, 1),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, 1),
    )


# ---------------------------------------------------------------- RCAD
class RCAD(nn.Module):
    """Decode shallow features under the attention of deep ones. Source: the paper, eqs. 9 to 12.

    Args:
        deep_channels: Channels of the deep features.
        channels: Channels of the shallow features, kept throughout.
        num_classes: Channels of the scores.
        skip: Add the residual block's input to its output.
    """

    def __init__(self, deep_channels: int, channels: int, num_classes: int, *, skip: bool) -> None:
        super().__init__()
        self.project = ConvNormAct(deep_channels, channels, 1)
        self.refine = nn.Sequential(
            ConvNormAct(channels, channels, 3),
            ConvNormAct(channels, channels, 3, activation="none"),
        )
        self.mixer = nn.Sequential(
            ConvNormAct(channels, channels, 3, depthwise=True),
            ConvNormAct(channels, channels, 1),
        )
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)
        self.skip = skip

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Score shallow features (B, C, H/4, W/4) with deep ones (B, D, H/8, W/8).

        Returns:
            Class scores (B, K, H/4, W/4).
        """
        guide = _resize(self.project(deep), shallow, mode="bilinear").to(shallow.dtype)  # eq. 9
        attention = torch.sigmoid(torch.sigmoid(shallow) + guide)  # eq. 10
        attended = shallow * attention
        refined = self.refine(attended)
        if self.skip:
            refined = attended + refined
        fused = attended + refined * guide  # eq. 11
        scores: Tensor = self.classifier(self.mixer(fused))  # eq. 12
        return scores


def _resize(x: Tensor, like: Tensor, *, mode: Literal["nearest", "bilinear"]) -> Tensor:
    """Resize (B, C, h, w) to the size of `like`; corners are not aligned."""
    size = like.shape[-2:]
    if mode == "nearest":
        return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


# ---------------------------------------------------------------- model
class LSABiNet(nn.Module):
    """Segment street scenes with local and variance attention and a cross-level decoder.

    A module that is switched off is absent. Without `rcad` the scores are at 1/8 of the input,
    from one 1x1 convolution; with it they are at 1/4. Any input from 8x8 works.

    Args:
        num_classes: Classes K.
        lrfa: Attend to local receptive fields on the deep features.
        svfm: Fuse spatial variance and details on the deep features.
        rcad: Decode deep and shallow features together.
        lrfa_width: Channels of LRFA's attention path.
        lrfa_gate: Gate LRFA by the first channel.
        svfm_norm: Normalise SVFM's input over the channels, with an outer shortcut (`l2`).
        svfm_resize: How SVFM's attention returns to full size. decision: nearest, as in the
            public network SVFM descends from; the paper does not say.
        svfm_residual: Add SVFM's input to its output.
        svfm_branches: Branches of SVFM that exist; a single one gets a projection of half width.
        svfm_pool_ratio: Side of SVFM's pooling cells, in pixels of the 1/8 map.
        resatt_skip: Add the input of RCAD's residual block to its output.
        variance: Estimate of SVFM. decision: of the population, as eq. 5 has no correction.
        depths: DAB blocks at 1/4 and at 1/8.
        dilations: Dilations of the blocks at 1/4 and at 1/8, repeated as often as needed.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        lrfa: bool = True,
        svfm: bool = True,
        rcad: bool = True,
        lrfa_width: int = 16,
        lrfa_gate: bool = True,
        svfm_norm: Literal["none", "l2"] = "none",
        svfm_resize: Literal["nearest", "bilinear"] = "nearest",
        svfm_residual: bool = False,
        svfm_branches: Literal["both", "easa", "lde"] = "both",
        svfm_pool_ratio: int = 8,
        resatt_skip: bool = True,
        variance: Literal["population", "sample"] = "population",
        depths: tuple[int, int] = (3, 6),
        dilations: tuple[tuple[int, ...], tuple[int, ...]] = ((2,), (4, 4, 8, 8, 16, 16)),
    ) -> None:
        super().__init__()
        self.encoder = Encoder(depths=depths, dilations=dilations)
        self.lrfa: nn.Module = (
            LRFA(DEEP_CHANNELS, width=lrfa_width, gate=lrfa_gate) if lrfa else nn.Identity()
        )
        self.svfm: nn.Module = (
            SVFM(
                DEEP_CHANNELS,
                branches=svfm_branches,
                pool_ratio=svfm_pool_ratio,
                resize=svfm_resize,
                variance=variance,
                norm=svfm_norm,
                residual=svfm_residual,
            )
            if svfm
            else nn.Identity()
        )
        self.head: nn.Module = (
            RCAD(DEEP_CHANNELS, SHALLOW_CHANNELS, num_classes, skip=resatt_skip)
            if rcad
            else DeepHead(DEEP_CHANNELS, num_classes)
        )
        self.apply(_initialize)

    def forward(self, images: Tensor) -> SemanticOutput:
        """Score the classes of every pixel of normalised images (B, 3, H, W).

        Returns:
            Logits (B, K, H/4, W/4), or at 1/8 without `rcad`, sizes rounded up; no auxiliary ones.
        """
        shallow, deep = self.encoder(images)  # (B, 131, H/4, W/4), (B, 259, H/8, W/8)
        deep = self.svfm(self.lrfa(deep))
        return SemanticOutput(self.head(shallow, deep))

    def deployable(self) -> LSABiNet:
        """Return the same function for evaluation, in layers that engines are quick at.

        See its file; H and W become constants of an export.
        """
        from rtseg.models.lsa_binet_deploy import deploy

        return deploy(self.folded())

    def folded(self) -> LSABiNet:
        """Return a copy for evaluation with batch norms folded into the convolutions before them.

        Norms before a convolution (in the DAB blocks) and after a concatenation stay, and so do all
        other layers.
        """
        clone = copy.deepcopy(self).eval()
        fuse_batch_norms(clone)
        return clone


class DeepHead(nn.Module):
    """Classify the deep features alone, as DABNet does."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:  # noqa: ARG002 (the call of RCAD)
        """Map deep features (B, C, H/8, W/8) to scores (B, K, H/8, W/8)."""
        scores: Tensor = self.classifier(deep)
        return scores


def _initialize(module: nn.Module) -> None:
    """Draw convolution weights as DABNet does; other modules start as torch starts them."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


dabnet = partial(LSABiNet, lrfa=False, svfm=False, rcad=False)
"""The baseline row of the paper's ablation; also the published DABNet."""
