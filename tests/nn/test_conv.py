from __future__ import annotations

import torch
import torch.nn.functional as F

from rtseg.nn.conv import ConvNormAct, NormAct


def test_norm_act_has_three_parameters_per_channel() -> None:
    assert sum(p.numel() for p in NormAct(7).parameters()) == 21


def test_block_convolves_normalises_then_activates() -> None:
    block = ConvNormAct(3, 5, 3, stride=2).eval()
    block.norm.running_mean.uniform_(-1, 1)
    block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 12)
    convolved = F.conv2d(x, block.conv.weight, stride=2, padding=1)
    mean, variance = (t[:, None, None] for t in (block.norm.running_mean, block.norm.running_var))
    normed = (convolved - mean) / torch.sqrt(variance + 1e-3)
    expected = torch.where(normed > 0, normed, 0.25 * normed)
    assert block(x).shape == (2, 5, 5, 6)
    torch.testing.assert_close(block(x), expected)


def test_activation_can_be_left_out() -> None:
    block = ConvNormAct(3, 5, 1, activation="none").eval()
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(block(x), block.norm(block.conv(x)))
    assert sum(p.numel() for p in block.parameters()) == 3 * 5 + 2 * 5


def test_activation_can_be_a_plain_relu() -> None:
    block = ConvNormAct(3, 5, 1, activation="relu").eval()
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(block(x), block.norm(block.conv(x)).clamp(min=0))


def test_depthwise_block_keeps_the_size_under_dilation() -> None:
    block = ConvNormAct(4, 4, (3, 1), depthwise=True, dilation=(8, 1))
    assert block.conv.groups == 4
    assert block(torch.randn(2, 4, 10, 6)).shape == (2, 4, 10, 6)
