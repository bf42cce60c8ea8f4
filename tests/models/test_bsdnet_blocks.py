"""The blocks that BSDNet shares with its ancestors, and those it is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.models.bsdnet_blocks import (
    ASPP,
    DAPPM,
    CFBlock,
    DropPath,
    GFABlock,
    MSCANBlock,
    SegFormerBlock,
    StripeAttention,
    conv_norm_relu,
    fold_norms,
    grouped_double_norm,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def stripes(channels: int = 5, *, norm: Any = "l2") -> StripeAttention:
    attention = StripeAttention(channels, norm=norm)
    attention.horizontal.data.normal_(std=0.3)
    attention.vertical.data.normal_(std=0.3)
    return attention


def settled(model: nn.Module) -> Any:
    """Give batch norms random statistics and factors; evaluation mode."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.uniform_(-0.5, 0.5)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2.0)
    return model.eval()


# ---------------------------------------------------------------- grouped double norm
@pytest.mark.parametrize(("norm", "expected"), [("l2", 0.353553), ("l1", 0.125)])
def test_equal_scores_share_their_group(norm: Any, expected: float) -> None:
    weights = grouped_double_norm(torch.full((1, 64, 3, 5), 2.0), norm=norm)
    assert torch.allclose(weights, torch.full_like(weights, expected), atol=1e-6)


def test_two_rows_of_two_pixels_are_worked_out_by_hand() -> None:
    scores = torch.zeros(1, 16, 1, 2)  # groups of 2 rows
    scores[0, 0, 0, 0] = math.log(3)
    # Row 0: softmax 3/4 and 1/4, times 2 pixels: 1.5 and 0.5; row 1 of the group: 1 and 1.
    l2 = grouped_double_norm(scores, norm="l2")
    torch.testing.assert_close(
        l2[0, :2, 0],
        torch.tensor([[1.5 / 3.25**0.5, 0.5 / 1.25**0.5], [1 / 3.25**0.5, 1 / 1.25**0.5]]),
    )
    l1 = grouped_double_norm(scores, norm="l1")
    torch.testing.assert_close(l1[0, :2, 0], torch.tensor([[0.6, 1 / 3], [0.4, 2 / 3]]))


def test_each_group_has_norm_one_and_shifts_change_nothing() -> None:
    scores = torch.randn(2, 64, 6, 7)
    weights = grouped_double_norm(scores, norm="l2")
    lengths = weights.view(2, 8, 8, 6, 7).square().sum(2).sqrt()
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    sums = grouped_double_norm(scores, norm="l1").view(2, 8, 8, 6, 7).sum(2)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
    shifted = grouped_double_norm(scores + torch.randn(1, 64, 1, 1), norm="l2")
    assert torch.allclose(shifted, weights, atol=1e-6)


def test_half_precision_does_not_underflow_on_a_large_map() -> None:
    scores = torch.randn(1, 64, 64, 128).half()
    weights = grouped_double_norm(scores, norm="l2")
    assert weights.dtype == torch.float16
    assert torch.equal(weights, grouped_double_norm(scores.float(), norm="l2").half())
    assert weights.isfinite().all()
    lengths = weights.float().view(1, 8, 8, 64, 128).square().sum(2).sqrt()
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=2e-3)


# ---------------------------------------------------------------- stripe attention
def test_stripe_attention_equals_a_slow_version() -> None:
    attention, x = stripes(), torch.randn(1, 5, 6, 9)

    def windows(x: Tensor) -> Tensor:
        padded, width = F.pad(x, (3, 3)), x.shape[-1]
        return torch.stack([padded[..., tap : tap + width] for tap in range(7)], dim=-1)

    def along_rows(x: Tensor, kernels: Tensor) -> Tensor:
        scores = torch.einsum("bchwt,nct->bnhw", windows(x), kernels)
        weights = grouped_double_norm(scores, norm="l2")
        return torch.einsum("bnhwt,nct->bchw", windows(weights), kernels)

    rows = along_rows(x, attention.horizontal[:, :, 0])
    columns = along_rows(x.transpose(2, 3), attention.vertical[..., 0]).transpose(2, 3)
    torch.testing.assert_close(attention(x), rows + columns)


def test_transposing_image_and_kernels_transposes_the_result() -> None:
    attention, twin, x = stripes(), stripes(), torch.randn(2, 5, 8, 11)
    twin.horizontal.data = attention.vertical.data.transpose(2, 3).contiguous()
    twin.vertical.data = attention.horizontal.data.transpose(2, 3).contiguous()
    expected = attention(x).transpose(2, 3)
    torch.testing.assert_close(twin(x.transpose(2, 3)), expected, rtol=0, atol=1e-5)


def test_mirroring_image_and_rows_mirrors_the_result() -> None:
    attention, twin, x = stripes(), stripes(), torch.randn(2, 5, 8, 11)
    twin.horizontal.data = attention.horizontal.data.flip(-1)
    twin.vertical.data = attention.vertical.data.clone()
    torch.testing.assert_close(twin(x.flip(-1)), attention(x).flip(-1), rtol=0, atol=1e-5)


def test_the_two_directions_are_independent() -> None:
    attention, x = stripes(), torch.randn(1, 5, 8, 9)
    before = attention.along(x, attention.vertical)
    whole = attention(x)
    attention.horizontal.data.normal_()
    assert torch.equal(attention.along(x, attention.vertical), before)
    assert not torch.allclose(attention(x), whole)


def test_folded_attention_without_projection_has_no_bias() -> None:
    attention, x = stripes(norm="l1"), torch.randn(1, 5, 8, 9)
    folded = attention.fold()
    assert [name for name, _ in folded.named_parameters() if name.endswith("bias")] == []
    torch.testing.assert_close(folded(x), attention(x))


# ---------------------------------------------------------------- small parts
def test_dropped_paths_are_whole_images_and_the_rest_is_scaled() -> None:
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 1, 3)
    ratio = drop.train()(x)
    assert (ratio == ratio[:, :1, :, :1]).all()
    assert ratio.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (ratio[:, 0, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drop.eval()(x), x)


def test_only_norms_right_after_a_convolution_are_folded() -> None:
    model = settled(nn.Sequential(nn.BatchNorm2d(3), conv_norm_relu(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(1, 3, 6, 7)
    expected = model(x)
    fold_norms(model)
    assert [type(m).__name__ for m in model] == ["BatchNorm2d", "Sequential", "BatchNorm2d"]
    assert [type(m).__name__ for m in model[1]] == ["Conv2d", "Identity", "ReLU"]
    torch.testing.assert_close(model(x), expected)


# ---------------------------------------------------------------- alternatives to FCB
def test_cfblock_follows_its_description() -> None:
    block = settled(CFBlock(8, drop_path=0.5))
    block.attention.horizontal.data.normal_(std=0.3)
    assert block.attention.norm == "l1"
    assert (block.norm.eps, block.local[0].eps) == (1e-5, 1e-6)
    x = torch.randn(2, 8, 6, 7)
    middle = x + block.attention(block.norm(x))
    norm, first, _, second = block.local
    hidden = F.gelu(F.conv2d(norm(middle), first.weight, first.bias, padding=1))
    expected = middle + F.conv2d(hidden, second.weight, second.bias, padding=1)
    torch.testing.assert_close(block(x), expected)


def test_gfa_attends_with_as_many_keys_as_channels() -> None:
    block = settled(GFABlock(16, drop_path=0.5))
    x = torch.randn(2, 16, 5, 6)
    scores = torch.einsum("nc,bchw->bnhw", block.keys.weight[:, :, 0, 0], block.norm(x))
    weights = grouped_double_norm(scores, norm="l1")
    middle = x + torch.einsum("cn,bnhw->bchw", block.values.weight[:, :, 0, 0], weights)
    torch.testing.assert_close(block(x), middle + block.local(middle))


def test_mscan_follows_its_description() -> None:
    block = settled(MSCANBlock(6, drop_path=0.5))
    assert (block.attention_scale == 0.01).all()
    assert (block.ffn_scale == 0.01).all()
    block.attention_scale.data.uniform_(0.5, 1.0)
    block.ffn_scale.data.uniform_(0.5, 1.0)
    x = torch.randn(1, 6, 24, 25)

    def conv(m: Any, x: Tensor) -> Tensor:
        padding = tuple(side // 2 for side in m.weight.shape[2:])
        groups = x.shape[1] if m.weight.shape[1] == 1 else 1
        return F.conv2d(x, m.weight, m.bias, padding=padding, groups=groups)

    y = block.norm(x)
    u = F.gelu(conv(block.embed[0], y))
    d = conv(block.local, u)
    total = d
    for pair, taps in zip(block.stripes, (7, 11, 21), strict=True):
        assert [m.weight.shape[2:] for m in pair] == [(1, taps), (taps, 1)]
        total = total + conv(pair[1], conv(pair[0], d))
    attended = conv(block.project, conv(block.mix, total) * u) + y
    middle = x + block.attention_scale * attended
    norm, widen, local, _, narrow = block.ffn
    hidden = F.gelu(conv(local, conv(widen, norm(middle))))
    torch.testing.assert_close(block(x), middle + block.ffn_scale * conv(narrow, hidden))


@pytest.mark.parametrize("reduction", [1, 2])
def test_segformer_block_equals_the_attention_of_torch(reduction: int) -> None:
    block = SegFormerBlock(128, reduction=reduction, drop_path=0.5).eval()
    assert {m.eps for m in block.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    x = torch.randn(2, 128, 4, 6)
    tokens = block.norm1(x.flatten(2).transpose(1, 2))
    small = tokens
    if reduction == 2:
        map_ = tokens.transpose(1, 2).reshape(2, 128, 4, 6)
        small = F.conv2d(map_, block.reduce.weight, block.reduce.bias, stride=2)
        assert small.shape[-2:] == (2, 3)
        small = block.reduce_norm(small.flatten(2).transpose(1, 2))
    heads = nn.MultiheadAttention(128, 2, batch_first=True)
    heads.in_proj_weight.data = torch.cat([block.query.weight, block.key_value.weight])
    heads.in_proj_bias.data = torch.cat([block.query.bias, block.key_value.bias])
    heads.out_proj.load_state_dict(block.out.state_dict())
    attended = heads(tokens, small, small, need_weights=False)[0]
    middle = x + attended.transpose(1, 2).reshape(2, 128, 4, 6)
    hidden = block.widen(block.norm2(middle.flatten(2).transpose(1, 2)))
    hidden = hidden.transpose(1, 2).reshape(2, 512, 4, 6)
    hidden = F.conv2d(hidden, block.local.weight, block.local.bias, padding=1, groups=512)
    out = block.narrow(F.gelu(hidden).flatten(2).transpose(1, 2))
    expected = middle + out.transpose(1, 2).reshape(2, 128, 4, 6)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- alternatives to DASP
def test_aspp_joins_five_branches() -> None:
    block = settled(ASPP(6, 4, 5))
    x = torch.randn(2, 6, 20, 21)
    features = []
    for branch, dilation in zip(block.branches, (1, 6, 12, 18), strict=True):
        conv, norm, _ = branch
        padding = 0 if conv.weight.shape[-1] == 1 else dilation
        y = F.conv2d(x, conv.weight, conv.bias, padding=padding, dilation=dilation)
        features.append(norm(y).relu())
    pooled = block.pooled[0](F.adaptive_avg_pool2d(x, 1)).relu()
    features.append(F.interpolate(pooled, size=(20, 21)))
    torch.testing.assert_close(block(x), block.compress(torch.cat(features, dim=1)))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 21)])
def test_dappm_pools_at_growing_sizes(size: tuple[int, int]) -> None:
    block = settled(DAPPM(6, 4, 5))
    x = torch.randn(2, 6, *size)

    def unit(m: Any, x: Tensor) -> Tensor:
        norm, _, conv = m
        return F.conv2d(norm(x).relu(), conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)

    pools = [F.avg_pool2d(x, k, s, k // 2) for k, s in ((5, 2), (9, 4), (17, 8))]
    features = [unit(block.point, x)]
    for pooled, embed, smooth in zip(
        [*pools, x.mean((2, 3), keepdim=True)], block.embeds, block.smooths, strict=True
    ):
        small = unit(embed, pooled)
        up = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
        features.append(unit(smooth, up + features[-1]))
    expected = unit(block.compress, torch.cat(features, dim=1)) + unit(block.shortcut, x)
    torch.testing.assert_close(block(x), expected)
