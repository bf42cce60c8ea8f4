from __future__ import annotations

import pytest
import torch
from torch import nn

from rtseg.benchmark.complexity import (
    count_macs,
    count_operations,
    count_parameters,
    measure,
    shape_only_copy,
)
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


def test_one_pass_counts_all() -> None:
    counts = measure(small(), (10, 12))
    assert counts.parameters == count_parameters(small())
    assert counts.macs == count_macs(small(), (10, 12))
    assert counts.operations == count_operations(small(), (10, 12))


def test_parameters_that_only_training_uses_do_not_count() -> None:
    class WithHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 100, 1)
            self.offset = nn.Parameter(torch.zeros(7))
            self.again = self.conv  # a module that is called twice counts once

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = self.conv(x)
            self.again(x)
            return self.head(features) if self.training else features

    assert measure(WithHead().train(), (8, 8)).parameters == 12 + 4 + 7


def test_norms_and_activations_are_skipped_but_seen() -> None:
    twin = shape_only_copy(small())
    seen = []
    for module in twin:
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    twin(torch.empty(1, 3, 10, 12, device="meta"))
    assert [tuple(shape) for shape in seen] == [
        *[(1, 8, 5, 6)] * 5, (1, 8, 1, 1), (1, 8), (1, 5),
    ]  # fmt: skip
    x = torch.empty(1, 8, 5, 6, device="meta")
    assert twin[1](x) is twin[2](x) is x


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
