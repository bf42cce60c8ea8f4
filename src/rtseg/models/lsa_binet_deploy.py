"""LSA-BiNet as it is deployed: the same function in layers that engines are quick at.

Rounding apart, nothing changes, for any weights:

- Images are pooled by convolutions, and features beside a pooled image are normalised and convolved
  apart from it. Joined, their odd number of channels would change the memory layout.
- The depth-wise convolution of SVFM that doubles the channels becomes two plain ones, each with the
  part of the 1x1 convolution behind that reads it; its projection becomes one for each branch.
- 131 channels at 1/4 are filled up with zeros to 144, and 259 at 1/8 to 288.

H and W become constants of an export: the windows of LRFA and SVFM follow from them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.models.lsa_binet import (
    DEEP_CHANNELS,
    LRFA,
    RCAD,
    SHALLOW_CHANNELS,
    STEM_CHANNELS,
    SVFM,
    DeepHead,
    Encoder,
    LSABiNet,
    PooledDown,
)
from rtseg.nn.conv import ConvNormAct, NormAct
from rtseg.nn.fill import (
    average_pool,
    bias_of,
    convolution,
    fill,
    fill_convolution,
    missing,
    prelu,
    slopes_of,
)

IMAGE_CHANNELS = 3
SHALLOW = SHALLOW_CHANNELS + missing(SHALLOW_CHANNELS, step=16)
DEEP = DEEP_CHANNELS + missing(DEEP_CHANNELS)
"""Channels at 1/4 and 1/8 with those filled up. decision: at 1/4, whose 3x3 convolutions cost most,
no more than the next multiple of 16."""


# ---------------------------------------------------------------- blocks
@torch.no_grad()
def _norm_part(block: NormAct, channels: slice, *, filled: int | None = None) -> NormAct:
    """Return norm and activation of some channels, filled up to a number of channels."""
    norm, act = block
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    count = len(norm.weight[channels])
    part = NormAct(filled or count, eps=norm.eps).eval()
    own = part[0]
    assert isinstance(own, nn.BatchNorm2d)
    own.weight[:count], own.bias[:count] = norm.weight[channels], norm.bias[channels]
    own.running_mean[:count] = norm.running_mean[channels]  # type: ignore[index]
    own.running_var[:count] = norm.running_var[channels]  # type: ignore[index]
    part[1] = prelu(fill(slopes_of(act)[channels], filled or count))
    return part


def _fill_block(
    block: nn.Module, *, in_channels: int | None = None, out_channels: int | None = None
) -> None:
    """Fill up the channels of a block whose norm is folded, in place."""
    assert isinstance(block, ConvNormAct)
    block.conv = fill_convolution(block.conv, in_channels=in_channels, out_channels=out_channels)
    if out_channels is not None and isinstance(block.act, nn.PReLU):
        block.act = prelu(fill(slopes_of(block.act), out_channels))


class DeployedDown(nn.Module):
    """`PooledDown` on features and a pooled image that are not joined."""

    def __init__(self, down: PooledDown) -> None:
        super().__init__()
        weight = down.conv.weight.detach()
        self.conv = convolution(weight[:, :STEM_CHANNELS], stride=2)
        self.conv_image = convolution(weight[:, STEM_CHANNELS:], stride=2)
        self.pool, self.norm = down.pool, down.norm

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map (B, C, H, W) and (B, 3, H, W) to (B, D, ceil(H/2), ceil(W/2))."""
        convolved = self.conv(x) + self.conv_image(image)
        result: Tensor = self.norm(torch.cat([convolved, self.pool(x), self.pool(image)], dim=1))
        return result


class DeployedEncoder(nn.Module):
    """The encoder, its norms folded, with more channels of zeros in both results."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        shallow_image = IMAGE_CHANNELS + SHALLOW - SHALLOW_CHANNELS
        deep_image = IMAGE_CHANNELS + DEEP - DEEP_CHANNELS
        images = torch.eye(IMAGE_CHANNELS)
        self.halve = average_pool(images)
        self.quarter = average_pool(fill(images, shallow_image))
        self.eighth = average_pool(fill(images, deep_image, shallow_image))
        self.stem = nn.Sequential(encoder.stem, _norm_part(encoder.cat1, slice(0, STEM_CHANNELS)))
        self.halve_norm = _norm_part(encoder.cat1, slice(STEM_CHANNELS, None))
        self.down1 = DeployedDown(encoder.down1)
        self.block1 = encoder.block1
        self.cat2 = _norm_part(encoder.cat2, slice(None), filled=SHALLOW)
        self.down2 = encoder.down2
        _fill_block(self.down2, in_channels=SHALLOW)
        self.block2 = encoder.block2
        self.cat3 = _norm_part(encoder.cat3, slice(None), filled=DEEP)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W) into features (B, 144, H/4, W/4) and (B, 288, H/8, W/8)."""
        half = self.halve(images)
        quarter = self.quarter(half)
        x = self.down1(self.stem(images), self.halve_norm(half))
        shallow = self.cat2(torch.cat([self.block1(x), x, quarter], dim=1))
        x = self.down2(shallow)
        deep = self.cat3(torch.cat([self.block2(x), x, self.eighth(quarter)], dim=1))
        return shallow, deep


class DeployedDetails(nn.Module):
    """The detail branch of SVFM, its first convolution in two halves."""

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        spread, mix, self.act, narrow = branch
        assert isinstance(spread, nn.Conv2d)
        assert isinstance(mix, nn.Conv2d)
        inner = mix.out_channels + missing(mix.out_channels)
        self.spread, self.mix = nn.ModuleList(), nn.ModuleList()
        for half in range(2):  # of the channels out, each channel in has two side by side
            conv = nn.Conv2d(DEEP, DEEP, 3, padding=1, groups=DEEP, device="meta")
            conv.weight = nn.Parameter(fill(spread.weight.detach()[half::2], DEEP))
            conv.bias = nn.Parameter(fill(bias_of(spread)[half::2], DEEP))
            self.spread.append(conv)
            weight = fill(mix.weight.detach()[:, half::2], inner, DEEP)
            self.mix.append(convolution(weight, None if half else fill(bias_of(mix), inner)))
        self.narrow = fill_convolution(narrow, in_channels=inner, out_channels=DEEP)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        first, second = (mix(spread(x)) for spread, mix in zip(self.spread, self.mix, strict=True))
        result: Tensor = self.narrow(self.act(first + second))
        return result


class DeployedSVFM(nn.Module):
    """`SVFM` with a projection for each branch."""

    def __init__(self, svfm: SVFM) -> None:
        super().__init__()
        branches: list[nn.Module] = []
        if svfm.easa is not None:
            easa = svfm.easa
            easa.spread = fill_convolution(easa.spread, in_channels=DEEP)  # type: ignore[assignment]
            easa.alpha = nn.Parameter(fill(easa.alpha.detach()[0], DEEP)[None])
            easa.beta = nn.Parameter(fill(easa.beta.detach()[0], DEEP)[None])
            easa.mix = fill_convolution(easa.mix, in_channels=DEEP, out_channels=DEEP)
            branches.append(easa)
        if svfm.lde is not None:
            branches.append(DeployedDetails(svfm.lde))
        self.branches = nn.ModuleList(branches)
        weights = svfm.project.weight.detach().chunk(len(branches))
        biases = bias_of(svfm.project).chunk(len(branches))
        self.project = nn.ModuleList(
            convolution(fill(weight, DEEP, DEEP), fill(bias, DEEP))
            for weight, bias in zip(weights, biases, strict=True)
        )
        self.fuse = fill_convolution(svfm.fuse, in_channels=DEEP, out_channels=DEEP)
        self.norm, self.shortcut = svfm.norm, svfm.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        normed = F.normalize(x, dim=1) if self.norm == "l2" else x
        first, *others = (
            branch(project(normed))
            for branch, project in zip(self.branches, self.project, strict=True)
        )
        fused: Tensor = self.fuse(sum(others, start=first))
        return x + fused if self.shortcut else fused


# ---------------------------------------------------------------- network
def deploy(model: LSABiNet) -> LSABiNet:
    """Rebuild a network whose norms are folded, in place; return it."""
    model.encoder = DeployedEncoder(model.encoder)  # type: ignore[assignment]
    if isinstance(model.lrfa, LRFA):
        model.lrfa.reduce = fill_convolution(model.lrfa.reduce, in_channels=DEEP)
        model.lrfa.expand = fill_convolution(model.lrfa.expand, out_channels=DEEP)
    if isinstance(model.svfm, SVFM):
        model.svfm = DeployedSVFM(model.svfm)
    head = model.head
    if isinstance(head, DeepHead):
        head.classifier = fill_convolution(head.classifier, in_channels=DEEP)
    if isinstance(head, RCAD):
        _fill_block(head.project, in_channels=DEEP, out_channels=SHALLOW)
        for block in (*head.refine, *head.mixer):
            _fill_block(block, in_channels=SHALLOW, out_channels=SHALLOW)
        head.classifier = fill_convolution(head.classifier, in_channels=SHALLOW)
    return model
