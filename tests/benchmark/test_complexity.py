from __future__ import annotations

import pytest
import torch
from torch import nn

from rtseg.benchmark.complexity import count_macs, count_operations, count_parameters
from rtseg.models.lsa_binet import LSABiNet


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False),
        nn.BatchNorm2d(8, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_small_network_is_counted_by_hand() -> None:
    model = small()
    assert count_parameters(model) == (216 + 8) + 16 + 8 + 72 + 45
    macs = 216 * 5 * 6 + 72 * 5 * 6 + 40
    assert count_macs(model, (10, 12)) == macs
    # One affine batch norm (4 each) and one PReLU (1 each) over 8 x 5 x 6 elements.
    assert count_operations(model, (10, 12)) == macs + 5 * 240


def test_counting_leaves_the_model_as_it_is() -> None:
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_operations(model, (10, 12))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("lrfa", "svfm", "rcad", "operations"),
    [
        (False, False, False, 3_489_933_600),
        (True, False, False, 3_503_617_200),
        (False, True, False, 5_135_018_720),
        (False, False, True, 7_152_232_500),
        (True, True, False, 5_148_702_320),
        (True, True, True, 8_811_001_220),
        (True, False, True, 7_165_916_100),
        (False, True, True, 8_797_317_620),
    ],
)
def test_lsa_binet_has_its_published_cost(
    lrfa: bool, svfm: bool, rcad: bool, operations: int
) -> None:
    model = LSABiNet(11, lrfa=lrfa, svfm=svfm, rcad=rcad)
    assert count_operations(model, (360, 480)) == operations


def test_lsa_binet_has_its_multiply_adds_at_both_sizes() -> None:
    model = LSABiNet(19)
    # Convolutions alone cost less than the published figure at either size.
    assert count_macs(LSABiNet(11), (360, 480)) == 8_655_357_020
    assert count_macs(model, (512, 1024)) == 26_297_595_488
    assert count_operations(model, (512, 1024)) == 26_769_831_520
