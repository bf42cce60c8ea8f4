"""TwinMixing: drivable area and lane lines from one small encoder with two decoders.

Paper: "TwinMixing", on lightweight multi-task segmentation of drivable area and lane lines. What it
leaves open was taken from the behaviour of the code that its authors released.

    image (3)                                           P: width of the variant
      |-- stem: shuffle unit + pooled image ---- 1/2    P + 3
      |   + pooled image: mix_half                      2P
      |-- down2: strided EPM ------------------- 1/4    4P
      |   stage2: p EPM                                 4P
      |   + down2 + pooled image: mix_quarter           8P + 3
      |-- down3: strided EPM ------------------- 1/8    8P
      |   stage3: q EPM                                 8P
      |   down3 + stage3: mix_eighth                    4P
      |-- pcaa: attention over 2x4 patches              4P
      |-- neck                                          2P
      |
      |   per task, with the pooled image of that size: up, up, out (DBU)
      +-- drivable: 1/4 P, 1/2 8, 1/1 2
      +-- lane:     1/4 P, 1/2 8, 1/1 2

Width P and depths p, q, exact parameters, multiply-adds at 384x640, and the operations as the paper
counts them (`rtseg.benchmark.rules_twinmixing`); in brackets what it prints:

            P  p  q    parameters             multiply-adds    operations
    nano    8  2  3       24,167               304,595,968        443,048,448
    tiny   16  3  5       98,176  (0.10 M)     852,019,712      1,084,230,912  (1.08 G)
    base   32  5  7      434,085  (0.43 M)   3,481,827,328      3,949,681,920  (3.95 G)
    large  64  7  9    1,501,681  (1.50 M)  13,148,467,712     14,250,228,480  (14.25 G)

A single task needs fewer: base has 411,325 parameters then (0.41 M). Height must be a multiple of
16 and width of 32: 360x640 has no even number of rows at 1/8 for two rows of patches.

Where the paper contradicts itself:
- The abstract gives base 92.0 and 32.3, the tables 92.4 and 33.2; the text gives it 0.44 M and
  3.9 G, the tables 0.43 M and 3.95 G.
- The text on single tasks swaps the two rows of table 4.
- Strided EPM has a strided 1x1 convolution in one place; with it tiny would have 98,032 parameters,
  but table 8 says 98.2 K, which takes a strided depth-wise 3x3.
- It names three sizes; nano exists in the released code only.
- It calls tiny compute-bound, but 83, 335 and 1302 images/s at batch 1, 4 and 16 are one constant
  time per call: the GPU waits for launches.
- Its Tversky weights should emphasise recall, but in the usual definition, and in the released
  code, the larger one stands at the false positives (see the task `road_lane`).
- The shuffle is presented as central; with the paper's own widths only 2 of 89 units of base, and
  10 of 113 of large, have more than one group and more than one channel in it.

Deviations from the paper and silent points:
- Group rule, dilations 1 to 16 at every depth, strided 3x3, size of PCAA, pooled images as skips
  and the PReLU behind the logits follow the released code: the paper is silent or ambiguous, and
  only these reach its printed counts.
- Units inside EPM have neither norm nor activation, so they are linear maps; with both, tiny would
  have 104,985 parameters.
- The value of PCAA is computed once and broadcast, not eight times: same result, fewer operations.
- A shuffle that changes nothing is left out. Patches are cut by reshaping, not by adaptive
  pooling, so that the network exports.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from rtseg.nn.conv import ConvNormAct, NormAct
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.nn.fuse import fuse_batch_norms, fuse_conv_norm
from rtseg.structures import RoadLaneOutput

if TYPE_CHECKING:
    from rtseg.models.twinmixing_deploy import DeployedTwinMixing

Groups = Literal["auto"] | int
Branches = Literal["both", "coarse", "fine"]

IMAGE_CHANNELS = 3
HEAD_CHANNELS = 8
"""Channels of both decoders at 1/2, in every variant."""
DILATIONS = (1, 2, 4, 8, 16)
PATCHES = (2, 4)
"""Rows and columns of PCAA's patches."""


# ---------------------------------------------------------------- shuffle unit
def unit_groups(in_channels: int, out_channels: int, *, groups: Groups = "auto") -> int:
    """Return the groups of a shuffle unit's 1x1 convolutions.

    By default the largest number that divides the channels in, out and between (half of out). A
    given number is taken where it divides that one, and ignored elsewhere.

    Raises:
        ValueError: `groups` is below 1.
    """
    largest = math.gcd(in_channels, out_channels // 2, out_channels)
    if groups == "auto":
        return largest
    if groups < 1:
        raise ValueError(f"groups is {groups}; give 1 or more, or 'auto'")
    return largest if largest % groups else groups


class ChannelShuffle(nn.Module):
    """Interleave the channels of the groups: 6 channels in 2 groups become 0, 3, 1, 4, 2, 5."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Reorder (B, C, H, W)."""
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class ConvNorm(nn.Module):
    """A convolution of any kind, followed by a batch norm and an activation if they are wanted."""

    def __init__(self, conv: nn.Conv2d, *, norm: bool, act: bool) -> None:
        super().__init__()
        channels = conv.out_channels
        self.conv = conv
        self.norm: nn.Module = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.act: nn.Module = nn.PReLU(channels) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


class ShuffleUnit(nn.Module):
    """Narrow by a 1x1, shuffle, filter each channel, widen by a 1x1; the 1x1s are grouped.

    At stride 2 the average-pooled input is appended, so that D + C channels come out; otherwise
    the input is added where the channels agree. Source: the paper, figures 6c and 6d.

    Args:
        in_channels: Channels C in.
        out_channels: Channels D of the main path.
        kernel_size: Side of the depth-wise kernel, odd.
        stride: Step of the depth-wise convolution.
        dilation: Dilation of the depth-wise convolution, at stride 1.
        groups: See `unit_groups`.
        norm: Normalise and activate; without, the unit is a linear map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: Groups = "auto",
        norm: bool = True,
    ) -> None:
        super().__init__()
        middle = out_channels // 2
        number = unit_groups(in_channels, out_channels, groups=groups)
        self.reduce = ConvNorm(
            nn.Conv2d(in_channels, middle, 1, groups=number, bias=False), norm=norm, act=norm
        )
        changes = number not in (1, middle)
        self.shuffle: nn.Module = ChannelShuffle(number) if changes else nn.Identity()
        self.spatial = ConvNorm(
            _depthwise(middle, kernel_size, stride=stride, dilation=dilation), norm=norm, act=False
        )
        self.expand = ConvNorm(
            nn.Conv2d(middle, out_channels, 1, groups=number, bias=False), norm=norm, act=False
        )
        self.pool = _pool() if stride == 2 else None
        self.add = stride == 1 and in_channels == out_channels
        total = out_channels + (in_channels if stride == 2 else 0)
        self.act: nn.Module = nn.PReLU(total) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W), or at stride 2 to (B, D + C, H / 2, W / 2)."""
        y: Tensor = self.expand(self.spatial(self.shuffle(self.reduce(x))))
        if self.pool is not None:
            y = _join(y, self.pool(x))
        if self.add:
            y = y + x
        result: Tensor = self.act(y)
        return result


def _depthwise(channels: int, kernel_size: int, *, stride: int, dilation: int) -> nn.Conv2d:
    size = (kernel_size, kernel_size)
    if stride == 1:
        return DepthwiseConv2d(channels, size, dilation=(dilation, dilation))
    return nn.Conv2d(
        channels,
        channels,
        size,
        stride=stride,
        padding=kernel_size // 2,
        groups=channels,
        bias=False,
    )


def _pool() -> nn.AvgPool2d:
    """Halve the size; zeros beyond the border count in the mean."""
    return nn.AvgPool2d(3, stride=2, padding=1)


def _join(features: Tensor, *others: Tensor) -> Tensor:
    """Concatenate along the channels in the type of `features` (autocast would widen all)."""
    if not others:
        return features
    return torch.cat([features, *(other.to(features.dtype) for other in others)], dim=1)


# ---------------------------------------------------------------- efficient pyramid mixing
class EPM(nn.Module):
    """Mix five dilations of narrow features; each joins the sum of the smaller ones.

    Source: the paper, figure 5 (efficient pyramid mixing and its strided form).

    Args:
        in_channels: Channels C in.
        out_channels: Channels D out.
        stride: 1 adds the input to the result (C = D); 2 halves the size.
        dilations: Of the five branches.
        groups: See `unit_groups`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        dilations: tuple[int, ...] = DILATIONS,
        groups: Groups = "auto",
    ) -> None:
        super().__init__()
        narrow = out_channels // 5
        self.reduce = ShuffleUnit(
            in_channels,
            narrow,
            kernel_size=1 if stride == 1 else 3,
            stride=stride,
            groups=groups,
            norm=False,
        )
        inner = narrow if stride == 1 else narrow + in_channels
        widths = [out_channels - 4 * narrow] + 4 * [narrow]
        self.branches = nn.ModuleList(
            ShuffleUnit(inner, width, dilation=dilation, groups=groups, norm=False)
            for width, dilation in zip(widths, dilations, strict=True)
        )
        self.add = stride == 1
        self.norm = NormAct(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        reduced = self.reduce(x)
        first, *others = [branch(reduced) for branch in self.branches]
        sums = others[:1]
        for other in others[1:]:
            sums.append(sums[-1] + other)
        y = torch.cat([first, *sums], dim=1)
        result: Tensor = self.norm(y + x if self.add else y)
        return result


# ---------------------------------------------------------------- partial class activation
class PCAA(nn.Module):
    """Let every pixel attend to learned region centres of its patch and of the whole image.

    There are as many region maps as channels, without supervision. Source: the paper cites partial
    class activation attention, "Partial Class Activation Attention for Semantic Segmentation";
    here with PReLU, without dropout, and with one grid of patches.

    Args:
        channels: Channels C in and out, and maps K.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, patches = channels // 2, PATCHES[0] * PATCHES[1]
        self.maps = nn.Conv2d(channels, channels, 1)
        self.between_patches = nn.Conv2d(patches, patches, 1, bias=False)
        self.patch_act = nn.PReLU(patches)
        self.between_channels = nn.Linear(channels, channels, bias=False)
        self.over_patches = nn.Conv2d(patches, 1, 1)
        self.global_act = nn.PReLU(1)
        self.query = nn.Linear(channels, half)
        self.key = nn.Linear(channels, half)
        self.value = nn.Linear(channels, half)
        self.project = ConvNormAct(half, channels, 1, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; H must divide by 2 and W by 4."""
        pixels = _patches(x)  # (B, N, T, C): T pixels in each of N patches
        attended = self.attend(_patches(self.maps(x)), pixels, self.query(pixels))
        added: Tensor = self.project(_image(attended, x.shape[-2:]))
        return x + added

    def attend(self, maps: Tensor, pixels: Tensor, query: Tensor) -> Tensor:
        """Attend from queries (B, N, T, C/2), given maps (B, N, T, K) and pixels (B, N, T, C).

        Returns:
            What each pixel found (B, N, T, C/2).
        """
        confidence = torch.sigmoid(maps.mean(dim=2)).unsqueeze(-1)  # (B, N, K, 1)
        shares = maps.softmax(dim=2).transpose(2, 3)  # (B, N, K, T)
        centres = torch.matmul(shares, pixels) * confidence  # (B, N, K, C)
        mixed = self.patch_act(self.between_patches(centres) + centres)
        centres = self.between_channels(mixed)
        overall = self.global_act(self.over_patches(centres))  # (B, 1, K, C)
        scores = torch.matmul(query, self.key(centres).transpose(2, 3))
        weights = scores.softmax(dim=-1)  # (B, N, T, K)
        return torch.matmul(weights, self.value(overall))


def _patches(x: Tensor) -> Tensor:
    """Cut (B, C, H, W) into patches (B, N, T, C), row by row, T pixels in each."""
    batch, channels, height, width = x.shape
    rows, columns = PATCHES
    cut = x.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1, channels)


def _image(x: Tensor, size: torch.Size) -> Tensor:
    """Put patches (B, N, T, C) back together: (B, C, H, W) with `size` (H, W)."""
    rows, columns = PATCHES
    height, width = size
    cut = x.reshape(x.shape[0], rows, columns, height // rows, width // columns, x.shape[-1])
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, height, width)


# ---------------------------------------------------------------- dual-branch upsampling
class FineBranch(nn.Module):
    """Double the size by a transposed convolution; then blend in the pooled image, if there is one.

    Args:
        in_channels: Channels C in.
        out_channels: Channels D out.
        skip_channels: Channels of the pooled image, 0 for none.
    """

    def __init__(self, in_channels: int, out_channels: int, *, skip_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.act = nn.PReLU(out_channels)
        self.blend: nn.Module = (
            ConvNormAct(out_channels + skip_channels, out_channels, 3, eps=1e-5)
            if skip_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """Map (B, C, H, W) and at most one skip (B, S, 2H, 2W) to (B, D, 2H, 2W)."""
        result: Tensor = self.blend(_join(self.act(self.norm(self.up(x))), *skips))
        return result


class CoarseBranch(nn.Module):
    """Change the channels by a 1x1 and double the size bilinearly, corners not aligned."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, 2H, 2W)."""
        result: Tensor = self.act(self.up(self.project(x)))
        return result


class DBU(nn.Module):
    """Double the size by the sum of a fine and a coarse branch. Source: the paper, figure 8.

    Args:
        in_channels: Channels C in.
        out_channels: Channels D out.
        skip_channels: Channels of the pooled image for the fine branch, 0 for none.
        branches: Those that exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        skip_channels: int = 0,
        branches: Branches = "both",
    ) -> None:
        super().__init__()
        self.fine = (
            FineBranch(in_channels, out_channels, skip_channels=skip_channels)
            if branches != "coarse"
            else None
        )
        self.coarse = CoarseBranch(in_channels, out_channels) if branches != "fine" else None

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """Map (B, C, H, W) and at most one skip (B, S, 2H, 2W) to (B, D, 2H, 2W)."""
        parts: list[Tensor] = []
        if self.fine is not None:
            parts.append(self.fine(x, *skips))
        if self.coarse is not None:
            parts.append(self.coarse(x))
        return sum(parts[1:], start=parts[0])


# ---------------------------------------------------------------- model
class Encoder(nn.Module):
    """Encode an image into features at 1/8 of its size."""

    def __init__(
        self, width: int, depths: tuple[int, int], *, dilations: tuple[int, ...], groups: Groups
    ) -> None:
        super().__init__()
        joined = 8 * width + IMAGE_CHANNELS
        unit = partial(ShuffleUnit, groups=groups)
        epm = partial(EPM, dilations=dilations, groups=groups)
        self.stem = unit(IMAGE_CHANNELS, width, stride=2)
        self.mix_half = unit(width + 2 * IMAGE_CHANNELS, 2 * width)
        self.down2 = epm(2 * width, 4 * width, stride=2)
        self.stage2 = nn.Sequential(*(epm(4 * width, 4 * width) for _ in range(depths[0])))
        self.mix_quarter = unit(joined, joined)
        self.down3 = epm(joined, 8 * width, stride=2)
        self.stage3 = nn.Sequential(*(epm(8 * width, 8 * width) for _ in range(depths[1])))
        self.mix_eighth = unit(16 * width, 4 * width)
        self.pcaa = PCAA(4 * width)
        self.neck = unit(4 * width, 2 * width)

    def forward(self, images: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """Encode images (B, 3, H, W), given them pooled to 1/2 and 1/4 as well.

        Returns:
            Features (B, 2P, H/8, W/8).
        """
        x = self.mix_half(_join(self.stem(images), half))  # (B, 2P, H/2, W/2)
        x = self.down2(x)  # (B, 4P, H/4, W/4)
        x = self.mix_quarter(_join(self.stage2(x), x, quarter))  # (B, 8P + 3, H/4, W/4)
        x = self.down3(x)  # (B, 8P, H/8, W/8)
        x = self.mix_eighth(_join(x, self.stage3(x)))  # (B, 4P, H/8, W/8)
        features: Tensor = self.neck(self.pcaa(x))
        return features


class Decoder(nn.Module):
    """Score one task at the size of the image, in three doublings."""

    def __init__(self, width: int, *, branches: Branches) -> None:
        super().__init__()
        dbu = partial(DBU, branches=branches)
        self.up1 = dbu(2 * width, width, skip_channels=IMAGE_CHANNELS)
        self.up2 = dbu(width, HEAD_CHANNELS, skip_channels=IMAGE_CHANNELS)
        self.out = dbu(HEAD_CHANNELS, 2)

    def forward(self, x: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """Map features (B, 2P, H/8, W/8) to logits (B, 2, H, W)."""
        logits: Tensor = self.out(self.up2(self.up1(x, quarter), half))
        return logits


class TwinMixing(nn.Module):
    """Find drivable area and lane lines in images of a front camera.

    Args:
        width: Channels P that all others are multiples of.
        depths: EPM blocks p at 1/4 and q at 1/8. Source of both: the released code.
        tasks: Decoders that exist.
        dbu: Upsampling branches that exist. Source: the paper, table 6.
        dilations: Of the five branches of every EPM: 1, 2, 4, 8 and 16, or one value in all of
            them. Source: the paper, table 7.
        groups: Groups of the shuffle units: by the channels, or this number where it divides the
            automatic one. Source: the paper, table 8.

    Raises:
        ValueError: `groups` is below 1.
    """

    def __init__(
        self,
        *,
        width: int,
        depths: tuple[int, int],
        tasks: Literal["both", "drivable", "lane"] = "both",
        dbu: Branches = "both",
        dilations: Literal["multi", 1, 4, 16] = "multi",
        groups: Groups = "auto",
    ) -> None:
        super().__init__()
        chosen = DILATIONS if dilations == "multi" else len(DILATIONS) * (dilations,)
        self.pool = _pool()
        self.encoder = Encoder(width, depths, dilations=chosen, groups=groups)
        self.drivable = Decoder(width, branches=dbu) if tasks != "lane" else None
        self.lane = Decoder(width, branches=dbu) if tasks != "drivable" else None

    def forward(self, images: Tensor) -> RoadLaneOutput:
        """Score both tasks at every pixel of images (B, 3, H, W), RGB in 0..1.

        Returns:
            Logits (B, 2, H, W) of background and foreground; None for a task without decoder.

        Raises:
            ValueError: H is no multiple of 16, or W none of 32.
        """
        check_size(*images.shape[-2:])
        half = self.pool(images)
        quarter = self.pool(half)
        features = self.encoder(images, half, quarter)  # (B, 2P, H/8, W/8)
        return RoadLaneOutput(
            drivable=None if self.drivable is None else self.drivable(features, half, quarter),
            lane=None if self.lane is None else self.lane(features, half, quarter),
        )

    def deployable(self) -> DeployedTwinMixing:
        """Return the same function for evaluation, in fewer and denser layers; see its file."""
        from rtseg.models.twinmixing_deploy import DeployedTwinMixing

        return DeployedTwinMixing(self.folded())

    def folded(self) -> TwinMixing:
        """Return a copy for evaluation with batch norms folded into the convolutions before them.

        The norm of an EPM follows a concatenation and stays; so do all other layers.
        """
        clone = copy.deepcopy(self).eval()
        fuse_batch_norms(clone)
        for module in clone.modules():
            if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
                module.conv = fuse_conv_norm(module.conv, module.norm)
                module.norm = nn.Identity()
            if isinstance(module, FineBranch) and isinstance(module.norm, nn.BatchNorm2d):
                module.up = _fuse_transposed(module.up, module.norm)
                module.norm = nn.Identity()
        return clone


def check_size(height: int, width: int) -> None:
    """Check the size of an image.

    Raises:
        ValueError: The height is no multiple of 16, or the width none of 32.
    """
    if height % 16 or width % 32:
        fitting = f"{-(-height // 16) * 16}x{-(-width // 32) * 32}"
        raise ValueError(
            f"the image is {height}x{width}, but height must be a multiple of 16 and width of 32; "
            f"pad it to {fitting}"
        )


@torch.no_grad()
def _fuse_transposed(conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> nn.ConvTranspose2d:
    """Return a transposed convolution without groups, with the norm after it folded in.

    Its weight (C, D, k, k) is turned to (D, C, k, k), which is what a plain convolution has.
    """
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, bias=False)  # type: ignore[arg-type]
    plain.weight = nn.Parameter(conv.weight.transpose(0, 1))
    folded = fuse_conv_norm(plain, norm)
    fused = copy.deepcopy(conv)
    fused.weight = nn.Parameter(folded.weight.transpose(0, 1).contiguous())
    fused.bias = folded.bias
    return fused


twinmixing_nano = partial(TwinMixing, width=8, depths=(2, 3))  # released code only
twinmixing_tiny = partial(TwinMixing, width=16, depths=(3, 5))
twinmixing_base = partial(TwinMixing, width=32, depths=(5, 7))
twinmixing_large = partial(TwinMixing, width=64, depths=(7, 9))
