"""The STDC trunks against the figures of their paper, written out as plain functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.models.bisenetformer import bisenetformer_stdc2
from rtseg.models.stdc import (
    STDC,
    STDC1_DEPTHS,
    STDC2_DEPTHS,
    STDCBlock,
    stdc1_classifier,
    stdc2_classifier,
)
from rtseg.structures import ClassificationOutput


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def warm(model: Any) -> Any:
    """Give every batch norm its own factors and statistics; return the model in evaluation."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.uniform_(-0.5, 0.5)
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def plain(conv: Any, norm: Any, x: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolve and normalise by the formulas, with the padding that keeps the size at stride 1."""
    y = F.conv2d(x, conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2, groups=groups)
    mean, variance, scale, shift = (
        t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / torch.sqrt(variance + 1e-5) * scale + shift


@pytest.mark.parametrize(
    ("builder", "trunk", "whole", "macs"),
    [
        (stdc1_classifier, 5_318_304, 6_343_304, 753_638_912),
        (stdc2_classifier, 9_348_768, 10_373_768, 1_384_652_288),
    ],
)
def test_counts_are_exact(builder: Any, trunk: int, whole: int, macs: int) -> None:
    with torch.device("meta"):
        model = builder(1000)
    assert count_parameters(model.backbone) == trunk
    assert count_parameters(model) == whole
    assert count_macs(model, (224, 224)) == macs


@pytest.mark.parametrize(("stride", "size"), [(1, (7, 9)), (2, (7, 9)), (2, (8, 10))])
def test_block_follows_its_figure(stride: int, size: tuple[int, int]) -> None:
    block = warm(STDCBlock(6, 16, stride=stride))
    x = torch.randn(2, 6, *size)
    a = plain(block.reduce.conv, block.reduce.norm, x).relu()
    d = p = a
    if stride == 2:
        d = plain(block.down.conv, block.down.norm, a, stride=2, groups=8)
        assert (d < 0).any()  # no activation
        p = F.avg_pool2d(a, 3, 2, 1, count_include_pad=True)
    b = plain(block.conv2.conv, block.conv2.norm, d).relu()
    c = plain(block.conv3.conv, block.conv3.norm, b).relu()
    e = plain(block.conv4.conv, block.conv4.norm, c).relu()
    assert [part.shape[1] for part in (p, b, c, e)] == [8, 4, 2, 2]
    torch.testing.assert_close(block(x), torch.cat([p, b, c, e], dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("depths", "blocks"), [(STDC1_DEPTHS, 6), (STDC2_DEPTHS, 12)])
def test_stages_halve_at_their_first_block(depths: tuple[int, int, int], blocks: int) -> None:
    trunk = STDC(depths=depths, base_width=8)
    stages = [trunk.stage3, trunk.stage4, trunk.stage5]
    assert tuple(len(stage) for stage in stages) == depths
    assert sum(depths) == blocks
    for stage in stages:
        strided = [isinstance(block.pool, nn.AvgPool2d) for block in stage]
        assert strided == [True] + [False] * (len(stage) - 1)
    shapes = [tuple(f.shape[1:]) for f in trunk.eval()(torch.randn(1, 3, 33, 65))]
    assert shapes == [(32, 5, 9), (64, 3, 5), (128, 2, 3)]


def test_convolutions_start_as_kaiming_normal_over_the_outputs() -> None:
    trunk = STDC(depths=STDC1_DEPTHS)
    weight = trunk.stage5[0].conv2.conv.weight  # 512 -> 256, 3x3
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert weight.abs().max() > 4 * weight.std()
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="base_width is 33; it must be even"):
        STDC(depths=STDC1_DEPTHS, base_width=33)


def test_classifier_averages_over_the_map() -> None:
    model = warm(stdc1_classifier(7, base_width=8))
    images = torch.randn(2, 3, 64, 96)
    output = model(images)
    assert type(output) is ClassificationOutput
    last = model.backbone(images)[2]
    means = last.flatten(2).mean(2)
    expected = means @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(output.logits, expected)


def test_trunk_weights_go_into_the_network_by_their_prefix() -> None:
    classifier = stdc2_classifier(10, base_width=8)
    network = bisenetformer_stdc2(3, base_width=8)
    state = {k: v for k, v in classifier.state_dict().items() if k.startswith("backbone.")}
    result = network.load_state_dict(state, strict=False)
    assert result.unexpected_keys == []
    assert not [key for key in result.missing_keys if key.startswith("backbone.")]


def test_deployable_classifier_has_no_norms_and_equals_the_original() -> None:
    model = warm(stdc1_classifier(7, base_width=8)).train()
    fused = model.deployable()
    assert model.training
    assert not fused.training
    assert not [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(1, 3, 64, 96)
    expected, got = model.eval()(images).logits, fused(images).logits
    assert (expected - got).abs().max() <= 1e-5 * expected.abs().max()
    again = fused.deployable()
    assert torch.equal(again(images).logits, got)


def test_every_parameter_of_the_classifier_receives_a_gradient() -> None:
    model = stdc1_classifier(5, base_width=8).train()
    logits = model(torch.randn(4, 3, 64, 64)).logits
    F.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
