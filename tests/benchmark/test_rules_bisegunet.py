from __future__ import annotations

import pytest
import torch
from torch import nn

from rtseg.benchmark.complexity import count_macs
from rtseg.benchmark.rules_bisegunet import binary_flops, effective_flops, effective_parameters
from rtseg.models.bisegunet import BiSegUNet
from rtseg.nn.binary import BinaryConv2d, binary_layers


def small() -> nn.Sequential:
    """Build 81 float weights, then 12 binary ones with 4 factors."""
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1, bias=False), BinaryConv2d(3, 4, 1, stride=2), nn.ReLU()
    )


def build(num_classes: int = 19, **switches: object) -> BiSegUNet:
    with torch.device("meta"):
        return BiSegUNet(num_classes, **switches)  # type: ignore[arg-type]


def test_small_network_is_counted_by_hand() -> None:
    model = small()
    assert effective_parameters(model) == 81 + 4 + 1  # 12 bits fill one word
    assert binary_flops(model, (6, 8)) == 2 * 12 * 3 * 4
    expected = 2 * 81 * 6 * 8 + 2 * 12 * 3 * 4 / 64
    assert effective_flops(model, (6, 8)) == pytest.approx(expected)


def test_counting_leaves_the_model_as_it_is_and_asks_for_no_switch() -> None:
    model = small().train()
    before = effective_parameters(model), effective_flops(model, (6, 8))
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    for layer in binary_layers(model).values():
        layer.binarize()
    assert (effective_parameters(model), effective_flops(model, (6, 8))) == before


def test_default_network_has_the_published_cost() -> None:
    model, size = build(), (512, 1024)
    total, binary = 2 * count_macs(model, size), binary_flops(model, size)
    assert total == 195_053_305_856  # published: 194.7 G
    assert binary == 187_296_645_120
    assert effective_parameters(model) == 3_402_947 + 471_318  # published: 4.3 M
    assert effective_flops(model, size) / 1e9 == pytest.approx(10.68, abs=0.005)  # published: 10.4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switches", "total", "effective"),
    [
        ({}, 805_966_266_368, 68.5),
        ({"block": "none"}, 470_164_701_184, 63.2),
        ({"block": "ms_se"}, 787_997_868_032, 68.2),
        ({"block": "ms_cbam"}, 788_545_388_544, 68.8),
        ({"branches": ("dilated", "grouped")}, 603_561_742_336, 65.3),
        ({"branches": ("binary", "grouped")}, 737_529_558_016, 67.4),
        ({"branches": ("binary", "dilated")}, 741_002_441_728, 67.5),
        ({"block_count": 0}, 470_164_701_184, 63.2),
        ({"block_count": 1}, 521_456_844_800, 64.0),
        ({"block_count": 2}, 573_567_926_272, 64.9),
        ({"block_count": 3}, 627_322_388_480, 65.7),
        ({"block_attention": False}, 805_960_679_424, 68.5),
    ],
)
def test_every_ablation_has_its_cost_at_full_size(
    switches: dict[str, object], total: int, effective: float
) -> None:
    model, size = build(**switches), (1024, 2048)
    assert 2 * count_macs(model, size) == total
    assert effective_flops(model, size) / 1e9 == pytest.approx(effective, abs=0.05)


@pytest.mark.slow
def test_cost_at_512x512_is_not_the_published_one() -> None:
    # The paper prints 2.6 G, a quarter of its cost at twice the pixels.
    assert effective_flops(build(150), (512, 512)) / 1e9 == pytest.approx(13.6, abs=0.05)
    assert effective_flops(build(19), (512, 512)) / 1e9 == pytest.approx(4.8, abs=0.05)
    assert 2 * count_macs(build(150), (512, 512)) / 1e9 == pytest.approx(105.8, abs=0.05)
