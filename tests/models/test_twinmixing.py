"""TwinMixing's blocks against plain versions of them, and its published counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.models.twinmixing import (
    DBU,
    EPM,
    PCAA,
    ChannelShuffle,
    ShuffleUnit,
    twinmixing_base,
    twinmixing_large,
    twinmixing_nano,
    twinmixing_tiny,
    unit_groups,
)
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.structures import RoadLaneOutput

VARIANTS: dict[str, Any] = {
    "nano": twinmixing_nano,
    "tiny": twinmixing_tiny,
    "base": twinmixing_base,
    "large": twinmixing_large,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def meta(name: str, **switches: Any) -> nn.Module:
    with torch.device("meta"):
        return VARIANTS[name](**switches)


def warm(model: nn.Module) -> nn.Module:
    """Give norms and slopes random values; return the model in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.6)
    return model.eval()


# ---------------------------------------------------------------- counts
@pytest.mark.parametrize(
    ("name", "both", "single", "buffers", "units", "shuffles"),
    [
        ("nano", 24_167, 21_423, 1_491, 47, 10),
        ("tiny", 98_176, 91_192, 3_510, 65, 14),
        ("base", 434_085, 411_325, 8_442, 89, 2),
        ("large", 1_501_681, 1_418_185, 19_838, 113, 10),
    ],
)
def test_every_variant_has_its_counts(
    name: str, both: int, single: int, buffers: int, units: int, shuffles: int
) -> None:
    model = meta(name)
    assert count_parameters(model) == both
    assert sum(buffer.numel() for buffer in model.buffers()) == buffers
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(ShuffleUnit) == units
    assert kinds.count(ChannelShuffle) == shuffles
    for task in ("drivable", "lane"):
        assert count_parameters(meta(name, tasks=task)) == single


def test_every_part_has_its_parameter_count() -> None:
    model = meta("tiny")
    encoder: Any = model.encoder
    parts = {
        encoder.stem: 315,
        encoder.mix_half: 752,
        encoder.down2: 1_458,
        encoder.stage2: 3 * 866,
        encoder.mix_quarter: 18_333,
        encoder.down3: 12_898,
        encoder.stage3: 5 * 5_932,
        encoder.mix_eighth: 960,
        encoder.pcaa: 16_818,
        encoder.neck: 416,
        model.drivable: 6_984,
        model.lane: 6_984,
    }
    for part, expected in parts.items():
        assert count_parameters(part) == expected
    assert sum(parts.values()) == 98_176
    for name, steps in {
        "nano": (1_488, 1_168, 88),
        "tiny": (5_408, 1_488, 88),
        "base": (20_544, 2_128, 88),
        "large": (80_000, 3_408, 88),
    }.items():
        decoder: Any = meta(name).lane
        found = tuple(count_parameters(step) for step in (decoder.up1, decoder.up2, decoder.out))
        assert found == steps


@pytest.mark.parametrize(
    ("name", "dbu", "parameters", "macs"),
    [
        ("tiny", "coarse", 85_572, 631_327_232),
        ("tiny", "fine", 96_812, 842_189_312),
        ("base", "coarse", 393_289, 2_972_612_608),
        ("base", "fine", 429_361, 3_456_268_288),
    ],
)
def test_every_row_on_upsampling_has_its_counts(
    name: str, dbu: str, parameters: int, macs: int
) -> None:
    model = meta(name, dbu=dbu)
    assert count_parameters(model) == parameters
    assert count_macs(model, (384, 640)) == macs


# ---------------------------------------------------------------- shuffle unit
def test_groups_are_the_greatest_common_divisor() -> None:
    for channels, expected in {
        (3, 16): 1, (22, 32): 2, (44, 16): 4, (12, 12): 6, (256, 64): 32, (131, 131): 1,
        (25, 28): 1, (512, 102): 1, (102, 102): 51,
    }.items():  # fmt: skip
        assert unit_groups(*channels) == expected


def test_given_groups_hold_where_they_divide_the_automatic_ones() -> None:
    assert [unit_groups(256, 64, groups=n) for n in (1, 4, 32, 64)] == [1, 4, 32, 32]
    assert [unit_groups(12, 12, groups=n) for n in (2, 3, 4, 6)] == [2, 3, 6, 6]
    with pytest.raises(ValueError, match="groups is 0"):
        unit_groups(12, 12, groups=0)
    unit = ShuffleUnit(12, 24, groups=2)
    assert (unit.reduce.conv.groups, unit.expand.conv.groups) == (2, 2)
    assert isinstance(unit.shuffle, ChannelShuffle)
    assert unit.shuffle.groups == 2


def test_shuffle_interleaves_the_groups() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(2)(channels).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    x = torch.randn(2, 12, 3, 5)
    assert torch.equal(ChannelShuffle(4)(ChannelShuffle(3)(x)), x)
    for groups in (1, 12):
        assert torch.equal(ChannelShuffle(groups)(x), x)
    nearby = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ChannelShuffle(3)(nearby), ChannelShuffle(3)(x))


def plain_unit(unit: Any, x: Tensor) -> Tensor:
    """Follow the description of a unit with functions of torch alone."""
    groups = math.gcd(x.shape[1], unit.expand.conv.out_channels // 2)

    def rest(block: Any, y: Tensor) -> Tensor:
        if isinstance(block.norm, nn.BatchNorm2d):
            norm = block.norm
            y = F.batch_norm(
                y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5
            )
        return F.prelu(y, block.act.weight) if isinstance(block.act, nn.PReLU) else y

    y = rest(unit.reduce, F.conv2d(x, unit.reduce.conv.weight, groups=groups))
    middle = y.shape[1]
    y = y.unflatten(1, (groups, middle // groups)).transpose(1, 2).flatten(1, 2)
    spatial = unit.spatial.conv
    reach = spatial.dilation[0] * (spatial.kernel_size[0] // 2)
    y = F.conv2d(
        y, spatial.weight, stride=spatial.stride, padding=reach, dilation=spatial.dilation,
        groups=middle,
    )  # fmt: skip
    y = rest(unit.expand, F.conv2d(rest(unit.spatial, y), unit.expand.conv.weight, groups=groups))
    if spatial.stride[0] == 2:
        y = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], dim=1)
    elif y.shape == x.shape:
        y = y + x
    return F.prelu(y, unit.act.weight) if isinstance(unit.act, nn.PReLU) else y


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        ((12, 24), {}),
        ((12, 12), {}),
        ((12, 24), {"stride": 2}),
        ((12, 12), {"stride": 2}),
        ((12, 12), {"dilation": 4}),
        ((12, 8), {"kernel_size": 1}),
    ],
)
def test_unit_follows_its_description(
    channels: tuple[int, int], options: dict[str, Any], norm: bool
) -> None:
    unit = warm(ShuffleUnit(*channels, norm=norm, **options))
    x = torch.randn(2, 12, 12, 10)
    torch.testing.assert_close(unit(x), plain_unit(unit, x))


def test_unit_without_norms_is_linear() -> None:
    unit = ShuffleUnit(12, 24, dilation=2, norm=False)
    x, y = torch.randn(2, 1, 12, 9, 7)
    torch.testing.assert_close(unit(3 * x - 2 * y), 3 * unit(x) - 2 * unit(y))


def test_strided_unit_appends_the_pooled_input() -> None:
    unit = ShuffleUnit(5, 8, stride=2, norm=False)
    y = unit(torch.ones(1, 5, 8, 12))
    assert y.shape == (1, 13, 4, 6)
    pooled = y[:, 8:]
    assert (pooled[:, :, 1:, 1:] == 1).all()
    assert pooled[0, 0, 0, 0].item() == pytest.approx(4 / 9)  # zeros outside count
    assert pooled[0, 0, 0, 1:].tolist() == pytest.approx(5 * [2 / 3])


def test_dilated_depthwise_convolutions_are_the_safe_kind() -> None:
    dilated = [m for m in meta("nano").modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert len(dilated) == 4 * (2 + 2 + 3)
    assert all(isinstance(m, DepthwiseConv2d) for m in dilated)


# ---------------------------------------------------------------- EPM
def plain_epm(block: Any, x: Tensor, *, stride: int) -> Tensor:
    reduced = plain_unit(block.reduce, x)
    t1, t2, t4, t8, t16 = (plain_unit(branch, reduced) for branch in block.branches)
    y = torch.cat([t1, t2, t2 + t4, t2 + t4 + t8, t2 + t4 + t8 + t16], dim=1)
    if stride == 1:
        y = y + x
    norm, act = block.norm
    y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
    return F.prelu(y, act.weight)


@pytest.mark.parametrize(("channels", "stride"), [((32, 32), 1), ((16, 32), 2), ((19, 64), 2)])
def test_epm_follows_its_description(channels: tuple[int, int], stride: int) -> None:
    block = warm(EPM(*channels, stride=stride))
    assert [branch.spatial.conv.dilation[0] for branch in block.branches] == [1, 2, 4, 8, 16]
    x = torch.randn(1, channels[0], 24, 20)
    expected = plain_epm(block, x, stride=stride)
    assert expected.shape == (1, channels[1], 24 // stride, 20 // stride)
    torch.testing.assert_close(block(x), expected)


def test_epm_without_weights_is_a_scaled_prelu() -> None:
    block = EPM(32, 32).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    x = torch.randn(1, 32, 6, 6)
    torch.testing.assert_close(block(x), F.prelu(x / math.sqrt(1 + 1e-3), torch.full((1,), 0.25)))


@pytest.mark.parametrize("dilation", [1, 4, 16])
def test_one_dilation_in_all_branches(dilation: int) -> None:
    model = meta("nano", dilations=dilation)
    blocks = [module for module in model.modules() if isinstance(module, EPM)]
    assert len(blocks) == 2 + 2 + 3
    for block in blocks:
        found = [branch.spatial.conv.dilation for branch in block.branches]
        assert found == 5 * [(dilation, dilation)]
        assert block.reduce.spatial.conv.dilation == (1, 1)


# ---------------------------------------------------------------- PCAA
def plain_pcaa(block: Any, x: Tensor) -> Tensor:
    """Follow the steps with adaptive pooling, loops over patches and a repeated global map."""
    maps = block.maps(x)
    confidence = F.adaptive_avg_pool2d(maps, (2, 4)).sigmoid().flatten(2)  # (B, K, N)
    height, width = x.shape[2] // 2, x.shape[3] // 4

    def patch(features: Tensor, number: int) -> Tensor:
        row, column = divmod(number, 4)
        cut = features.narrow(2, row * height, height).narrow(3, column * width, width)
        return cut.flatten(2).transpose(1, 2)  # (B, T, C)

    centres = []
    for n in range(8):
        shares = patch(maps, n).softmax(dim=1)
        centre = torch.einsum("btk,btc->bkc", shares, patch(x, n))
        centres.append(centre * confidence[:, :, n, None])
    stacked = torch.stack(centres, dim=1)  # (B, N, K, C)
    weight = block.between_patches.weight[:, :, 0, 0]
    mixed = torch.einsum("mn,bnkc->bmkc", weight, stacked) + stacked
    slopes = block.patch_act.weight.view(1, 8, 1, 1)
    mixed = torch.where(mixed >= 0, mixed, slopes * mixed)
    stacked = mixed @ block.between_channels.weight.T
    fused = torch.einsum("n,bnkc->bkc", block.over_patches.weight[0, :, 0, 0], stacked)
    fused = F.prelu(fused + block.over_patches.bias, block.global_act.weight)
    repeated = fused[:, None].repeat(1, 8, 1, 1)
    out = torch.zeros(x.shape[0], x.shape[1] // 2, *x.shape[2:])
    for n in range(8):
        scores = block.query(patch(x, n)) @ block.key(stacked[:, n]).transpose(1, 2)
        y = scores.softmax(dim=-1) @ block.value(repeated[:, n])  # (B, T, C/2)
        row, column = divmod(n, 4)
        y = y.transpose(1, 2).unflatten(2, (height, width))
        out.narrow(2, row * height, height).narrow(3, column * width, width).copy_(y)
    last = block.project
    y = F.conv2d(out, last.conv.weight)
    norm = last.norm
    y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    return x + F.prelu(y, last.act.weight)


def test_pcaa_follows_its_equations() -> None:
    block = warm(PCAA(12))
    x = torch.randn(2, 12, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_pcaa(block, x))


def test_pcaa_does_not_see_the_order_of_the_pixels_in_a_patch() -> None:
    block = warm(PCAA(12))
    x = torch.randn(1, 12, 6, 16)
    moved = x.clone()
    patch = (slice(None), slice(None), slice(3, 6), slice(8, 12))  # row 1, column 2
    order = torch.randperm(12)

    def permuted(features: Tensor) -> Tensor:
        return features[patch].flatten(2)[..., order].unflatten(2, (3, 4))

    moved[patch] = permuted(x)
    with torch.no_grad():
        before, after = block(x), block(moved)
    expected = before.clone()
    expected[patch] = permuted(before)
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after)


# ---------------------------------------------------------------- DBU
@pytest.mark.parametrize("skip_channels", [0, 3])
def test_dbu_is_the_sum_of_its_branches(skip_channels: int) -> None:
    both = warm(DBU(6, 4, skip_channels=skip_channels))
    x = torch.randn(2, 6, 5, 7)
    skips = [torch.randn(2, 3, 10, 14)] if skip_channels else []
    parts = []
    for branch in ("fine", "coarse"):
        single = DBU(6, 4, skip_channels=skip_channels, branches=branch).eval()
        weights = {k: v for k, v in both.state_dict().items() if k.startswith(branch)}
        single.load_state_dict(weights)
        parts.append(single(x, *skips))
    assert parts[0].shape == (2, 4, 10, 14)
    torch.testing.assert_close(both(x, *skips), parts[0] + parts[1])


@pytest.mark.parametrize("skip_channels", [0, 3])
def test_dbu_follows_its_description(skip_channels: int) -> None:
    block: Any = warm(DBU(6, 4, skip_channels=skip_channels))
    x, skip = torch.randn(2, 6, 5, 7), torch.randn(2, 3, 10, 14)

    def norm(layer: Any, y: Tensor, eps: float) -> Tensor:
        return F.batch_norm(
            y, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=eps
        )

    fine, coarse = block.fine, block.coarse
    y = norm(fine.norm, F.conv_transpose2d(x, fine.up.weight, stride=2), 1e-3)
    y = F.prelu(y, fine.act.weight)
    if skip_channels:
        y = F.conv2d(torch.cat([y, skip], dim=1), fine.blend.conv.weight, padding=1)
        y = F.prelu(norm(fine.blend.norm, y, 1e-5), fine.blend.act.weight)
    z = F.interpolate(
        F.conv2d(x, coarse.project.weight), scale_factor=2, mode="bilinear", align_corners=False
    )
    expected = y + F.prelu(z, coarse.act.weight)
    torch.testing.assert_close(block(x, *([skip] if skip_channels else [])), expected)


# ---------------------------------------------------------------- model
def plain_model(model: Any, images: Tensor) -> list[Tensor]:
    """Wire the blocks together from the table of the network's steps."""
    encoder = model.encoder
    half = F.avg_pool2d(images, 3, 2, 1)
    quarter = F.avg_pool2d(half, 3, 2, 1)
    x = plain_unit(encoder.mix_half, torch.cat([plain_unit(encoder.stem, images), half], 1))
    down2 = plain_epm(encoder.down2, x, stride=2)
    stage2 = down2
    for block in encoder.stage2:
        stage2 = plain_epm(block, stage2, stride=1)
    x = plain_unit(encoder.mix_quarter, torch.cat([stage2, down2, quarter], 1))
    down3 = plain_epm(encoder.down3, x, stride=2)
    stage3 = down3
    for block in encoder.stage3:
        stage3 = plain_epm(block, stage3, stride=1)
    x = plain_unit(encoder.mix_eighth, torch.cat([down3, stage3], 1))
    x = plain_unit(encoder.neck, plain_pcaa(encoder.pcaa, x))
    heads = (model.drivable, model.lane)
    return [head.out(head.up2(head.up1(x, quarter), half)) for head in heads]


def test_network_is_wired_as_published() -> None:
    model = warm(twinmixing_nano())
    images = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        output, expected = model(images), plain_model(model, images)
    torch.testing.assert_close(output.drivable, expected[0])
    torch.testing.assert_close(output.lane, expected[1])
    assert not torch.allclose(output.drivable, output.lane)


@pytest.mark.parametrize(
    "size", [(16, 32), (16, 96), (192, 320), pytest.param((384, 640), marks=pytest.mark.slow)]
)
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    with torch.no_grad():
        output = twinmixing_nano().eval()(torch.rand(1, 3, *size))
    assert type(output) is RoadLaneOutput
    for logits in output:
        assert logits.shape == (1, 2, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("size", "fitting"), [((360, 640), "368x640"), ((16, 48), "16x64"), ((8, 32), "16x32")]
)
def test_other_sizes_are_refused_with_the_next_one(size: tuple[int, int], fitting: str) -> None:
    with pytest.raises(ValueError, match=f"pad it to {fitting}"):
        meta("nano")(torch.empty(1, 3, *size, device="meta"))


@pytest.mark.parametrize("task", ["drivable", "lane"])
def test_single_task_has_nothing_of_the_other(task: str) -> None:
    other = {"drivable": "lane", "lane": "drivable"}[task]
    model, both = warm(twinmixing_nano(tasks=task)), twinmixing_nano().eval()
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.startswith(other) for name in names)
    both.load_state_dict(model.state_dict(), strict=False)
    images = torch.rand(1, 3, 16, 32)
    with torch.no_grad():
        alone, together = model(images), both(images)
    assert getattr(alone, other) is None
    assert torch.equal(getattr(alone, task), getattr(together, task))


@pytest.mark.parametrize("name", VARIANTS)
def test_folded_copy_equals_the_original(name: str) -> None:
    model = warm(VARIANTS[name]())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = model.folded()
    kept = [type(m) for m in fused.modules()].count(nn.BatchNorm2d)
    assert kept == sum(isinstance(m, EPM) for m in model.modules())
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        for expected, got in zip(model(images), fused(images), strict=True):
            assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_exported_program_equals_eager() -> None:
    for model in (warm(twinmixing_nano()), warm(twinmixing_nano(tasks="lane")).deployable()):
        images = torch.rand(2, 3, 32, 64)
        program = torch.export.export(model, (images,), strict=True)
        with torch.no_grad():
            expected, got = model(images), program.module()(images)
        torch.testing.assert_close(got.lane, expected.lane)
        assert (got.drivable is None) == (expected.drivable is None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same_maps(dtype: torch.dtype) -> None:
    model, images = warm(twinmixing_nano()), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
        got = model.to(dtype)(images.to(dtype))
    for one, other in zip(expected, got, strict=True):
        assert other.dtype == dtype
        assert (one - other.float()).norm() < (
            3e-3 if dtype == torch.float16 else 3e-2
        ) * one.norm()


def test_autocast_keeps_the_features_narrow() -> None:
    model = twinmixing_nano().train()
    seen: list[torch.dtype] = []
    for name in ("mix_half", "mix_quarter"):
        unit = model.encoder.get_submodule(name)
        unit.register_forward_pre_hook(lambda _m, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.rand(2, 3, 32, 64))
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert output.lane.isfinite().all()
