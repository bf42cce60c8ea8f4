"""BiSegUNet's published shapes and counts, on networks without data."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from rtseg.benchmark.complexity import count_parameters
from rtseg.models.bisegunet import (
    BiSegUNet,
    RefinementBlock,
    bisegunet_edge,
    bisegunet_half,
    bisegunet_s2,
    group_count,
)
from rtseg.nn.binary import binary_layers


def shape_only(num_classes: int = 19, *, build: Any = BiSegUNet, **switches: Any) -> BiSegUNet:
    with torch.device("meta"):
        model = build(num_classes, **switches)
    assert isinstance(model, BiSegUNet)
    return model


# ---------------------------------------------------------------- counts
@pytest.mark.parametrize(
    ("build", "num_classes", "parameters", "weights"),
    [
        (BiSegUNet, 19, 18_485_123, 15_082_176),
        (BiSegUNet, 21, 18_485_381, 15_082_176),
        (BiSegUNet, 150, 18_502_022, 15_082_176),
        (bisegunet_s2, 19, 18_485_123, 15_082_176),
        (bisegunet_half, 19, 5_301_579, 4_429_536),
        (bisegunet_edge, 19, 1_713_779, 1_484_592),
        (partial(BiSegUNet, width=0.5), 19, 4_691_659, 3_819_616),
        (partial(BiSegUNet, width=0.25), 19, 1_224_819, 995_632),
    ],
)
def test_every_size_has_its_counts(
    build: Any, num_classes: int, parameters: int, weights: int
) -> None:
    model = shape_only(num_classes, build=build)
    layers = binary_layers(model).values()
    assert len(layers) == 50
    assert count_parameters(model) == parameters
    assert sum(layer.weight.numel() for layer in layers) == weights


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"block": "none"}, 11_414_739),
        ({"block": "ms_se"}, 18_800_963),
        ({"block": "ms_cbam"}, 18_801_453),
        ({"branches": ("dilated", "grouped")}, 13_692_747),
        ({"branches": ("binary", "grouped")}, 16_453_383),
        ({"branches": ("binary", "dilated")}, 16_504_839),
        ({"block_count": 0}, 11_414_739),
        ({"block_count": 1}, 16_671_187),
        ({"block_count": 2}, 18_005_075),
        ({"block_count": 3}, 18_348_435),
        ({"block_count": 3, "output_block": True}, 18_348_435 + 36_688),
        ({"output_block": False}, 18_485_123 - 36_688),
        ({"block_attention": False}, 15_683_219),
        ({"block_residual": False}, 18_485_123),
        ({"kv_pool": 2}, 18_485_123),
        # 32 factors more, of the first layer, whose 864 weights were there before.
        ({"binarize_stem_first": True}, 18_485_123 + 32),
    ],
)
def test_every_ablation_has_its_parameter_count(switches: dict[str, Any], expected: int) -> None:
    assert count_parameters(shape_only(**switches)) == expected


def test_every_stage_has_its_parameter_count() -> None:
    model = shape_only()
    stages = {
        model.stem: 8_128,
        model.encoder1: 37_632,
        model.encoder2: 148_992,
        model.encoder3: 592_896,
        model.encoder4: 2_365_440,
        model.capacity1: 100_000,
        model.capacity2: 343_360,
        model.capacity3: 1_333_888,
        model.capacity4: 5_256_448,
        model.capacity_out: 36_688,
        model.aspp: 4_721_664,
        model.attention: 526_336,
        model.project: 1_051_648,
        model.decoder1: 1_182_720,
        model.decoder2: 591_360,
        model.decoder3: 148_224,
        model.decoder4: 37_248,
        model.head: 2_451,
    }
    for stage, expected in stages.items():
        assert count_parameters(stage) == expected
    assert count_parameters(model) == sum(stages.values())
    factors = sum(layer.log_alpha.numel() for layer in binary_layers(model).values())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (factors, sum(2 * norm.num_features for norm in norms)) == (23_776, 49_664)


def test_thresholds_belong_to_one_bit_inputs_and_spare_7x7_and_first_layers() -> None:
    model = shape_only(act_bits=1, binarize_stem_first=True)
    layers = binary_layers(model)
    without = {name for name, layer in layers.items() if layer.tau is None}
    blocks = ("capacity1", "capacity2", "capacity3", "capacity4", "capacity_out")
    assert without == {
        "stem.stream1.conv",
        *(f"{name}.branches.dilated.1.conv" for name in blocks),
    }
    thresholds = sum(layer.in_channels for layer in layers.values() if layer.tau is not None)
    assert count_parameters(model) == 18_485_123 + 32 + thresholds


# ---------------------------------------------------------------- shapes
def test_stages_have_the_published_shapes() -> None:
    model = shape_only().eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _m, _x, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
        )
    logits = model(torch.empty(1, 3, 512, 512, device="meta")).logits
    assert logits.shape == (1, 19, 512, 512)
    assert seen == {
        "stem": (128, 512, 512),
        "encoder1": (256, 256, 256),
        "encoder2": (512, 128, 128),
        "encoder3": (1024, 64, 64),
        "encoder4": (2048, 32, 32),
        "capacity1": (256, 256, 256),
        "capacity2": (512, 128, 128),
        "capacity3": (1024, 64, 64),
        "capacity4": (2048, 32, 32),
        "aspp": (1024, 32, 32),
        "attention": (1024, 32, 32),
        "project": (1024, 32, 32),
        "decoder1": (1024, 32, 32),
        "decoder2": (512, 64, 64),
        "decoder3": (256, 128, 128),
        "decoder4": (128, 256, 256),
        "capacity_out": (128, 512, 512),
        "head": (19, 512, 512),
    }


@pytest.mark.parametrize("size", [(512, 1024), (360, 481), (97, 131), (32, 32), (32, 64)])
@pytest.mark.parametrize("build", [BiSegUNet, bisegunet_s2, bisegunet_half])
@pytest.mark.parametrize("training", [True, False])
def test_scores_have_the_size_of_the_image(
    build: Any, size: tuple[int, int], training: bool
) -> None:
    model = shape_only(5, build=build).train(training)
    output = model(torch.empty(2, 3, *size, device="meta"))
    assert output.logits.shape == (2, 5, *size)
    assert output.aux == ()


def test_half_size_halves_the_stem_alone() -> None:
    model = shape_only(build=bisegunet_s2).eval()
    sizes: list[torch.Size] = []
    for module in (model.stem, model.encoder4, model.head):
        module.register_forward_hook(lambda _m, _x, out: sizes.append(out.shape[-2:]))
    model(torch.empty(1, 3, 64, 96, device="meta"))
    assert [tuple(size) for size in sizes] == [(32, 48), (2, 3), (32, 48)]


# ---------------------------------------------------------------- groups
@pytest.mark.parametrize(
    ("wanted", "channels", "out", "min_width", "expected"),
    [
        (4, 32, 32, 8, 4), (8, 64, 64, 8, 8), (64, 256, 128, 8, 32), (64, 1024, 512, 8, 64),
        (32, 64, 64, 8, 8), (8, 16, 16, 32, 1), (8, 3, 32, 8, 1), (8, 96, 60, 8, 6),
        (8, 96, 60, 16, 6), (5, 64, 64, 8, 4),
    ],
)  # fmt: skip
def test_groups_are_lowered_until_they_fit(
    wanted: int, channels: int, out: int, min_width: int, expected: int
) -> None:
    assert group_count(wanted, channels, out, min_width=min_width) == expected


def test_layers_have_the_groups_that_reproduce_the_published_counts() -> None:
    found = {name: layer.groups for name, layer in binary_layers(shape_only()).items()}
    block = {
        f"capacity4.branches.{name}.conv": groups
        for name, groups in (
            ("binary_pair.0", 32), ("binary_pair.1", 32), ("binary_single", 32),
            ("dilated.0", 8), ("dilated.1", 1024), ("grouped", 64),
        )
    }  # fmt: skip
    expected = {
        "stem.stream2.conv": 4, "stem.stream3.conv": 8, "project.conv": 2,
        **{f"encoder{i}.conv": 8 for i in range(1, 5)},
        **{f"decoder{i}.conv": 8 for i in range(1, 5)},
        **{f"aspp.branches.{i}.conv": 4 for i in range(4)},
        **block, "capacity4.project.conv": 8,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_wide_groups_read_at_least_32_channels() -> None:
    for layer in binary_layers(shape_only(build=bisegunet_half)).values():
        depthwise = layer.groups == layer.in_channels
        assert depthwise or layer.groups == 1 or layer.in_channels // layer.groups >= 32


def test_blocks_stand_on_the_deepest_skips_first() -> None:
    names = ("capacity4", "capacity3", "capacity2", "capacity1", "capacity_out")
    for count in range(5):
        model = shape_only(block_count=count)
        found = [isinstance(getattr(model, name), RefinementBlock) for name in names]
        assert found == [True] * count + [False] * (4 - count) + [count == 4]
