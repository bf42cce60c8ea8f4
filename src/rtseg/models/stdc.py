"""STDC backbones, and their ImageNet classifiers.

Paper: "Rethinking BiSeNet For Real-time Semantic Segmentation". Built are the two trunks STDC1 and
STDC2 as BiSeNetFormer uses them, and a classifier on each to train them on ImageNet: weights go
from `backbone.` of the classifier to `backbone.` of the network as they are. b is the base width.

    image (3)
      |-- stem: two 3x3 convolutions, stride 2 each ----- 1/4    b      64
      |-- stage3: STDC blocks, the first with stride 2 -- 1/8    4b    256   2 or 4 blocks
      |-- stage4: likewise ------------------------------ 1/16   8b    512   2 or 5
      |-- stage5: likewise ------------------------------ 1/32  16b   1024   2 or 3
      +-- classifier: spatial mean, linear -------------- K

Parameters of the trunks: STDC1 5,318,304, STDC2 9,348,768; with a classifier of 1000 classes
6,343,304 and 10,373,768, which take 753,638,912 and 1,384,652,288 multiply-adds at 224x224.

Deviations from the paper and silent points:
- The classifier is the spatial mean and one linear layer (decision: nothing that is thrown away
  later should do the learning). The paper has a 1x1 convolution and two linear layers behind the
  trunk, which are not part of a segmentation network.
- Average pooling in strided blocks counts padded zeros, as the public code does.
- Convolutions start Kaiming-normal over the outputs (fan-out), as in the public code.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from rtseg.nn.conv import ConvNormAct
from rtseg.nn.fuse import fuse_batch_norms, fuse_conv_norm
from rtseg.structures import ClassificationOutput

EPS = 1e-5
"""Added to the variance by the batch norms."""
STDC1_DEPTHS = (2, 2, 2)
STDC2_DEPTHS = (4, 5, 3)
"""Blocks at 1/8, 1/16 and 1/32. Source: the paper, table 2."""


class STDCBlock(nn.Module):
    """Concatenate features of growing receptive field and shrinking width. Source: figure 3.

    Args:
        in_channels: Channels in.
        out_channels: Channels out, a multiple of 8.
        stride: 1 or 2; at 2 a depth-wise convolution and an average pool halve the size.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = (out_channels // share for share in (2, 4, 8))
        self.reduce = ConvNormAct(in_channels, half, 1, activation="relu", eps=EPS)
        self.down: nn.Module = StridedDepthwise(half) if stride == 2 else nn.Identity()
        self.pool: nn.Module = (
            nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else nn.Identity()
        )
        self.conv2 = ConvNormAct(half, quarter, 3, activation="relu", eps=EPS)
        self.conv3 = ConvNormAct(quarter, eighth, 3, activation="relu", eps=EPS)
        self.conv4 = ConvNormAct(eighth, eighth, 3, activation="relu", eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride), rounded up."""
        narrow = self.reduce(x)
        second = self.conv2(self.down(narrow))
        third = self.conv3(second)
        fourth = self.conv4(third)
        # Should autocast widen the pooled features, the whole concatenation would follow.
        first = self.pool(narrow).to(fourth.dtype)
        return torch.cat([first, second, third, fourth], dim=1)


class StridedDepthwise(nn.Module):
    """Halve the size with a depth-wise 3x3 convolution and normalise, without activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride=2, padding=1, groups=channels, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2, W / 2), rounded up."""
        result: Tensor = self.norm(self.conv(x))
        return result


class STDC(nn.Module):
    """The trunk: features at 1/8, 1/16 and 1/32.

    Args:
        depths: Blocks of the three stages.
        base_width: Channels at 1/4; the stages have 4, 8 and 16 times as many.
    """

    def __init__(self, *, depths: tuple[int, int, int], base_width: int = 64) -> None:
        super().__init__()
        if base_width < 2 or base_width % 2:
            raise ValueError(f"base_width is {base_width}; it must be even and at least 2")
        self.channels = (4 * base_width, 8 * base_width, 16 * base_width)
        self.stem = nn.Sequential(
            ConvNormAct(3, base_width // 2, 3, stride=2, activation="relu", eps=EPS),
            ConvNormAct(base_width // 2, base_width, 3, stride=2, activation="relu", eps=EPS),
        )
        self.stage3 = _stage(base_width, self.channels[0], depth=depths[0])
        self.stage4 = _stage(self.channels[0], self.channels[1], depth=depths[1])
        self.stage5 = _stage(self.channels[1], self.channels[2], depth=depths[2])
        self.apply(_initialize)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images (B, 3, H, W).

        Returns:
            Features (B, 4b, H/8, W/8), (B, 8b, H/16, W/16), (B, 16b, H/32, W/32).
        """
        eighth = self.stage3(self.stem(images))
        sixteenth = self.stage4(eighth)
        return eighth, sixteenth, self.stage5(sixteenth)

    def fuse(self) -> None:
        """Fold every batch norm into the convolution before it, in place."""
        fuse_batch_norms(self)
        for block in self.modules():
            if isinstance(block, StridedDepthwise) and isinstance(block.norm, nn.BatchNorm2d):
                block.conv = fuse_conv_norm(block.conv, block.norm)
                block.norm = nn.Identity()


def _stage(in_channels: int, out_channels: int, *, depth: int) -> nn.Sequential:
    first = STDCBlock(in_channels, out_channels, stride=2)
    others = (STDCBlock(out_channels, out_channels, stride=1) for _ in range(depth - 1))
    return nn.Sequential(first, *others)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class STDCClassifier(nn.Module):
    """Classify whole images with an STDC trunk, to train it on ImageNet.

    Args:
        num_classes: Classes K.
        depths: Blocks of the three stages.
        base_width: Channels at 1/4.
    """

    def __init__(
        self, num_classes: int, *, depths: tuple[int, int, int], base_width: int = 64
    ) -> None:
        super().__init__()
        self.backbone = STDC(depths=depths, base_width=base_width)
        self.classifier = nn.Linear(self.backbone.channels[-1], num_classes)

    def forward(self, images: Tensor) -> ClassificationOutput:
        """Score the classes of normalised images (B, 3, H, W): logits (B, K)."""
        features = self.backbone(images)[-1]
        return ClassificationOutput(self.classifier(features.mean(dim=(2, 3))))

    def deployable(self) -> STDCClassifier:
        """Return a copy for evaluation with all batch norms folded into convolutions."""
        clone = copy.deepcopy(self).eval()
        clone.backbone.fuse()
        return clone


stdc1_classifier = partial(STDCClassifier, depths=STDC1_DEPTHS)
stdc2_classifier = partial(STDCClassifier, depths=STDC2_DEPTHS)
