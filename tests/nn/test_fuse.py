from __future__ import annotations

import pytest
import torch
from torch import nn

from rtseg.nn.conv import ConvNormAct, NormAct
from rtseg.nn.depthwise import DepthwiseConv2d
from rtseg.nn.fuse import fuse_batch_norms, fuse_conv_norm


def used_norm(channels: int, *, eps: float = 1e-3) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=eps).eval()
    for tensor, low, high in (
        (norm.weight.data, 0.5, 2.0),
        (norm.bias.data, -1.0, 1.0),
        (norm.running_mean, -1.0, 1.0),
        (norm.running_var, 0.1, 3.0),
    ):
        assert tensor is not None
        tensor.uniform_(low, high)
    return norm


def test_folding_one_weight_is_worked_out_by_hand() -> None:
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    conv.weight.data.fill_(3.0)
    conv.bias.data.fill_(5.0)
    norm.weight.data.fill_(4.0)
    norm.bias.data.fill_(7.0)
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(3.0)
    fused = fuse_conv_norm(conv, norm)
    # Scale 4 / sqrt(3 + 1) = 2: weight 3 * 2, bias 7 + (5 - 1) * 2.
    assert fused.weight.item() == 6.0
    assert fused.bias is not None
    assert fused.bias.item() == 15.0
    assert conv.weight.item() == 3.0


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, (1, 3), dilation=2, groups=2),
        DepthwiseConv2d(4, (3, 1), dilation=(2, 1), out_channels=8),
    ],
)
def test_folded_convolution_equals_convolution_and_norm(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    norm = used_norm(conv.out_channels)
    x = torch.randn(2, 4, 11, 9)
    fused = fuse_conv_norm(conv, norm)
    assert type(fused) is type(conv)
    torch.testing.assert_close(fused(x), norm(conv(x)), rtol=1e-5, atol=1e-5)


def test_norms_that_follow_no_convolution_stay() -> None:
    model = nn.Sequential(NormAct(3), ConvNormAct(3, 4, 3), nn.BatchNorm2d(4)).eval()
    model[1].norm = used_norm(4)
    x = torch.randn(1, 3, 5, 5)
    expected = model(x)
    fuse_batch_norms(model)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2
    torch.testing.assert_close(model(x), expected)


def test_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        fuse_conv_norm(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
