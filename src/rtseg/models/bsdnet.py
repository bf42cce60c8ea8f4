"""BSDNet: one convolutional branch that learns from a transformer; SCTNet as its ancestor.

Paper: "BSDNet: Semantic Information Distillation-Based for Bilateral-Branch Real-Time Semantic
Segmentation on Street Scene Image". The second branch of the title is the teacher, which exists in
training only; this file holds the network that is deployed. No code of the paper is public. Trunk
and heads are those of SCTNet ("SCTNet: Single-Branch CNN with Transformer Semantic Information for
Real-Time Segmentation"), which the paper's figure 2, learning rates and baseline speeds repeat.

b is the width: 32 (S) or 64 (B). w, the width of DASP, is 64 or 128.

    image (3)
      |-- stem: 2 convolutions ---------------------- 1/4    b
      |-- layer1: 2 residual blocks ----------------- 1/4    b
      |-- layer2: 2 residual blocks ----------------- 1/8   2b --- detail --+-- aux head (training)
      |-- layer3: 2 residual blocks ----------------- 1/16  4b              |
      |-- fcb3: FCB --------------------------------- 1/16  4b              |
      |-- down4: convolution ------------------------ 1/32  8b              |
      |-- fcb4, fcb5: 2 FCB ------------------------- 1/32  8b              |
      +-- context: DASP (w) ------------------------- 1/32  2b              |
          resized, joined with detail (fuse) -------- 1/8   4b <------------+
          head: 3x3 and 1x1 convolution ------------- 1/8    K

Distillation reads the outputs of the modules `backbone.fcb3`, `backbone.fcb5` and `fuse`.

Parameters with 19 classes, without the auxiliary head that only training uses (38,419 for S,
150,547 for B), and multiply-adds at 1024x2048; in brackets what the paper prints:

    bsdnet_s     4,354,355  (4.4 M)    31,021,088,768  (31.6)
    bsdnet_b    16,149,075  (16.1 M)  115,276,316,672  (48.1)
    sctnet_s     4,654,643  (4.7 M)    32,026,148,864  (33.7)
    sctnet_b    17,437,779  (17.4 M)  119,523,049,472  (48.3)

The classifiers (trunk, average over the map, one linear layer) have 3,799,368 and 13,424,296
parameters with 1000 classes.

Where the paper contradicts itself:
- 48.1 G for B cannot be reached at any of its sizes: B costs 3.7 times S, not 1.5 times. SCTNet,
  whose code is public, needs 119.5 G where 48.3 is printed.
- Table 5 gives DASP 19.0 M parameters with max-pooling and 16.1 M with average pooling; pooling has
  none. It gives DAPPM 20.2 M, while table 4 implies that DAPPM has 0.5 M more than DASP.
- Table 4 is no exchange of one block for another: trunk and three residual blocks alone have
  15.2 M before any context module, its row says 15.1 M.
- Without distillation B reaches 81.1 / 79.5 / 76.8 in table 6 and 81.3 / 79.7 / 76.8 in table 7.
- DDRNet-23-S and BSDNet-S have the same 31.6 G in table 1.
- The scores of table 1, called "test" in the text, are on val: SCTNet-B's is its published one.

Deviations from the paper and silent points:
- Widths, residual blocks, positions of the ReLUs and both heads are SCTNet's, as are the 64
  learnable rows of 7 pixels in 8 groups, which do not grow with the width: only so do both counts
  come out.
- q and k of the detail branch have C/2 channels and v has C, as in SeaFormer; their projection,
  the 1x1 after the attention and the expansion 4 of the FFN follow from the counts too.
- x itself is the query of the attention (eq. 3); q, k and v of figure 3 feed the detail branch.
  There is no sigmoid on either factor of eq. 3.
- The groups are divided by their L2 norm, as the paper writes; its ancestors' code uses L1.
- Eq. 8 adds a pooled 1x1 map to a full one before it is enlarged; it is enlarged first here. The
  pooled branch has no batch norm, so that a batch of one image can train.
- Features of DASP are added, as eq. 8 says; its text says concatenated.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.models.bsdnet_blocks import (
    ASPP,
    DAPPM,
    BasicBlock,
    CFBlock,
    DropPath,
    GDNNorm,
    GFABlock,
    MSCANBlock,
    SegFormerBlock,
    StripeAttention,
    conv_norm,
    conv_norm_relu,
    fold_norms,
    norm_relu_conv,
)
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.structures import ClassificationOutput, SemanticOutput

Block = Literal["fcb", "resblock", "segformer", "gfa", "mscan", "cfblock"]
Context = Literal["dasp_avg", "dasp_max", "aspp", "dappm"]


# ---------------------------------------------------------------- FCB
class DECAttention(nn.Module):
    """Attend along stripes, weighted by local details (detail enhancing convolutional attention).

    Source: the paper, eqs. 2 and 3, figure 3.

    Args:
        channels: Channels C in and out.
        norm: How attention weights are divided within their group.
        gate: What the details pass before they weigh the attention.
    """

    def __init__(self, channels: int, *, norm: GDNNorm, gate: Literal["none", "sigmoid"]) -> None:
        super().__init__()
        self.attention: nn.Module = StripeAttention(channels, norm=norm)
        self.project: nn.Module = nn.Conv2d(channels, channels, 1)
        # q (C/2), k (C/2) and v (C) are joined again at once, so they are never split (eq. 2).
        self.qkv = nn.Conv2d(channels, 2 * channels, 1)
        self.detail = nn.Sequential(
            DepthwiseConv2d(2 * channels, bias=True),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            *conv_norm(2 * channels, channels, 1),
        )
        self.gate: nn.Module = nn.Sigmoid() if gate == "sigmoid" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        details = self.gate(self.detail(self.qkv(x)))  # F_d
        result: Tensor = self.project(self.attention(x)) * details  # eq. 3
        return result

    def fold(self) -> None:
        """Fold the projection into the values of the attention, in place."""
        assert isinstance(self.attention, StripeAttention)
        assert isinstance(self.project, nn.Conv2d)
        self.attention = self.attention.fold(self.project)
        self.project = nn.Identity()


class FFN(nn.Module):
    """Widen the features four times, mix neighbours, narrow them. Source: the paper, figure 3.

    Args:
        channels: Channels in and out.
        residual: Add the input of the depth-wise convolution to its output.
    """

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 4 * channels, 1)
        self.local = DepthwiseConv2d(4 * channels, bias=True)
        self.narrow = nn.Conv2d(4 * channels, channels, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = self.widen(x)
        mixed = self.local(hidden)
        if self.residual:
            mixed = hidden + mixed
        result: Tensor = self.narrow(F.gelu(mixed))
        return result

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the inner shortcut into the middle tap of the depth-wise kernels, in place."""
        if self.residual:
            self.local.weight[:, :, 1, 1] += 1
            self.residual = False


class FCB(nn.Module):
    """Feature conversion convolutional block: a transformer layer made of convolutions.

    Source: the paper, eq. 1 (normalised after each sum).

    Args:
        channels: Channels in and out.
        gdn_norm: How attention weights are divided within their group.
        detail_gate: What the details pass before they weigh the attention.
        ffn_residual: Shortcut inside the FFN.
        drop_path: Probability of dropping a branch of one image in training.
    """

    def __init__(
        self,
        channels: int,
        *,
        gdn_norm: GDNNorm = "l2",
        detail_gate: Literal["none", "sigmoid"] = "none",
        ffn_residual: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = DECAttention(channels, norm=gdn_norm, gate=detail_gate)
        self.norm1 = nn.BatchNorm2d(channels)
        self.ffn = FFN(channels, residual=ffn_residual)
        self.norm2 = nn.BatchNorm2d(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = self.norm1(x + self.drop_path(self.attention(x)))
        result: Tensor = self.norm2(x + self.drop_path(self.ffn(x)))
        return result


# ---------------------------------------------------------------- DASP
class DASP(nn.Module):
    """Join dilated convolutions, each led by the result of the smaller dilation before it.

    Source: the paper, eq. 8, figure 4.

    Args:
        in_channels: Channels in.
        channels: Channels w of each branch.
        out_channels: Channels out.
        pool: How the last branch sees the whole map.
        fuse: How a branch meets the result before it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        pool: Literal["avg", "max"] = "avg",
        fuse: Literal["add", "concat"] = "add",
    ) -> None:
        super().__init__()
        self.point = conv_norm_relu(in_channels, channels, 1)
        self.dilated = nn.ModuleList(
            conv_norm_relu(in_channels, channels, 3, dilation=dilation) for dilation in (6, 12, 18)
        )
        self.pooled = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU())
        met = 2 * channels if fuse == "concat" else channels
        self.smooths = nn.ModuleList(conv_norm_relu(met, channels, 3) for _ in range(4))
        self.compress = conv_norm_relu(5 * channels, out_channels, 1)
        self.shortcut = conv_norm(in_channels, out_channels, 1)
        self.pool = pool
        self.fuse = fuse

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        whole = x.amax((2, 3), keepdim=True) if self.pool == "max" else x.mean((2, 3), keepdim=True)
        branches = [dilated(x) for dilated in self.dilated]
        branches.append(self.pooled(whole).expand(-1, -1, *x.shape[-2:]))
        features = [self.point(x)]
        for branch, smooth in zip(branches, self.smooths, strict=True):
            features.append(smooth(self._meet(branch, features[-1])))
        result: Tensor = self.compress(torch.cat(features, dim=1)) + self.shortcut(x)
        return result

    def _meet(self, branch: Tensor, before: Tensor) -> Tensor:
        return torch.cat([branch, before], dim=1) if self.fuse == "concat" else branch + before


# ---------------------------------------------------------------- trunk
class Backbone(nn.Module):
    """Encode an image; also the trunk of the ImageNet classifier.

    Its last three blocks are called `fcb3` to `fcb5` whatever they are. The arguments are those of
    `BSDNet`.
    """

    def __init__(
        self,
        width: int,
        *,
        block: Block,
        gdn_norm: GDNNorm,
        detail_gate: Literal["none", "sigmoid"],
        ffn_residual: bool,
        inter_block_relu: bool,
        drop_path: float,
    ) -> None:
        super().__init__()

        def make(channels: int, *, reduction: int) -> nn.Module:
            if block == "fcb":
                return FCB(
                    channels,
                    gdn_norm=gdn_norm,
                    detail_gate=detail_gate,
                    ffn_residual=ffn_residual,
                    drop_path=drop_path,
                )
            return _alternative(block, channels, reduction=reduction, drop_path=drop_path)

        self.stem = nn.Sequential(
            conv_norm_relu(3, width, 3, stride=2), conv_norm_relu(width, width, 3, stride=2)
        )
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.fcb3 = make(4 * width, reduction=2)
        self.down4 = conv_norm_relu(4 * width, 8 * width, 3, stride=2)
        self.fcb4 = make(8 * width, reduction=1)
        self.act4: nn.Module = nn.ReLU() if inter_block_relu else nn.Identity()
        self.fcb5 = make(8 * width, reduction=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, H, W).

        Returns:
            Detail features (B, 2b, H/8, W/8), not rectified, and deep ones (B, 8b, H/32, W/32).
        """
        x = F.relu(self.layer1(self.stem(images)))  # (B, b, H/4, W/4)
        detail = self.layer2(x)
        x = F.relu(self.layer3(F.relu(detail)))  # (B, 4b, H/16, W/16)
        x = self.down4(self.fcb3(x))
        return detail, self.fcb5(self.act4(self.fcb4(x)))


def _stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride=stride),
        BasicBlock(out_channels, out_channels, final_relu=False),
    )


def _alternative(block: Block, channels: int, *, reduction: int, drop_path: float) -> nn.Module:
    """Build a block that the paper compares FCB with. Source: its table 4."""
    if block == "resblock":
        return BasicBlock(channels, channels)
    if block == "segformer":
        return SegFormerBlock(channels, reduction=reduction, drop_path=drop_path)
    if block == "gfa":
        return GFABlock(channels, drop_path=drop_path)
    if block == "mscan":
        return MSCANBlock(channels, drop_path=drop_path)
    return CFBlock(channels, drop_path=drop_path)


# ---------------------------------------------------------------- networks
class BSDNet(nn.Module):
    """Segment street scenes with one branch of convolutions.

    Any input from 32x32 works; training with a single image needs a side above 32.

    Args:
        num_classes: Classes K.
        width: Channels b of the stem.
        context_width: Channels w of each branch of the context module.
        block: The last three blocks of the trunk.
        context: Module that gathers context at 1/32.
        gdn_norm: How FCB divides attention weights within their group.
        detail_gate: What FCB's details pass before they weigh the attention.
        ffn_residual: Shortcut inside FCB's FFN.
        inter_block_relu: ReLU between the last two blocks.
        dasp_fuse: How a branch of DASP meets the result before it.
        drop_path: Probability of dropping a branch of the last three blocks for one image in
            training. Source: SCTNet.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int,
        context_width: int,
        block: Block = "fcb",
        context: Context = "dasp_avg",
        gdn_norm: GDNNorm = "l2",
        detail_gate: Literal["none", "sigmoid"] = "none",
        ffn_residual: bool = True,
        inter_block_relu: bool = True,
        dasp_fuse: Literal["add", "concat"] = "add",
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            width,
            block=block,
            gdn_norm=gdn_norm,
            detail_gate=detail_gate,
            ffn_residual=ffn_residual,
            inter_block_relu=inter_block_relu,
            drop_path=drop_path,
        )
        self.smallest_batch = 2 if context == "dappm" else 1  # its global average is normalised
        self.context = _context(context, 8 * width, context_width, 2 * width, fuse=dasp_fuse)
        self.fuse = nn.Identity()  # a name for the joined features, which distillation reads
        self.head = _head(4 * width, num_classes)
        self.aux_head: nn.Module = _head(2 * width, num_classes)
        self.apply(_initialize)
        for head in (self.head, self.aux_head):
            _initialize_classifier(head[-1])

    def forward(self, images: Tensor) -> SemanticOutput:
        """Score the classes of every pixel of normalised images (B, 3, H, W).

        Returns:
            Logits (B, K, H/8, W/8), sizes rounded up; in training also auxiliary ones of that size.
        """
        detail, deep = self.backbone(images)  # (B, 2b, H/8, W/8), (B, 8b, H/32, W/32)
        context = F.interpolate(
            self.context(deep), size=detail.shape[-2:], mode="bilinear", align_corners=False
        )
        joined = self.fuse(torch.cat([detail, context.to(detail.dtype)], dim=1))
        aux = (self.aux_head(detail),) if self.training else ()
        return SemanticOutput(self.head(joined), aux)

    def deployable(self) -> BSDNet:
        """Return a copy for evaluation: no auxiliary head, keys and values as plain convolutions.

        Batch norms after a convolution are folded into it, the projection of each attention into
        its values, and the inner shortcut of each FFN into its depth-wise kernels. Of FCB two norms
        stay, which follow a sum, of the head the first, which follows a concatenation: 7 in all.
        """
        clone = copy.deepcopy(self).eval()
        clone.aux_head = nn.Identity()
        _fold(clone)
        return clone


class BSDNetClassifier(nn.Module):
    """Classify whole images with the trunk of `BSDNet`, to train it before segmentation.

    decision: the average over the map and one linear layer, as for any trunk of this kind; the
    paper says only that the trunk starts from ImageNet. The arguments are those of `BSDNet`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int,
        block: Block = "fcb",
        gdn_norm: GDNNorm = "l2",
        detail_gate: Literal["none", "sigmoid"] = "none",
        ffn_residual: bool = True,
        inter_block_relu: bool = True,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(
            width,
            block=block,
            gdn_norm=gdn_norm,
            detail_gate=detail_gate,
            ffn_residual=ffn_residual,
            inter_block_relu=inter_block_relu,
            drop_path=drop_path,
        )
        self.classifier = nn.Linear(8 * width, num_classes)
        self.apply(_initialize)
        _initialize_classifier(self.classifier)

    def forward(self, images: Tensor) -> ClassificationOutput:
        """Score the classes of normalised images (B, 3, H, W); logits (B, K)."""
        _, deep = self.backbone(images)
        return ClassificationOutput(self.classifier(deep.mean(dim=(2, 3))))

    def deployable(self) -> BSDNetClassifier:
        """Return a copy for evaluation, folded as `BSDNet.deployable` does."""
        clone = copy.deepcopy(self).eval()
        _fold(clone)
        return clone


def _context(
    name: Context,
    in_channels: int,
    channels: int,
    out_channels: int,
    *,
    fuse: Literal["add", "concat"],
) -> nn.Module:
    """Build the context module. Source: the paper, table 5."""
    if name == "aspp":
        return ASPP(in_channels, channels, out_channels)
    if name == "dappm":
        return DAPPM(in_channels, channels, out_channels)
    pool: Literal["avg", "max"] = "max" if name == "dasp_max" else "avg"
    return DASP(in_channels, channels, out_channels, pool=pool, fuse=fuse)


def _head(channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        *norm_relu_conv(channels, channels, 3), *norm_relu_conv(channels, num_classes, 1)
    )


def _initialize(module: nn.Module) -> None:
    """Draw convolution weights as SCTNet does; stripes and linear layers draw their own."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _initialize_classifier(layer: nn.Module) -> None:
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def _fold(model: nn.Module) -> None:
    """Fold what evaluation does not need as a layer of its own, in place."""
    for module in list(model.modules()):
        if isinstance(module, (DECAttention, FFN, CFBlock)):
            module.fold()
    fold_norms(model)


# Source: the paper, section 4.1, gives the two sizes; the widths are SCTNet's.
bsdnet_s = partial(BSDNet, width=32, context_width=64)
bsdnet_b = partial(BSDNet, width=64, context_width=128)
sctnet_s = partial(BSDNet, width=32, context_width=64, block="cfblock", context="dappm")
sctnet_b = partial(BSDNet, width=64, context_width=128, block="cfblock", context="dappm")
bsdnet_s_classifier = partial(BSDNetClassifier, width=32)
bsdnet_b_classifier = partial(BSDNetClassifier, width=64)
