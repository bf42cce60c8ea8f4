"""LSA-BiNet's blocks against its equations and its published counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.models.lsa_binet import (
    LRFA,
    RCAD,
    SVFM,
    DABlock,
    LSABiNet,
    PooledDown,
    soft_pool,
    spatial_variance,
)
from rtseg.nn.depthwise import DepthwiseConv2d

SVFM_DEFAULTS: dict[str, Any] = {
    "branches": "both",
    "pool_ratio": 8,
    "resize": "nearest",
    "variance": "population",
    "norm": "none",
    "residual": False,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def svfm(channels: int = 6, **switches: Any) -> SVFM:
    return SVFM(channels, **{**SVFM_DEFAULTS, **switches})


# ---------------------------------------------------------------- counts
@pytest.mark.parametrize(
    ("lrfa", "svfm", "rcad", "classes11", "classes19"),
    [
        (False, False, False, 754_571, 756_643),
        (True, False, False, 798_606, 800_678),
        (False, True, False, 1_435_482, 1_437_554),
        (False, False, True, 1_116_164, 1_117_212),
        (True, True, False, 1_479_517, 1_481_589),
        (True, True, True, 1_841_110, 1_842_158),
        (True, False, True, 1_160_199, 1_161_247),
        (False, True, True, 1_797_075, 1_798_123),
    ],
)
def test_every_ablation_has_its_parameter_count(
    lrfa: bool, svfm: bool, rcad: bool, classes11: int, classes19: int
) -> None:
    for num_classes, expected in ((11, classes11), (19, classes19)):
        model = LSABiNet(num_classes, lrfa=lrfa, svfm=svfm, rcad=rcad)
        assert count_parameters(model) == expected


def test_every_stage_has_its_parameter_count() -> None:
    model = LSABiNet(11)
    encoder = model.encoder
    stages = {
        encoder.stem: 19_584,
        encoder.cat1: 105,
        encoder.down1: 9_327,
        encoder.block1: 3 * 21_632,
        encoder.cat2: 393,
        encoder.down2: 151_296,
        encoder.block2: 6 * 84_224,
        encoder.cat3: 777,
        model.lrfa: 44_035,
        model.svfm: 680_911,
        model.head: 364_442,
    }
    for stage, expected in stages.items():
        assert count_parameters(stage) == expected
    assert count_parameters(model) == sum(stages.values())


@pytest.mark.parametrize("size", [(45, 60), (17, 31), (8, 8)])
@pytest.mark.parametrize("rcad", [True, False])
def test_small_images_give_finite_logits(size: tuple[int, int], rcad: bool) -> None:
    stride = 4 if rcad else 8
    with torch.no_grad():
        logits = LSABiNet(5, rcad=rcad).eval()(torch.randn(1, 3, *size)).logits
    assert logits.shape == (1, 5, -(-size[0] // stride), -(-size[1] // stride))
    assert logits.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(360, 480), (512, 1024), (361, 479)])
def test_published_sizes_give_logits_at_a_quarter(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = LSABiNet(19).eval()(torch.randn(1, 3, *size)).logits
    assert logits.shape == (1, 19, -(-size[0] // 4), -(-size[1] // 4))
    assert logits.isfinite().all()


# ---------------------------------------------------------------- encoder
def test_dilations_of_the_blocks_are_as_published() -> None:
    encoder = LSABiNet(11).encoder
    found = [
        [
            (block.context[0].conv.dilation, block.context[1].conv.dilation)
            for block in stage
            if isinstance(block, DABlock)
        ]
        for stage in (encoder.block1, encoder.block2)
    ]
    assert found == [
        [((2, 1), (1, 2))] * 3,
        [((d, 1), (1, d)) for d in (4, 4, 8, 8, 16, 16)],
    ]


def test_depths_and_dilations_are_arguments() -> None:
    encoder = LSABiNet(11, depths=(1, 3), dilations=((3,), (5, 7))).encoder
    assert [block.context[0].conv.dilation[0] for block in encoder.block1] == [3]
    assert [block.context[0].conv.dilation[0] for block in encoder.block2] == [5, 7, 5]


def test_dilated_depthwise_convolutions_are_the_safe_kind() -> None:
    dilated = [m for m in LSABiNet(11).modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert len(dilated) == 9
    assert all(isinstance(m, DepthwiseConv2d) for m in dilated)


def test_dab_block_follows_its_description() -> None:
    block = DABlock(8, dilation=2).eval()
    x = torch.randn(1, 8, 9, 11)

    def conv(m: Any, x: Tensor, **options: Any) -> Tensor:
        return F.prelu(m.norm(F.conv2d(x, m.conv.weight, **options)), m.act.weight)

    narrow = conv(block.reduce, F.prelu(block.norm[0](x), block.norm[1].weight), padding=1)
    local = conv(block.local[0], narrow, padding=(1, 0), groups=4)
    local = conv(block.local[1], local, padding=(0, 1), groups=4)
    wide = conv(block.context[0], narrow, padding=(2, 0), dilation=(2, 1), groups=4)
    wide = conv(block.context[1], wide, padding=(0, 2), dilation=(1, 2), groups=4)
    joined = F.prelu(block.norm_sum[0](local + wide), block.norm_sum[1].weight)
    expected = x + F.conv2d(joined, block.expand.weight)
    torch.testing.assert_close(block(x), expected)


def test_pooling_up_changes_nothing_at_even_sizes() -> None:
    block = PooledDown(5, 8).eval()
    x = torch.randn(1, 5, 12, 14)
    expected = block.norm(torch.cat([block.conv(x), F.max_pool2d(x, 2)], dim=1))
    assert torch.equal(block(x), expected)
    assert block(torch.randn(1, 5, 11, 13)).shape == (1, 8, 6, 7)


def test_image_channels_are_last_in_each_joint() -> None:
    encoder = LSABiNet(3).encoder.eval()
    seen: dict[str, Tensor] = {}
    for name in ("cat1", "cat2", "cat3"):
        getattr(encoder, name).register_forward_pre_hook(
            lambda _m, args, name=name: seen.__setitem__(name, args[0])
        )
    images = torch.randn(1, 3, 33, 40)
    encoder(images)
    pooled = images
    for name, channels in (("cat1", 35), ("cat2", 131), ("cat3", 259)):
        pooled = F.avg_pool2d(pooled, 3, 2, 1, count_include_pad=True)
        assert seen[name].shape[1] == channels
        assert torch.equal(seen[name][:, -3:], pooled)


# ---------------------------------------------------------------- SoftPool and LRFA
def test_soft_pool_equals_the_plain_formula() -> None:
    x = torch.randn(2, 3, 45, 60, dtype=torch.float64)
    windows = x.unfold(2, 7, 3).unfold(3, 7, 3).flatten(-2)
    weights = windows.exp()
    expected = (weights * windows).sum(-1) / weights.sum(-1)
    got = soft_pool(x, kernel_size=7, stride=3)
    assert got.shape == (2, 3, 13, 18)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_soft_pool_of_one_high_value_is_worked_out_by_hand() -> None:
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 5] = math.log(48)
    got = soft_pool(x, kernel_size=7, stride=3).item()
    assert got == pytest.approx(math.log(48) / 2, abs=3e-6)


def test_soft_pool_keeps_constants_follows_shifts_and_lies_between_mean_and_maximum() -> None:
    x = torch.randn(1, 2, 20, 23)
    pooled = soft_pool(x, kernel_size=7, stride=3)
    shifted = soft_pool(x + 5, kernel_size=7, stride=3)
    torch.testing.assert_close(shifted, pooled + 5, rtol=0, atol=1e-5)
    constant = soft_pool(torch.full((1, 1, 9, 9), 3.0), kernel_size=7, stride=3)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0))
    assert (pooled >= F.avg_pool2d(x, 7, 3) - 1e-6).all()
    assert (pooled <= F.max_pool2d(x, 7, 3) + 1e-6).all()


@pytest.mark.parametrize("std", [40.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_soft_pool_is_finite_for_large_contrasts(std: float, dtype: torch.dtype) -> None:
    x = (torch.randn(1, 2, 40, 40) * std).to(dtype).requires_grad_()
    pooled = soft_pool(x, kernel_size=7, stride=3)
    pooled.float().sum().backward()
    assert pooled.dtype == dtype
    assert pooled.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_soft_pool_shrinks_its_window_to_a_small_map() -> None:
    assert soft_pool(torch.randn(1, 1, 4, 9), kernel_size=7, stride=3).shape == (1, 1, 1, 1)
    one = torch.randn(1, 1, 1, 1)
    torch.testing.assert_close(soft_pool(one, kernel_size=7, stride=3), one)


def test_lrfa_without_weights_halves_and_gates() -> None:
    block = LRFA(5, width=4, gate=True)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 5, 12, 13)
    torch.testing.assert_close(block(x), x * 0.5 * torch.sigmoid(x[:, :1]))
    changed = x.clone()
    changed[:, 1:] += 1
    torch.testing.assert_close(block(changed), changed * 0.5 * torch.sigmoid(x[:, :1]))
    plain = LRFA(5, width=4, gate=False)
    plain.load_state_dict(block.state_dict())
    torch.testing.assert_close(plain(x), x * 0.5)


def test_lrfa_attention_follows_its_equation() -> None:
    block = LRFA(5, width=4, gate=True)
    x = torch.randn(1, 5, 30, 33)
    pooled = soft_pool(F.conv2d(x, block.reduce.weight, block.reduce.bias), kernel_size=7, stride=3)
    small = F.conv2d(pooled, block.shrink.weight, block.shrink.bias, stride=2, padding=1)
    weights = torch.sigmoid(F.conv2d(small, block.expand.weight, block.expand.bias, padding=1))
    assert weights.shape[-2:] == (4, 5)
    weights = F.interpolate(weights, size=(30, 33), mode="bilinear", align_corners=False)
    torch.testing.assert_close(block(x), x * weights * torch.sigmoid(x[:, 0:1]))


# ---------------------------------------------------------------- SVFM
def test_variance_is_the_populations_unless_asked_otherwise() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)
    assert spatial_variance(x, estimate="population").item() == pytest.approx(3.5)
    assert spatial_variance(x, estimate="sample").item() == pytest.approx(14 / 3)
    assert (spatial_variance(torch.full((2, 3, 4, 5), 7.0), estimate="population") == 0).all()
    assert spatial_variance(x.bfloat16(), estimate="population").dtype == torch.float32


def test_svfm_starts_with_alpha_one_and_beta_zero() -> None:
    block = svfm()
    assert block.easa is not None
    assert (block.easa.alpha == 1).all()
    assert (block.easa.beta == 0).all()
    assert block.easa.alpha.shape == block.easa.beta.shape == (1, 6, 1, 1)
    block(torch.randn(2, 6, 16, 20)).square().sum().backward()
    assert block.easa.beta.grad is not None
    assert (block.easa.beta.grad != 0).all()


def test_svfm_without_modulation_depends_on_the_second_half_only() -> None:
    block = svfm()
    assert block.easa is not None
    for parameter in (block.easa.alpha, block.easa.beta, block.easa.mix.bias):
        nn.init.zeros_(parameter)
    x = torch.randn(1, 6, 17, 20)
    assert (block.easa.modulation(x) == 0).all()
    before = block(x)
    block.project.weight.data[:6].normal_()
    assert torch.equal(block(x), before)
    block.project.weight.data[6:].normal_()
    assert not torch.allclose(block(x), before)


@pytest.mark.parametrize("resize", ["nearest", "bilinear"])
def test_svfm_follows_its_equations(resize: str) -> None:
    block = svfm(resize=resize)
    easa, lde = block.easa, block.lde
    assert easa is not None
    assert lde is not None
    nn.init.normal_(easa.beta)
    f = torch.randn(2, 6, 21, 26)

    def conv(m: Any, x: Tensor) -> Tensor:
        groups = m.in_channels if m.weight.shape[1] == 1 else 1
        return F.conv2d(x, m.weight, m.bias, padding=m.weight.shape[-1] // 2, groups=groups)

    x, y = conv(block.project, f).chunk(2, dim=1)
    pooled = conv(easa.spread, F.adaptive_max_pool2d(x, (2, 3)))
    variance = x.var(dim=(2, 3), unbiased=False, keepdim=True)
    factors = F.gelu(conv(easa.mix, easa.alpha * pooled + easa.beta * variance))
    corners = None if resize == "nearest" else False
    local = x * F.interpolate(factors, size=(21, 26), mode=resize, align_corners=corners)
    detail = conv(lde[3], F.gelu(conv(lde[1], conv(lde[0], y))))
    torch.testing.assert_close(block(f), conv(block.fuse, local + detail))


def test_svfm_is_finite_on_a_map_of_one_pixel() -> None:
    assert svfm()(torch.randn(1, 6, 1, 1)).isfinite().all()


def test_svfm_shortcuts_add_the_input() -> None:
    x = torch.randn(1, 6, 9, 9) + 1
    plain, residual, normed = svfm(), svfm(residual=True), svfm(norm="l2")
    residual.load_state_dict(plain.state_dict())
    normed.load_state_dict(plain.state_dict())
    torch.testing.assert_close(residual(x), x + plain(x))
    length = x.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(normed(x), x + plain(x / length))


@pytest.mark.parametrize(("branches", "absent"), [("easa", "lde"), ("lde", "easa")])
def test_single_branch_of_svfm_has_no_parameters_of_the_other(branches: str, absent: str) -> None:
    block = svfm(branches=branches)
    assert not [name for name, _ in block.named_parameters() if name.startswith(absent)]
    assert block.project.out_channels == 6
    block(torch.randn(1, 6, 9, 9)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in block.parameters())


def test_svfm_pools_to_the_ratio() -> None:
    block = svfm(pool_ratio=4)
    assert block.easa is not None
    assert block.easa.modulation(torch.randn(1, 6, 17, 30)).shape == (1, 6, 4, 7)


# ---------------------------------------------------------------- RCAD
def rcad_with_hooks(*, skip: bool = True) -> tuple[RCAD, dict[str, Tensor]]:
    decoder = RCAD(7, 5, 3, skip=skip).eval()
    seen: dict[str, Tensor] = {}
    for name in ("project", "mixer"):
        getattr(decoder, name).register_forward_pre_hook(
            lambda _m, args, name=name: seen.__setitem__(name, args[0])
        )
    return decoder, seen


def test_rcad_without_guidance_attends_to_itself() -> None:
    decoder, seen = rcad_with_hooks()
    nn.init.zeros_(decoder.project.norm.weight)
    x, y = torch.randn(1, 5, 12, 14), torch.randn(1, 7, 6, 7)
    decoder(x, y)
    torch.testing.assert_close(seen["mixer"], x * torch.sigmoid(torch.sigmoid(x)))


@pytest.mark.parametrize("skip", [True, False])
def test_rcad_follows_its_equations(skip: bool) -> None:
    decoder, seen = rcad_with_hooks(skip=skip)
    x, y = torch.randn(1, 5, 11, 13), torch.randn(1, 7, 6, 7)
    scores = decoder(x, y)
    assert seen["project"].shape == (1, 7, 6, 7)
    guide = decoder.project(y)
    guide = F.interpolate(guide, size=(11, 13), mode="bilinear", align_corners=False)
    z = x * torch.sigmoid(torch.sigmoid(x) + guide)
    first, second = decoder.refine
    inner = F.prelu(first.norm(F.conv2d(z, first.conv.weight, padding=1)), first.act.weight)
    r = second.norm(F.conv2d(inner, second.conv.weight, padding=1)) + (z if skip else 0)
    expected = decoder.classifier(decoder.mixer(z + r * guide))
    torch.testing.assert_close(scores, expected)
    assert not torch.allclose(decoder(x, y + 1), scores)


# ---------------------------------------------------------------- model
def test_convolutions_start_as_kaiming_normal_and_biases_at_zero() -> None:
    model = LSABiNet(11)
    weight = model.head.refine[0].conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (131 * 9)), rel=0.02)
    assert weight.abs().max() > 4 * weight.std()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert {norm.momentum for norm in norms} == {0.1}


def test_attention_comes_before_variance_fusion() -> None:
    model = LSABiNet(3).eval()
    order: list[str] = []
    for name in ("lrfa", "svfm", "head"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.randn(1, 3, 32, 32))
    assert order == ["lrfa", "svfm", "head"]


@pytest.mark.parametrize("switches", list(itertools.product([False, True], repeat=3)))
def test_every_ablation_sends_gradients_everywhere(switches: tuple[bool, bool, bool]) -> None:
    lrfa, svfm, rcad = switches
    model = LSABiNet(4, lrfa=lrfa, svfm=svfm, rcad=rcad).train()
    logits = model(torch.randn(2, 3, 64, 64)).logits
    (logits * torch.randn_like(logits)).sum().backward()
    # Both only add a constant to a map, which the decoder's first batch norm takes out again.
    exempt = {"svfm.fuse.bias", "svfm.lde.3.bias"} if rcad else set()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert name in exempt or parameter.grad.any(), name


def test_folded_copy_keeps_only_norms_that_cannot_be_folded() -> None:
    kept = {
        name
        for name, module in LSABiNet(3).folded().named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    joints = {f"encoder.{name}.0" for name in ("cat1", "cat2", "cat3", "down1.norm")}
    blocks = [f"encoder.block1.{i}" for i in range(3)] + [f"encoder.block2.{i}" for i in range(6)]
    assert kept == joints | {f"{b}.{norm}.0" for b in blocks for norm in ("norm", "norm_sum")}


@pytest.mark.slow
def test_forty_steps_on_colour_blocks_halve_the_loss() -> None:
    model = LSABiNet(4).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    losses = []
    for step in range(40):
        optimizer.param_groups[0]["lr"] = 4.5e-2 * (1 / 3 + 2 / 3 * min(1.0, step / 10))
        coarse = torch.randint(0, 4, (4, 3, 4))
        labels = coarse.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
        colors = torch.tensor([[90.0, 0, 0], [0, 90.0, 0], [0, 0, 90.0], [-60.0, -60.0, -60.0]])
        images = colors[labels].permute(0, 3, 1, 2) + 10 * torch.randn(4, 3, 96, 128)
        logits = F.interpolate(model(images).logits, size=(96, 128), mode="bilinear")
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] / 2
