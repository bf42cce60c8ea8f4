"""BiSeNetFormer: a two-path network whose queries each predict a class and a mask.

Paper: "The revenge of BiSeNet: Efficient Multi-Task Image Segmentation". Built is the network with
the backbones STDC1, STDC2 (`stdc.py`) and ResNet-50, every row of its tables, and the medium size
that its authors publish. Semantic, panoptic and instance segmentation use it unchanged: targets
and post-processing make the difference. C = 128 channels, D = 256 per query, N = 100 queries.

    image (3)                             STDC2   ResNet-50
      |-- backbone, spatial path -- 1/8     256         512  --------------------------+
      |   backbone ---------------- 1/16    512        1024  --+                       |
      |   backbone ---------------- 1/32   1024        2048    |                       |
      |-- ARM + global mean ------- 1/32      C  level 0       |                       |
      |-- up, 3x3, + ARM ---------- 1/16      C  level 1 <-----+                       |
      |-- up, 3x3 ----------------- 1/8       C  level 2 (not read by default)         |
      |-- FFM, 3x3 ---------------- 1/8       C  mask features <-----------------------+
      |
      |-- queries (N, D) -- 6 x [masked cross-attention to level 0, 1, 0, 1, ...
      |                          self-attention, feed-forward]
      +-- heads: classes (N, K + 1); masks (N, 1/8) = embedding (N, C) x mask features

Parameters with 19 and 150 classes, and multiply-adds of convolutions and matrix products with 19
classes in training (seven predictions); evaluation needs fewer, see below:

                            19          150          512x512        1024x2048
    bisenetformer_stdc1     13,100,340  13,134,007    7,657,361,408   56,361,226,240
    bisenetformer_stdc2     17,130,804  17,164,471   10,954,084,352   82,735,009,792
    bisenetformer_r50       31,650,516  31,684,183   25,313,546,240  197,609,787,392
    stdc2-m                 13,503,124  13,536,791
    stdc1, base_width 32     8,935,908   8,969,575

stdc2-m is `feature_dim=96, ffn_dim=512, decoder_layers=4` on STDC2, a size of the authors' code.
The paper prints 13.1, 17.1 and 31.7 M, and counts multiply-adds by a tool that also counts norms
and resizes.

In evaluation the masks that steer the attention are computed at the size of its level, from mask
features resized once: resizing is linear, so they are the same. Only the last prediction is made.

Where the paper contradicts itself:
- PQ is a mean over classes, so with 8 things and 11 stuff classes 48.6 and 66.0 (STDC2) give 58.7,
  not 57.3, and 52.2 and 62.4 (ResNet-50) give 58.1, not 57.5 (57.3 in the text).
- Table 6 has 33.8 frames per second and 33.8 ms in one row; 33.8 ms are 29.6 frames per second.
- The class loss is called binary cross-entropy, but equation 7 is a softmax (see the task).
- Equation 9 is a 3x3 convolution over the concatenation; the printed counts exclude it.

Deviations from the paper and silent points:
- Fusion: two 1x1 projections are added, mixed by 1x1, gated, and refined by 3x3. Only this fits all
  printed counts, and it is the authors' code; `ffm` has the paper's 3x3 and a 1x1 instead.
- A 1x1 convolution narrows the input of each ARM, and a 3x3 one follows each up-sampling, as in the
  authors' code. Up-sampling is bilinear, corners not aligned.
- The global mean passes a 1x1 convolution (equation 1 could not add it to C channels otherwise).
- "3 stages with two blocks each" are 6 layers that take the levels in turn, coarse first.
- Norms come before each part of a decoder layer, as in the authors' code; Mask2Former, which the
  paper follows, has them behind (`pre_norm=False`). There is no level embedding.
- Positional codes are added to keys and queries, not to values, and are computed when needed.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

from rtseg.models.stdc import EPS, STDC, STDC1_DEPTHS, STDC2_DEPTHS
from rtseg.nn.conv import ConvNormAct
from rtseg.nn.fuse import fuse_batch_norms, fuse_conv_norm
from rtseg.structures import MaskOutput

QUERY_DIM = 256
HEADS = 8
"""Width of a query and heads of its attention. Source: the paper, section 4.1."""
AttentionForm = Literal["matmul", "sdpa"]


def _block(in_channels: int, out_channels: int, kernel_size: int) -> ConvNormAct:
    return ConvNormAct(in_channels, out_channels, kernel_size, activation="relu", eps=EPS)


def resize(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly to (H, W); corners are not aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False).to(x.dtype)


def _spatial_mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


# ---------------------------------------------------------------- backbone
class ResNet50(nn.Module):
    """The trunk of torchvision's ResNet-50; its weights fit under the same names."""

    channels = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        whole = resnet50(weights=None)
        self.conv1, self.bn1 = whole.conv1, whole.bn1
        self.relu, self.maxpool = whole.relu, whole.maxpool
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images (B, 3, H, W) into features of 512, 1024, 2048 channels at 1/8 to 1/32."""
        quarter = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        eighth = self.layer2(self.layer1(quarter))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)

    def fuse(self) -> None:
        """Fold every batch norm into the convolution before it, in place."""
        self.conv1, self.bn1 = fuse_conv_norm(self.conv1, self.bn1), nn.Identity()
        for block in self.modules():
            if not isinstance(block, Bottleneck):
                continue
            for index in ("1", "2", "3"):
                conv, norm = getattr(block, f"conv{index}"), getattr(block, f"bn{index}")
                setattr(block, f"conv{index}", fuse_conv_norm(conv, norm))
                setattr(block, f"bn{index}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_norm(*block.downsample), nn.Identity())


def _backbone(name: Literal["stdc1", "stdc2", "r50"], base_width: int) -> STDC | ResNet50:
    if name != "r50":
        depths = STDC1_DEPTHS if name == "stdc1" else STDC2_DEPTHS
        return STDC(depths=depths, base_width=base_width)
    if base_width != 64:
        raise ValueError(f"base_width is {base_width}, but only STDC backbones have other widths")
    return ResNet50()


# ---------------------------------------------------------------- context path
class ARM(nn.Module):
    """Narrow features and weigh their channels (attention refinement). Source: BiSeNet, fig. 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv = _block(out_channels, out_channels, 3)
        self.gate = ConvNormAct(out_channels, out_channels, 1, activation="none", eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        features = self.conv(self.reduce(x))
        weights = torch.sigmoid(self.gate(_spatial_mean(features)))
        weighted: Tensor = features * weights
        return weighted


class ContextPath(nn.Module):
    """Carry context from 1/32 to 1/8. Source: the paper, equations 1 to 3."""

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.arm32 = ARM(channels[2], width)
        self.mean32 = _block(channels[2], width, 1)
        self.up32 = _block(width, width, 3)
        self.arm16 = ARM(channels[1], width)
        self.up16 = _block(width, width, 3)

    def forward(self, eighth: Tensor, sixteenth: Tensor, last: Tensor) -> list[Tensor]:
        """Read the backbone's features at 1/8 (for its size only), 1/16 and 1/32.

        Returns:
            F1 at 1/32, F2 at 1/16 and F3 at 1/8, each with `width` channels.
        """
        f1 = self.arm32(last) + self.mean32(_spatial_mean(last))
        f2 = self.arm16(sixteenth) + self.up32(resize(f1, sixteenth.shape[-2:]))
        f3 = self.up16(resize(f2, eighth.shape[-2:]))
        return [f1, f2, f3]


# ---------------------------------------------------------------- fusion
class SumMerge(nn.Module):
    """Project both inputs to one width, add them, mix, normalise, activate."""

    def __init__(self, spatial: int, width: int) -> None:
        super().__init__()
        self.project_spatial = nn.Conv2d(spatial, width, 1)
        self.project_context = nn.Conv2d(width, width, 1)
        self.mix = _block(width, width, 1)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Merge (B, S, H, W) and (B, C, H, W) into (B, C, H, W)."""
        merged: Tensor = self.mix(self.project_spatial(spatial) + self.project_context(context))
        return merged

    @torch.no_grad()
    def fused(self) -> ConcatMerge:
        """Return one 1x1 convolution on the concatenation that equals this in evaluation."""
        first, second = self.project_spatial, self.project_context
        assert first.bias is not None
        assert second.bias is not None
        assert isinstance(self.mix.norm, nn.BatchNorm2d)
        mix = fuse_conv_norm(self.mix.conv, self.mix.norm)
        assert mix.bias is not None
        matrix = mix.weight[:, :, 0, 0].double()
        inner = torch.cat([first.weight, second.weight], dim=1)[:, :, 0, 0].double()
        bias = matrix @ (first.bias + second.bias).double() + mix.bias.double()
        merge = ConcatMerge(first.in_channels, first.out_channels, kernel_size=1)
        merge.conv.conv = nn.Conv2d(inner.shape[1], inner.shape[0], 1)
        merge.conv.conv.weight.copy_((matrix @ inner)[:, :, None, None])
        merge.conv.conv.bias.copy_(bias)  # type: ignore[union-attr]
        merge.conv.norm = nn.Identity()
        return merge.to(mix.weight)


class ConcatMerge(nn.Module):
    """Concatenate both inputs, convolve, normalise, activate."""

    def __init__(self, spatial: int, width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.conv = _block(spatial + width, width, kernel_size)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Merge (B, S, H, W) and (B, C, H, W) into (B, C, H, W)."""
        merged: Tensor = self.conv(torch.cat([spatial, context], dim=1))
        return merged


class FFM(nn.Module):
    """Fuse the spatial and the context path into mask features. Source: equations 8 to 11.

    Args:
        spatial: Channels of the spatial path.
        width: Channels of the context path and of the result.
        form: `proj` adds two 1x1 projections; `concat1` has a 1x1 convolution over the
            concatenation; `concat3` the paper's 3x3 one, and no convolution behind the gate.
    """

    def __init__(
        self, spatial: int, width: int, *, form: Literal["proj", "concat1", "concat3"]
    ) -> None:
        super().__init__()
        self.merge: nn.Module = (
            SumMerge(spatial, width)
            if form == "proj"
            else ConcatMerge(spatial, width, kernel_size=int(form[-1]))
        )
        self.squeeze = nn.Conv2d(width, width // 4, 1, bias=False)
        self.excite = nn.Conv2d(width // 4, width, 1, bias=False)
        self.refine: nn.Module = nn.Identity() if form == "concat3" else _block(width, width, 3)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Fuse (B, S, H/8, W/8) and (B, C, H/8, W/8) into (B, C, H/8, W/8)."""
        merged = self.merge(spatial, context)
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(_spatial_mean(merged)))))
        features: Tensor = self.refine(merged * weights + merged)
        return features


# ---------------------------------------------------------------- decoder
def position_code(height: int, width: int, *, like: Tensor) -> Tensor:
    """Return sine codes (height * width, D) of every pixel's row, then of its column.

    Computed in float32, returned in type and on device of `like`. Source: Mask2Former.
    """
    half = QUERY_DIM // 2
    step = torch.arange(half, device=like.device)
    period = 10000 ** (2 * (step // 2) / half)
    parts = []
    for length in (height, width):
        place = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        angle = place[:, None] / (place[-1] + 1e-6) * (2 * math.pi) / period
        parts.append(torch.where(step % 2 == 0, angle.sin(), angle.cos()))
    rows, columns = parts
    rows = rows[:, None].expand(height, width, half)
    columns = columns[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).flatten(0, 1).to(like.dtype)


def attention_bias(mask_logits: Tensor) -> Tensor:
    """Return what masked attention adds to its scores: -inf where a query may not look, else 0.

    A query looks where its mask's logit is at least 0; one that could look nowhere looks
    everywhere, without which its softmax would not be a number.

    Args:
        mask_logits: (B, N, S); no gradient flows into them.

    Returns:
        (B, 1, N, S), the same for all heads.
    """
    blocked = mask_logits < 0  # a comparison has no gradient
    blocked = blocked & ~blocked.all(dim=-1, keepdim=True)
    zero = torch.zeros((), dtype=mask_logits.dtype, device=mask_logits.device)
    return torch.where(blocked, zero - math.inf, zero)[:, None]


class Attention(nn.Module):
    """Attend with 8 heads; parameters are named and packed as those of `nn.MultiheadAttention`.

    Args:
        form: Plain matrix products, which every export format holds, or torch's fused kernel.
    """

    def __init__(self, *, form: AttentionForm) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * QUERY_DIM, QUERY_DIM))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * QUERY_DIM))
        self.out_proj = nn.Linear(QUERY_DIM, QUERY_DIM)
        self.form = form
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Attend from (B or 1, N, D) to keys and values (B or 1, S, D); return (B, N, D).

        Args: `bias` (B, 1, N, S) is added to the scores.
        """
        weights, offsets = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, offset)
            for x, weight, offset in zip((query, key, value), weights, offsets, strict=True)
        )
        return self.attend(q, k, v, bias)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Do what `forward` does with inputs that are projected already."""
        q, k, v = (
            x.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for x in (query, key, value)
        )  # (B, heads, N or S, D / heads)
        if self.form == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)  # (B, heads, N, S)
            if bias is not None:
                scores = scores + bias
            mixed = scores.softmax(dim=-1).to(v.dtype) @ v
        result: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return result


class DecoderLayer(nn.Module):
    """Let queries look at the image, at each other, and think. Source: equations 4 to 6.

    Args:
        ffn_dim: Width of the feed-forward network.
        pre_norm: Normalise before each part, else after it.
        attention: Form of both attentions.
    """

    def __init__(self, ffn_dim: int, *, pre_norm: bool, attention: AttentionForm) -> None:
        super().__init__()
        self.cross = Attention(form=attention)
        self.self_attention = Attention(form=attention)
        self.expand = nn.Linear(QUERY_DIM, ffn_dim)
        self.shrink = nn.Linear(ffn_dim, QUERY_DIM)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(QUERY_DIM) for _ in range(3))
        self.pre_norm = pre_norm
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.xavier_uniform_(self.shrink.weight)

    def forward(
        self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Refine queries (B or 1, N, D) with their positions (N, D) by a level (B, S, D)."""
        if self.pre_norm:
            x = x + self.cross(self.norm1(x) + position, key, value, bias)
            x = x + self._among(self.norm2(x), position)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(x + self.cross(x + position, key, value, bias))
        x = self.norm2(x + self._among(x, position))
        refined: Tensor = self.norm3(x + self._feed_forward(x))
        return refined

    def _among(self, x: Tensor, position: Tensor) -> Tensor:
        mixed: Tensor = self.self_attention(x + position, x + position, x)
        return mixed

    def _feed_forward(self, x: Tensor) -> Tensor:
        thought: Tensor = self.shrink(F.relu(self.expand(x)))
        return thought


class Heads(nn.Module):
    """Predict class and mask of every query; all layers share them. Source: equations 7 and 12."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(QUERY_DIM)
        self.classes = nn.Linear(QUERY_DIM, num_classes + 1)
        self.embed = nn.Sequential(
            nn.Linear(QUERY_DIM, QUERY_DIM),
            nn.ReLU(),
            nn.Linear(QUERY_DIM, QUERY_DIM),
            nn.ReLU(),
            nn.Linear(QUERY_DIM, width),
        )

    def forward(self, x: Tensor, features: Tensor) -> MaskOutput:
        """Predict from queries (B or 1, N, D) and mask features (B, C, h, w).

        Returns:
            Class logits (B, N, K + 1) and mask logits (B, N, h, w).
        """
        classes = self.classes(self.norm(x))
        classes = classes.expand(features.shape[0], *classes.shape[1:])
        return MaskOutput(classes, self.masks(x, features))

    def masks(self, x: Tensor, features: Tensor) -> Tensor:
        """Return mask logits (B, N, h, w) alone."""
        product: Tensor = self.embed(self.norm(x)) @ features.flatten(2)
        return product.view(*product.shape[:2], *features.shape[-2:])


class Decoder(nn.Module):
    """Refine learned queries with the levels of the context path, and predict.

    Args: as of `BiSeNetFormer`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        queries: int,
        width: int,
        levels: int,
        layers: int,
        ffn_dim: int,
        masked_attention: bool,
        pre_norm: bool,
        attention: AttentionForm,
    ) -> None:
        super().__init__()
        self.q_feat = nn.Parameter(torch.randn(queries, QUERY_DIM))
        self.q_pos = nn.Parameter(torch.randn(queries, QUERY_DIM))
        self.project = nn.ModuleList(nn.Conv2d(width, QUERY_DIM, 1) for _ in range(levels))
        self.layers = nn.ModuleList(
            DecoderLayer(ffn_dim, pre_norm=pre_norm, attention=attention) for _ in range(layers)
        )
        self.heads = Heads(num_classes, width)
        self.masked_attention = masked_attention
        for conv in self.project:
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_uniform_(conv.weight, a=1)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, context: list[Tensor], features: Tensor) -> MaskOutput:
        """Read F1, F2, F3 (B, C, ., .) and mask features (B, C, h, w)."""
        levels = [project(f) for project, f in zip(self.project, context, strict=False)]
        sizes = [level.shape[-2:] for level in levels]
        values = [level.flatten(2).transpose(1, 2) for level in levels]  # (B, S, D)
        keys = [v + position_code(*size, like=v) for v, size in zip(values, sizes, strict=True)]
        # Until the first attention nothing depends on the image: one row serves the whole batch,
        # and an engine computes it once.
        x = self.q_feat[None]
        earlier: list[MaskOutput] = []
        small = None if self.training else [resize(features, size) for size in sizes]
        for index, layer in enumerate(self.layers):
            level = index % len(levels)
            bias = None
            if small is None:
                earlier.append(self.heads(x, features))
                masks = resize(earlier[-1].mask_logits, sizes[level])
                bias = attention_bias(masks.flatten(2)) if self.masked_attention else None
            elif self.masked_attention:
                bias = attention_bias(self.heads.masks(x, small[level]).flatten(2))
            x = layer(x, self.q_pos, keys[level], values[level], bias)
        last = self.heads(x, features)
        return MaskOutput(last.class_logits, last.mask_logits, tuple(earlier))


# ---------------------------------------------------------------- model
class BiSeNetFormer(nn.Module):
    """Segment by mask classification. Source: the paper, figure 2.

    Any input from 32x32 works. In training every process needs two images or more, because batch
    norms see maps of one pixel.

    Args:
        num_classes: Classes K, "no object" not counted.
        backbone: Trunk of the spatial and the context path.
        base_width: Channels of an STDC trunk at 1/4.
        queries: Learned queries N.
        feature_dim: Channels C of context path and mask features.
        ffn_dim: Width of the feed-forward networks of the decoder.
        decoder_levels: Levels that the decoder reads: 1/32 and 1/16, or 1/8 as well.
        decoder_layers: Layers; they take the levels in turn.
        ffm: Fusion of the two paths, see `FFM`.
        masked_attention: Let each query look only where its mask is.
        pre_norm: Normalise before each part of a layer, else after it.
        attention: Form of the attention, see `Attention`.
    """

    smallest_batch = 2
    """Images that the batch norms need at once in training."""

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Literal["stdc1", "stdc2", "r50"],
        base_width: int = 64,
        queries: int = 100,
        feature_dim: int = 128,
        ffn_dim: int = 1024,
        decoder_levels: Literal[2, 3] = 2,
        decoder_layers: int = 6,
        ffm: Literal["proj", "concat1", "concat3"] = "proj",
        masked_attention: bool = True,
        pre_norm: bool = True,
        attention: AttentionForm = "matmul",
    ) -> None:
        super().__init__()
        if decoder_layers < decoder_levels:
            raise ValueError(f"{decoder_layers} layers cannot read {decoder_levels} levels")
        self.backbone = _backbone(backbone, base_width)
        channels = self.backbone.channels
        self.context = ContextPath(channels, feature_dim)
        self.ffm = FFM(channels[0], feature_dim, form=ffm)
        self.context.apply(_initialize)
        self.ffm.apply(_initialize)
        self.decoder = Decoder(
            num_classes,
            queries=queries,
            width=feature_dim,
            levels=decoder_levels,
            layers=decoder_layers,
            ffn_dim=ffn_dim,
            masked_attention=masked_attention,
            pre_norm=pre_norm,
            attention=attention,
        )

    def forward(self, images: Tensor) -> MaskOutput:
        """Predict classes and masks from normalised images (B, 3, H, W).

        Returns:
            Class logits (B, N, K + 1) and mask logits (B, N, H/8, W/8), sizes rounded up. In
            training `aux` holds the predictions before each layer of the decoder.
        """
        eighth, sixteenth, last = self.backbone(images)
        context = self.context(eighth, sixteenth, last)
        features = self.ffm(eighth, context[-1])  # (B, C, H/8, W/8)
        output: MaskOutput = self.decoder(context, features)
        return output

    def deployable(self) -> BiSeNetFormer:
        """Return the same function for evaluation: norms folded, the decoder rebuilt; see there."""
        from rtseg.models.bisenetformer_deploy import DeployedDecoder

        clone = self.folded()
        clone.decoder = DeployedDecoder(clone.decoder)  # type: ignore[assignment]
        return clone

    def folded(self) -> BiSeNetFormer:
        """Return a copy for evaluation with batch norms folded and the fusion as one 1x1."""
        clone = copy.deepcopy(self).eval()
        clone.backbone.fuse()
        if isinstance(clone.ffm.merge, SumMerge):
            clone.ffm.merge = clone.ffm.merge.fused()
        fuse_batch_norms(clone)
        return clone


def _initialize(module: nn.Module) -> None:
    """Draw convolutions as the public code of STDC does (decision; the authors keep torch's)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


bisenetformer_stdc1 = partial(BiSeNetFormer, backbone="stdc1")
bisenetformer_stdc2 = partial(BiSeNetFormer, backbone="stdc2")
bisenetformer_r50 = partial(BiSeNetFormer, backbone="r50")
