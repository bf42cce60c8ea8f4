"""Binary convolutions: signs, their gradients, the two switches, interleaving and deployment."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rtseg.nn.binary import (
    BinaryConv2d,
    InterleavedConv2d,
    binarize_inputs,
    binary_layers,
    binary_penalty,
    clamp_weights,
    deploy_binary,
    interleave,
    sign,
    sign_of_inputs,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def with_weights(values: list[float], *, alpha: float = 1.0) -> BinaryConv2d:
    """Build a 1x1 layer of one output channel with the given weights."""
    layer = BinaryConv2d(len(values), 1, 1)
    layer.binarize()
    layer.weight.data = torch.tensor(values).view(1, -1, 1, 1)
    layer.log_alpha.data.fill_(math.log(alpha))
    return layer


# ---------------------------------------------------------------- signs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_sign_knows_two_values_only(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, -0.0, 1e-7, -1e-7, 3.0, -3.0], dtype=dtype)
    assert sign(x).tolist() == [1, 1, 1, -1, 1, -1]
    assert sign(x).dtype == dtype


def test_gradient_of_weights_passes_within_one_and_is_scaled_by_alpha() -> None:
    layer = with_weights([-1.5, -0.5, 0.0, 0.5, 1.5], alpha=2.0)
    layer.effective_weight().sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.flatten(), torch.tensor([0.0, 2, 2, 2, 0]))


def test_gradient_of_weights_passes_at_the_border_itself() -> None:
    layer = with_weights([-1.0, 1.0, 1.0001])
    layer.effective_weight().sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.flatten(), torch.tensor([1.0, 1, 0]))


def test_gradient_of_alpha_is_exact() -> None:
    layer = with_weights([-0.5, 0.25, 0.75], alpha=3.0)
    upstream = torch.tensor([2.0, 5.0, 7.0]).view(1, 3, 1, 1)
    (layer.effective_weight() * upstream).sum().backward()
    assert layer.log_alpha.grad is not None
    # d / d alpha = -2 + 5 + 7; d / d log(alpha) = alpha times that.
    assert layer.log_alpha.grad.item() == pytest.approx(3.0 * 10.0)


def test_slope_of_input_signs_is_a_triangle() -> None:
    x = torch.tensor([-1.5, -1.0, -0.75, 0.0, 0.25, 1.0, 1.5], requires_grad=True)
    y = sign_of_inputs(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0.5, 2, 1.5, 0, 0]


# ---------------------------------------------------------------- weights
def test_binary_weights_take_two_values_per_channel() -> None:
    layer = BinaryConv2d(8, 6, 3, groups=2)
    layer.weight.data[0, 0, 0, 0] = 0.0
    layer.binarize()
    layer.log_alpha.data.add_(torch.randn(6))
    weight = layer.effective_weight()
    for channel, alpha in zip(weight, layer.log_alpha.exp(), strict=True):
        assert set(channel.flatten().tolist()) == {alpha.item(), -alpha.item()}
    assert torch.equal(weight > 0, layer.weight >= 0)


def test_switching_takes_the_mean_size_of_the_weights_as_factor() -> None:
    layer = BinaryConv2d(8, 6, 3, groups=2)
    x = torch.randn(1, 8, 5, 5)
    before = layer(x)
    assert torch.equal(layer.log_alpha, torch.zeros(6))
    torch.testing.assert_close(
        before, F.conv2d(interleave(x, 2), layer.weight, padding=1, groups=2)
    )
    layer.binarize()
    alpha = layer.log_alpha.exp()
    torch.testing.assert_close(alpha, layer.weight.abs().flatten(1).mean(1), rtol=1e-6, atol=1e-6)
    after = layer(x)
    assert not torch.allclose(before, after)
    # Of all factors of these signs it is the nearest to the weights.
    for factor in (0.95, 1.05):
        signs = sign(layer.weight)
        near = (layer.weight - alpha.view(-1, 1, 1, 1) * signs).square().sum()
        far = (layer.weight - factor * alpha.view(-1, 1, 1, 1) * signs).square().sum()
        assert near < far


def test_weights_of_zero_get_a_factor_above_zero() -> None:
    layer = BinaryConv2d(2, 1, 1)
    nn.init.zeros_(layer.weight)
    layer.binarize()
    assert layer.log_alpha.exp().item() == pytest.approx(1e-8)
    with pytest.raises(ValueError, match="binary already"):
        layer.binarize()


def test_weights_start_as_he_draws_them() -> None:
    layer = BinaryConv2d(64, 256, 3, groups=4)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.02)
    assert layer.weight.abs().max() > 4 * layer.weight.std()  # normal, not uniform
    assert layer.bias is None


def test_every_parameter_has_a_gradient_in_every_state() -> None:
    layer = BinaryConv2d(4, 4, 3, act_bits=1)
    x = torch.randn(2, 4, 6, 6)

    def gradients() -> dict[str, bool]:
        layer.zero_grad()
        layer(x).square().sum().backward()
        found = {}
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
            found[name] = bool(parameter.grad.any())
        return found

    assert gradients() == {"weight": True, "log_alpha": False, "tau": False}
    layer.binarize()
    assert gradients() == {"weight": True, "log_alpha": True, "tau": False}
    layer.binarize_inputs(torch.full((4,), 0.1))
    assert gradients() == {"weight": True, "log_alpha": True, "tau": True}


def test_waiting_parameters_do_not_change_the_result() -> None:
    layer = BinaryConv2d(4, 4, 3, act_bits=1)
    layer.log_alpha.data.fill_(5.0)
    assert layer.tau is not None
    layer.tau.data.fill_(3.0)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(layer.train()(x), F.conv2d(x, layer.weight, padding=1))
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_only_binary_layers_are_clamped() -> None:
    real, binary = BinaryConv2d(1, 1, 1), BinaryConv2d(1, 3, 1)
    binary.binarize()
    real.weight.data.fill_(1.5)
    binary.weight.data = torch.tensor([-1.5, 0.5, 7.0]).view(3, 1, 1, 1)
    clamp_weights([real, binary])
    assert real.weight.item() == 1.5
    assert binary.weight.flatten().tolist() == [-1.0, 0.5, 1.0]


def test_penalty_is_worked_out_by_hand() -> None:
    layer = with_weights([0.25, -0.5, 1.0])
    assert binary_penalty([layer], reduction="sum").item() == pytest.approx(1.25)
    assert binary_penalty([layer]).item() == pytest.approx(1.25 / 3)
    other = with_weights([-2.0])
    # The mean is over weights, not over layers.
    assert binary_penalty([layer, other]).item() == pytest.approx((1.25 + 1.0) / 4)
    assert binary_penalty([]).item() == 0


def test_penalty_pulls_weights_to_their_signs() -> None:
    layer = with_weights([0.25, -0.5, 1.5, -3.0])
    binary_penalty([layer], reduction="sum").backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten().tolist() == [-1, 1, 1, -1]


# ---------------------------------------------------------------- groups
def scattered(layer: nn.Conv2d, weight: Tensor) -> Tensor:
    """Spread grouped weights over all input channels: group j reads j, j + g, j + 2g."""
    groups, per_group = layer.groups, layer.out_channels // layer.groups
    dense = torch.zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    for out in range(layer.out_channels):
        group = out // per_group
        for place in range(layer.in_channels // groups):
            dense[out, group + place * groups] = weight[out, place]
    return dense


@pytest.mark.parametrize("binarized", [False, True])
@pytest.mark.parametrize(
    ("channels", "out", "groups", "stride", "dilation"),
    [(12, 6, 3, 1, 1), (8, 8, 2, 2, 1), (8, 4, 4, 1, 6), (6, 4, 1, 2, 1), (6, 6, 6, 1, 2)],
)
def test_grouped_layer_equals_a_dense_one_with_scattered_weights(
    channels: int, out: int, groups: int, stride: int, dilation: int, binarized: bool
) -> None:
    layer = BinaryConv2d(channels, out, 3, groups=groups, stride=stride, dilation=dilation)
    if binarized:
        layer.binarize()
    x = torch.randn(2, channels, 9, 11)
    weight = layer.effective_weight()
    dense = scattered(layer, weight)
    expected = F.conv2d(x, dense, stride=stride, padding=dilation, dilation=dilation)
    assert expected.shape[-2:] == (-(-9 // stride), -(-11 // stride))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_interleaving_is_a_channel_shuffle() -> None:
    x = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 3, 2)
    order = interleave(x, 3)[0, :, 0, 0].tolist()
    assert order == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert torch.equal(interleave(x, 3), F.channel_shuffle(x, 4))


def test_depthwise_layer_reads_its_own_channel() -> None:
    layer = BinaryConv2d(4, 4, 7, groups=4, dilation=2)
    assert layer.padding == (6, 6)
    x = torch.zeros(1, 4, 9, 9)
    x[:, 2] = torch.randn(9, 9)
    assert [bool(channel.any()) for channel in layer(x)[0]] == [False, False, True, False]


@pytest.mark.parametrize("binarized", [False, True])
def test_dilated_depthwise_gradient_under_bfloat16_is_that_of_float32(binarized: bool) -> None:
    layer = BinaryConv2d(32, 32, 7, groups=32, dilation=2)
    layer.weight.data = layer.weight.bfloat16().float()
    if binarized:
        layer.binarize()
        layer.log_alpha.data.zero_()
    x = torch.randn(2, 32, 30, 28).bfloat16().float().contiguous(memory_format=torch.channels_last)
    upstream = torch.randn(2, 32, 30, 28).bfloat16().float()
    gradients = []
    for half in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            result = layer(x)
        assert result.dtype == (torch.bfloat16 if half else torch.float32)
        result.backward(upstream.to(result.dtype).contiguous(memory_format=torch.channels_last))
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


def test_dilated_depthwise_layer_computes_in_float32_under_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not every processor has the kernels whose gradient is wrong, so the types are checked too.
    layer = BinaryConv2d(4, 4, 3, groups=4, dilation=2)
    seen: list[torch.dtype] = []
    original = layer._conv_forward

    def spy(x: Tensor, *rest: Tensor) -> Tensor:
        seen.append(x.dtype)
        return original(x, *rest)

    monkeypatch.setattr(layer, "_conv_forward", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(1, 4, 9, 9).bfloat16()).dtype == torch.bfloat16
    assert seen == [torch.float32]


# ---------------------------------------------------------------- inputs of one bit
def one_bit(*, groups: int = 2, stride: int = 1, dilation: int = 1) -> BinaryConv2d:
    layer = BinaryConv2d(
        4, 6, 3, groups=groups, stride=stride, dilation=dilation, act_bits=1
    ).eval()
    layer.binarize()
    layer.binarize_inputs(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return layer


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (2, 1, 3)])
def test_one_bit_layer_counts_signs_with_a_border_of_minus_one(
    groups: int, stride: int, dilation: int
) -> None:
    layer = one_bit(groups=groups, stride=stride, dilation=dilation)
    x = torch.randn(1, 4, 7, 8)
    assert layer.tau is not None
    signs = torch.full((1, 4, 7 + 2 * dilation, 8 + 2 * dilation), -1.0)
    above = x >= layer.tau.view(1, 4, 1, 1)
    signs[..., dilation:-dilation, dilation:-dilation] = torch.where(above, 1.0, -1.0)
    dense = scattered(layer, sign(layer.weight))
    counts = F.conv2d(signs, dense, stride=stride, dilation=dilation)
    assert (counts % 2 == 0).all()  # of an even number of signs
    torch.testing.assert_close(layer(x), layer.log_alpha.exp().view(1, 6, 1, 1) * counts)


def test_border_of_minus_one_is_not_a_border_of_zero() -> None:
    layer = one_bit(groups=1)
    x = torch.randn(1, 4, 5, 5)
    assert layer.tau is not None
    signs = sign_of_inputs(x - layer.tau.view(4, 1, 1))
    with_zeros = F.conv2d(signs, layer.effective_weight(), padding=1)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(layer(x)[inner], with_zeros[inner])
    assert not torch.isclose(layer(x)[:, :, 0], with_zeros[:, :, 0]).all()


def test_layers_for_real_inputs_refuse_thresholds() -> None:
    layer = BinaryConv2d(4, 4, 3)
    assert layer.tau is None
    with pytest.raises(ValueError, match="act_bits=1"):
        layer.binarize_inputs(torch.zeros(4))


def test_thresholds_start_at_the_means_of_one_batch() -> None:
    model = nn.Sequential(
        BinaryConv2d(3, 4, 3, act_bits=1), nn.BatchNorm2d(4), nn.ReLU(),
        BinaryConv2d(4, 4, 3, groups=2, act_bits=1), BinaryConv2d(4, 2, 1),
    )  # fmt: skip
    first, second, third = binary_layers(model).values()
    images = torch.randn(2, 3, 8, 8) + torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    statistics = copy.deepcopy(model[1].state_dict())
    binarize_inputs(model.train(), images, [first, second])
    assert (first.act_bits, second.act_bits, third.act_bits) == (1, 1, 32)
    assert first.tau is not None
    assert second.tau is not None
    torch.testing.assert_close(first.tau.data, images.mean((0, 2, 3)))
    # The second was measured on the real outputs of the first, with the norm in evaluation.
    seen = F.relu(F.conv2d(images, first.weight, padding=1) / math.sqrt(1 + 1e-5))
    torch.testing.assert_close(second.tau.data, seen.mean((0, 2, 3)))
    assert model.training
    assert not first._forward_pre_hooks
    for name, value in model[1].state_dict().items():
        assert torch.equal(value, statistics[name])


# ---------------------------------------------------------------- state
@pytest.mark.parametrize("bits", [32, 1])
def test_saved_layer_loads_in_the_state_it_was_saved_in(tmp_path: Path, bits: int) -> None:
    def pair() -> nn.Sequential:
        return nn.Sequential(*(BinaryConv2d(4, 4, 3, act_bits=1) for _ in range(2)))

    source = pair()
    layer = source[1]
    assert isinstance(layer, BinaryConv2d)
    layer.binarize()
    if bits == 1:
        layer.binarize_inputs(torch.full((4,), 0.3))
    state = source.state_dict()
    assert state["1._extra_state"].dtype == torch.uint8
    assert state["1._extra_state"].tolist() == [1, bits]
    assert state["0._extra_state"].tolist() == [0, 32]
    save_file(state, tmp_path / "x.safetensors")
    target = pair()
    target.load_state_dict(load_file(tmp_path / "x.safetensors"))
    states = [(layer.binarized, layer.act_bits) for layer in binary_layers(target).values()]
    assert states == [(False, 32), (True, bits)]
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(source.eval()(x), target.eval()(x))


def test_binary_layers_are_found_by_name() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(BinaryConv2d(2, 2, 1)), "b": nn.Conv2d(2, 2, 1)})
    assert list(binary_layers(model)) == ["a.0"]


# ---------------------------------------------------------------- deployment
@pytest.mark.parametrize("state", ["real", "binary", "one bit"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_deployed_layer_equals_the_original(state: str, groups: int) -> None:
    conv = BinaryConv2d(4, 8, 3, groups=groups, stride=2, dilation=2, act_bits=1)
    norm = nn.BatchNorm2d(8).eval()
    norm.weight.data.uniform_(-2, 2)
    norm.bias.data.normal_()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    if state != "real":
        conv.binarize()
    if state == "one bit":
        conv.binarize_inputs(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    deployed = deploy_binary(conv, norm)
    assert not binary_layers(deployed)
    x = torch.randn(2, 4, 9, 12)
    torch.testing.assert_close(deployed(x), norm(conv.eval()(x)), rtol=1e-4, atol=1e-5)
    if state == "real":
        return
    last = deployed[-1] if isinstance(deployed, nn.Sequential) else deployed
    assert isinstance(last, InterleavedConv2d)
    for channel in last.weight.detach():
        assert len(set(channel.abs().flatten().tolist())) == 1


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_state_exports(strict: bool) -> None:
    x = torch.randn(2, 4, 7, 8)
    for layer in (BinaryConv2d(4, 6, 3, groups=2).eval(), one_bit()):
        program = torch.export.export(layer, (x,), strict=strict)
        torch.testing.assert_close(program.module()(x), layer(x))
