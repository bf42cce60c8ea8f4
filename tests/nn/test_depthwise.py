from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rtseg.nn.depthwise import DepthwiseConv2d, same_padding


def weight_gradient(conv: nn.Conv2d, x: Tensor, out_gradient: Tensor, *, half: bool) -> Tensor:
    conv = copy.deepcopy(conv)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        result = conv(x)
    result.backward(out_gradient.to(result.dtype))
    assert conv.weight.grad is not None
    return conv.weight.grad


@pytest.mark.parametrize("kernel", [(3, 1), (3, 3), (5, 1), (1, 3)])
@pytest.mark.parametrize("dilation", [1, 2, 4, 16])
def test_weight_gradient_under_bfloat16_is_that_of_float32(
    kernel: tuple[int, int], dilation: int
) -> None:
    torch.manual_seed(0)
    steps = (dilation if kernel[0] > 1 else 1, dilation if kernel[1] > 1 else 1)
    conv = DepthwiseConv2d(32, kernel, dilation=steps)
    # Values that bfloat16 holds exactly, so that only the kernels can differ.
    x = torch.randn(2, 32, 45, 60).bfloat16().float().contiguous(memory_format=torch.channels_last)
    out_gradient = torch.randn(2, 32, 45, 60).bfloat16().float()
    out_gradient = out_gradient.contiguous(memory_format=torch.channels_last)
    expected = weight_gradient(conv, x, out_gradient, half=False)
    got = weight_gradient(conv, x, out_gradient, half=True)
    assert (got - expected).norm() < 0.01 * expected.norm()


def test_result_has_the_type_of_the_autocast() -> None:
    conv = DepthwiseConv2d(4, (3, 1), dilation=(2, 1), bias=True)
    x = torch.randn(1, 4, 9, 9)
    assert conv(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = conv(x)
        with torch.no_grad():
            evaluated = conv(x)
    assert trained.dtype == evaluated.dtype == torch.bfloat16
    torch.testing.assert_close(trained.float(), conv(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_float32_is_kept_to_dilated_layers_under_autocast_with_gradients(
    monkeypatch: pytest.MonkeyPatch, dilation: tuple[int, int], half: bool, gradient: bool
) -> None:
    # Not every processor has the kernels whose gradient is wrong, so the types are checked too.
    conv = DepthwiseConv2d(4, dilation=dilation)
    seen: list[tuple[bool, torch.dtype]] = []
    original = conv._conv_forward

    def spy(x: Tensor, *rest: Tensor) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), x.dtype))
        return original(x, *rest)

    monkeypatch.setattr(conv, "_conv_forward", spy)
    dtype = torch.bfloat16 if half else torch.float32
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=half),
        torch.set_grad_enabled(gradient),
    ):
        conv(torch.randn(1, 4, 9, 9).to(dtype))
    leaves = half and gradient and dilation != (1, 1)
    assert seen == [(False, torch.float32)] if leaves else seen == [(half, dtype)]


@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("multiplier", [2, 3])
def test_several_channels_per_channel_are_trained_in_parts(
    dilation: tuple[int, int], multiplier: int
) -> None:
    torch.manual_seed(0)
    conv = DepthwiseConv2d(5, out_channels=5 * multiplier, dilation=dilation, bias=True)
    plain = nn.Conv2d(
        5, 5 * multiplier, 3, padding=dilation, dilation=dilation, groups=5, bias=True
    )
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 5, 11, 7)
    factors = torch.randn(2, 5 * multiplier, 11, 7)
    for layer in (conv, plain):
        (layer(x) * factors).sum().backward()
    torch.testing.assert_close(conv(x), plain(x))
    torch.testing.assert_close(conv.weight.grad, plain.weight.grad)
    torch.testing.assert_close(conv.bias.grad, plain.bias.grad)
    with torch.no_grad():
        assert torch.equal(conv(x), plain(x))


def test_channels_do_not_mix_and_may_multiply() -> None:
    conv = DepthwiseConv2d(3, out_channels=6)
    x = torch.zeros(1, 3, 5, 5)
    x[:, 1] = torch.randn(5, 5)
    assert [bool(channel.any()) for channel in conv(x)[0]] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


def test_equals_a_plain_convolution_of_the_same_weights() -> None:
    conv = DepthwiseConv2d(4, (3, 1), dilation=(4, 1))
    plain = nn.Conv2d(4, 4, (3, 1), padding=(4, 0), dilation=(4, 1), groups=4, bias=False)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 4, 11, 7)
    assert torch.equal(conv(x), plain(x))


def test_same_padding_keeps_the_size() -> None:
    assert same_padding((3, 1), (16, 1)) == (16, 0)
    assert same_padding((1, 5), (3, 2)) == (0, 4)


@pytest.mark.slow
def test_compiles_without_graph_breaks() -> None:
    conv = DepthwiseConv2d(8, (3, 1), dilation=(2, 1))
    x = torch.randn(2, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(conv, fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = compiled(x), conv(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected)
