"""Layers filled up with zeros, and pools as convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.nn.fill import (
    average_pool,
    bias_of,
    convolution,
    fill,
    fill_convolution,
    missing,
    prelu,
    slopes_of,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_missing_channels_are_counted_to_the_next_step() -> None:
    assert [missing(count) for count in (1, 31, 32, 33, 259)] == [31, 1, 0, 31, 29]
    assert missing(129, step=16) == 15


def test_zeros_come_last() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert fill(x, 3).tolist() == [[1, 2], [3, 4], [0, 0]]
    assert fill(x, 2, 3).tolist() == [[1, 2, 0], [3, 4, 0]]
    kernels = torch.ones(1, 1, 2, 2)
    assert fill(kernels, 2, 3).sum((2, 3)).tolist() == [[4, 0, 0], [0, 0, 0]]


def test_a_convolution_is_made_of_weights_without_random_numbers() -> None:
    before = torch.get_rng_state()
    weight, bias = torch.arange(6.0).view(2, 3).double(), torch.ones(2).double()
    conv = convolution(weight, bias)
    fill_convolution(conv, in_channels=5)
    assert torch.equal(torch.get_rng_state(), before)
    found = conv(torch.ones(1, 3, 2, 2))
    assert found.dtype == torch.float32
    assert found[0, :, 0, 0].tolist() == [4, 13]
    strided = convolution(torch.randn(2, 3, 3, 3), stride=2)
    assert strided(torch.zeros(1, 3, 8, 6)).shape == (1, 2, 4, 3)
    assert strided.bias is None


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 5, 3, stride=2, padding=1),
        nn.Conv2d(3, 5, (1, 3), dilation=2, padding=(0, 2), bias=False),
    ],
)
def test_more_channels_change_nothing(conv: nn.Conv2d) -> None:
    filled = fill_convolution(conv, in_channels=4, out_channels=7)
    x = torch.randn(2, 3, 9, 8)
    other = torch.cat([x, torch.full((2, 1, 9, 8), 1e3)], dim=1)  # read with weights of 0
    found = filled(other)
    torch.testing.assert_close(found[:, :5], conv(x))
    assert not found[:, 5:].any()
    torch.testing.assert_close(fill_convolution(conv)(x), conv(x))


@pytest.mark.parametrize("side", ["in_channels", "out_channels"])
def test_depthwise_convolutions_grow_on_both_sides(side: str) -> None:
    conv = DepthwiseConv2d(3, (3, 1), dilation=(2, 1), bias=True)
    filled = fill_convolution(conv, **{side: 4})
    x = torch.randn(1, 4, 9, 5)
    found = filled(x)
    torch.testing.assert_close(found[:, :3], conv(x[:, :3]))
    assert not found[:, 3].any()


def test_slopes_and_biases_are_copies() -> None:
    act = prelu(torch.tensor([0.5, 0.25]))
    assert act(torch.tensor([[-2.0, -4.0]])).tolist() == [[-1, -1]]
    slopes_of(act)
    assert bias_of(nn.Conv2d(1, 2, 1)).shape == (2,)
    with pytest.raises(AssertionError):
        bias_of(nn.Conv2d(1, 2, 1, bias=False))


@pytest.mark.parametrize("size", [(8, 6), (9, 7), (1, 2)])
def test_a_pool_is_a_convolution(size: tuple[int, int]) -> None:
    """Twice the second channel and the first once, of three channels of which the last is not."""
    images = torch.randn(2, 3, *size)
    pool = average_pool(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    expected = F.avg_pool2d(images, 3, stride=2, padding=1)
    found = pool(images)
    torch.testing.assert_close(found[:, 0], 2 * expected[:, 1])
    torch.testing.assert_close(found[:, 1], expected[:, 0])
