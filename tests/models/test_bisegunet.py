"""BiSegUNet's blocks against its equations, and the network in each of its states."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.models.bisegunet import (
    ASPP,
    BiSegUNet,
    ConvNorm,
    PositionAttention,
    ShortcutStage,
    SpatialAttention,
    SqueezeExcite,
    Stem,
    binary_layer,
    capacity_block,
    multi_scale_block,
)
from rtseg.nn.binary import BinaryConv2d, binarize_inputs, binary_layers, interleave

LAYER = partial(binary_layer, min_group_width=8, act_bits=32)
TINY = partial(BiSegUNet, width=0.125, stem_stride=2, kv_pool=2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def warm(model: nn.Module) -> nn.Module:
    """Give the batch norms random factors and statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def binarize(model: nn.Module) -> None:
    for layer in binary_layers(model).values():
        layer.binarize()


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(images).logits
    assert isinstance(logits, Tensor)
    return logits


# ---------------------------------------------------------------- blocks
def run_layer(layer: Any, x: Tensor, *, relu: bool = True) -> Tensor:
    """Compute a binary layer with plain functions."""
    conv, norm = layer.conv, layer.norm
    if 1 < conv.groups < conv.in_channels:
        x = interleave(x, conv.groups)
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    y = F.conv2d(x, conv.weight, groups=conv.groups, **options)
    y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    return y.relu() if relu else y


def test_stem_streams_read_the_streams_before_them() -> None:
    stem = Stem((32, 32, 64), stride=2, layer=LAYER, binarize_first=False)
    warm(stem)
    images = torch.randn(1, 3, 17, 22)
    first = run_layer(stem.stream1, images)
    assert first.shape == (1, 32, 9, 11)
    second = run_layer(stem.stream2, first)
    third = run_layer(stem.stream3, torch.cat([first, second], 1))
    expected = torch.cat([first, second, third], 1)
    torch.testing.assert_close(stem(images), expected, rtol=1e-4, atol=1e-5)


def squeeze_excite(module: Any, x: Tensor) -> Tensor:
    means = x.flatten(2).mean(2)
    hidden = F.linear(means, module.squeeze.weight.flatten(1), module.squeeze.bias).relu()
    weights = F.linear(hidden, module.excite.weight.flatten(1), module.excite.bias).sigmoid()
    return x * weights[..., None, None]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("attention", [True, False])
def test_capacity_block_follows_its_equations(attention: bool, residual: bool) -> None:
    block = capacity_block(
        32, layer=LAYER, branches=("binary", "dilated", "grouped"),
        attention=attention, residual=residual,
    )  # fmt: skip
    warm(block)
    x = torch.randn(2, 32, 15, 14)
    parts: Any = block.branches
    pair = run_layer(parts["binary_pair"][1], run_layer(parts["binary_pair"][0], x))
    single = run_layer(parts["binary_single"], x)
    dilated = run_layer(parts["dilated"][1], run_layer(parts["dilated"][0], x))
    assert parts["dilated"][1].conv.kernel_size == (7, 7)
    assert parts["dilated"][1].conv.dilation == (2, 2)
    joined = torch.cat([pair, single, dilated, run_layer(parts["grouped"], x)], 1)
    assert joined.shape == (2, 64, 15, 14)
    if attention:
        joined = squeeze_excite(block.attention, joined)
    refined = run_layer(block.project, joined, relu=False)
    expected = F.relu(refined + x) if residual else F.relu(refined)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("branches", "names", "width"),
    [
        (("dilated", "grouped"), ["dilated", "grouped"], 32),
        (("binary",), ["binary_pair", "binary_single"], 32),
        (("grouped",), ["grouped"], 16),
        (("grouped", "binary"), ["binary_pair", "binary_single", "grouped"], 48),
    ],
)
def test_removed_branch_takes_its_share_of_attention_and_projection_along(
    branches: Any, names: list[str], width: int
) -> None:
    block = capacity_block(32, layer=LAYER, branches=branches, attention=True, residual=True)
    assert list(block.branches) == names
    project: Any = block.project
    attention: Any = block.attention
    assert project.conv.in_channels == attention.squeeze.in_channels == width
    assert block(torch.randn(1, 32, 8, 8)).shape == (1, 32, 8, 8)


def test_hidden_channels_of_the_attention_are_a_sixteenth_but_eight_at_least() -> None:
    assert SqueezeExcite(4096).squeeze.out_channels == 256
    assert SqueezeExcite(64).squeeze.out_channels == 8


@pytest.mark.parametrize("spatial", [True, False])
def test_multi_scale_block_follows_its_description(spatial: bool) -> None:
    block = multi_scale_block(32, layer=LAYER, spatial=spatial, residual=True)
    warm(block)
    x = torch.randn(1, 32, 20, 21)
    parts: Any = block.branches
    assert [m.conv.dilation for m in parts.values()] == [(1, 1), (6, 6), (12, 12), (18, 18)]
    joined = torch.cat([run_layer(m, x) for m in parts.values()], 1)
    attention: Any = block.attention
    weighed = squeeze_excite(attention[0] if spatial else attention, joined)
    if spatial:
        maps = torch.stack([weighed.mean(1), weighed.amax(1)], 1)
        weighed = weighed * F.conv2d(maps, attention[1].conv.weight, padding=3).sigmoid()
    expected = F.relu(run_layer(block.project, weighed, relu=False) + x)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_spatial_attention_has_98_weights() -> None:
    assert count_parameters(SpatialAttention()) == 98


def test_aspp_concatenates_four_rates_in_order() -> None:
    aspp = ASPP(32, 16, layer=LAYER)
    warm(aspp)
    x = torch.randn(1, 32, 20, 21)
    branches: Any = aspp.branches
    assert [m.conv.dilation[0] for m in branches] == [1, 6, 12, 18]
    expected = torch.cat([run_layer(m, x) for m in branches], 1)
    torch.testing.assert_close(aspp(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_pool", [1, 2, 3])
@pytest.mark.parametrize("fused", [False, True])
def test_attention_equals_a_walk_over_positions(kv_pool: int, fused: bool) -> None:
    module: Any = PositionAttention(6, width=4, kv_pool=kv_pool, fused=fused)
    warm(module)
    x = torch.randn(2, 6, 5, 7)
    cells = F.avg_pool2d(x, kv_pool, ceil_mode=True) if kv_pool > 1 else x
    expected = torch.zeros(2, 4, 5, 7)
    weight = {n: getattr(module, n).weight[:, :, 0, 0] for n in ("query", "key", "value")}
    for image in range(2):
        source = cells[image].flatten(1)  # (6, cells)
        for row in range(5):
            for column in range(7):
                query = weight["query"] @ x[image, :, row, column]
                scores = (weight["key"] @ source).T @ query / math.sqrt(4)
                found = (weight["value"] @ source) @ scores.softmax(0)
                expected[image, :, row, column] = found
    expected = x + module.project(expected)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "expected"), [(1.0, 128), (0.5, 64), (0.25, 32), (0.125, 32)])
def test_queries_have_a_quarter_of_the_full_width_at_least(width: float, expected: int) -> None:
    with torch.device("meta"):
        attention = BiSegUNet(4, width=width).attention
    for conv in (attention.query, attention.key, attention.value):
        assert conv.out_channels == expected


def test_attention_pools_a_map_of_height_one() -> None:
    module = PositionAttention(6, width=4, kv_pool=2, fused=False).eval()
    assert module(torch.randn(1, 6, 1, 3)).isfinite().all()


def test_attention_starts_as_nothing() -> None:
    model = TINY(4).eval()
    images = torch.randn(1, 3, 64, 64)
    before = logits_of(model, images)
    for conv in (model.attention.query, model.attention.key, model.attention.value):
        nn.init.normal_(conv.weight)
    assert torch.equal(logits_of(model, images), before)
    nn.init.ones_(model.attention.project.norm.get_parameter("weight"))
    assert not torch.allclose(logits_of(model, images), before)


# ---------------------------------------------------------------- network
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96)])
def test_small_images_give_finite_scores(size: tuple[int, int]) -> None:
    assert logits_of(TINY(5).eval(), torch.randn(1, 3, *size)).isfinite().all()


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_network_follows_its_diagram(stem_stride: int) -> None:
    model = TINY(4, stem_stride=stem_stride)
    warm(model)
    images = torch.randn(1, 3, 45, 70)

    def up(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    f0 = model.stem(images)
    f1 = model.encoder1(f0)
    f2 = model.encoder2(f1)
    f3 = model.encoder3(f2)
    s4 = model.capacity4(model.encoder4(f3))
    bottom = model.attention(model.aspp(s4))
    x = F.relu(bottom + run_layer(model.project, s4, relu=False))
    for decoder, skip, block in (
        (model.decoder1, f3, model.capacity3),
        (model.decoder2, f2, model.capacity2),
        (model.decoder3, f1, model.capacity1),
    ):
        x = up(decoder(x), skip) + block(skip)
    x = up(model.decoder4(x), f0)
    expected = up(model.head(model.capacity_out(x)), images)
    torch.testing.assert_close(logits_of(model, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "switches",
    [
        {"block": "none"}, {"block": "ms_se"}, {"block": "ms_cbam"}, {"block_count": 2},
        {"branches": ("dilated", "grouped")}, {"block_attention": False},
        {"block_residual": False}, {"fused_attention": True}, {"binarize_stem_first": True},
        {"act_bits": 1}, {"min_group_width": 32},
    ],
)  # fmt: skip
def test_every_switch_trains_and_sends_gradients_everywhere(switches: dict[str, Any]) -> None:
    model = TINY(4, stem_stride=1, **switches).train()
    nn.init.ones_(model.attention.project.norm.get_parameter("weight"))
    binarize(model)
    if switches.get("act_bits") == 1:
        ready = [layer for layer in binary_layers(model).values() if layer.tau is not None]
        binarize_inputs(model, torch.randn(2, 3, 64, 64), ready)
    logits = model(torch.randn(2, 3, 64, 64)).logits
    assert logits.shape == (2, 4, 64, 64)
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_binarizing_changes_the_scores() -> None:
    model = TINY(4)
    warm(model)
    images = torch.randn(1, 3, 64, 64)
    before = logits_of(model, images)
    binarize(model)
    assert not torch.allclose(logits_of(model, images), before)


@pytest.mark.parametrize("state", ["real", "binary", "one bit"])
def test_deployable_copy_equals_every_state(state: str) -> None:
    model = TINY(4, act_bits=1)
    warm(model)
    images = torch.randn(1, 3, 61, 79)
    if state != "real":
        binarize(model)
    if state == "one bit":
        ready = [layer for layer in binary_layers(model).values() if layer.tau is not None]
        binarize_inputs(model, images, ready)
    fused = model.deployable()
    assert not binary_layers(fused)
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(binary_layers(model)) == 50
    expected, got = logits_of(model, images), logits_of(fused, images)
    # A sign may flip where an input meets its threshold to the last bit.
    equal = ((expected - got).abs() <= 1e-4 * expected.abs().max()).float().mean()
    assert equal > (0.99 if state == "one bit" else 0.999999)


def test_one_bit_encoder_stage_adds_its_pooled_input_twice() -> None:
    model = TINY(4, act_bits=1)
    stage: Any = model.encoder1
    assert isinstance(stage, ShortcutStage)
    warm(stage)
    x = torch.randn(1, 16, 7, 10)
    pooled = F.avg_pool2d(x, 2, ceil_mode=True)
    convolved = run_layer(stage.layer, x, relu=False)
    expected = F.relu(convolved + torch.cat([pooled, pooled], 1))
    torch.testing.assert_close(stage(x), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(TINY(4).encoder1, ConvNorm)


def test_convolutions_start_as_he_draws_them_and_norms_as_usual() -> None:
    model = BiSegUNet(19, width=0.5)
    for conv in (model.attention.query, model.attention.project.conv):
        assert isinstance(conv, nn.Conv2d)
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
        assert conv.bias is None
    squeeze: Any = model.capacity4
    assert (squeeze.attention.squeeze.bias == 0).all()
    assert (squeeze.attention.excite.bias == 0).all()
    deviation = squeeze.attention.squeeze.weight.std().item()
    assert deviation == pytest.approx(math.sqrt(2 / 2048), rel=0.03)
    assert squeeze.attention.squeeze.weight.max() > 4 * deviation  # normal, not uniform
    assert model.head.bias is not None
    assert model.head.bias.any()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
    zero = [norm for norm in norms if not norm.weight.any()]
    assert zero == [model.attention.project.norm]


def test_first_and_last_layers_stay_real_unless_asked_otherwise() -> None:
    model: Any = TINY(4)
    assert not isinstance(model.stem.stream1.conv, BinaryConv2d)
    assert not isinstance(model.head, BinaryConv2d)
    first: Any = TINY(4, binarize_stem_first=True).stem.stream1.conv
    assert isinstance(first, BinaryConv2d)
    assert first.stride == (2, 2)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"width": 0.3}, "multiple of 1/16"),
        ({"width": 0.0}, "multiple of 1/16"),
        ({"branches": ()}, "needs a branch"),
        ({"block_count": 5}, "not 0 to 4"),
        ({"block_count": -1}, "not 0 to 4"),
    ],
)
def test_impossible_switches_are_refused(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BiSegUNet(19, **switches)
