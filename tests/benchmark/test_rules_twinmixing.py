"""TwinMixing's published operations, counted from the network and by a closed formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rtseg.benchmark.complexity import count_macs, count_parameters
from rtseg.benchmark.rules_twinmixing import published_flops
from rtseg.models.twinmixing import (
    TwinMixing,
    twinmixing_base,
    twinmixing_large,
    twinmixing_nano,
    twinmixing_tiny,
)

PAPER_SIZE = (384, 640)
# conv, transposed conv, linear (value once), norm and PReLU elements, pooled and resized elements
TERMS = {
    "nano": (274_695_168, 19_660_800, 2_375_680, 12_119_040, 13_188_096, 1_102_080, 2_211_840),
    "tiny": (770_099_712, 39_321_600, 11_141_120, 23_178_240, 23_199_744, 1_593_600, 2_457_600),
    "base": (
        3_196_090_368, 102_236_160, 57_671_680, 49_228_800, 47_210_496, 2_576_640, 2_949_120,
    ),
    "large": (
        11_987_169_792, 322_437_120, 335_544_320, 107_228_160, 101_351_424, 4_542_720, 3_932_160,
    ),
}  # fmt: skip
MATRIX_PRODUCTS = {
    "nano": 7_864_320, "tiny": 31_457_280, "base": 125_829_120, "large": 503_316_480,
}  # fmt: skip
BUILDERS: dict[str, tuple[Any, int]] = {
    "nano": (twinmixing_nano, 8),
    "tiny": (twinmixing_tiny, 16),
    "base": (twinmixing_base, 32),
    "large": (twinmixing_large, 64),
}


def build(name: str, **switches: Any) -> TwinMixing:
    with torch.device("meta"):  # no weights are needed
        return BUILDERS[name][0](**switches)


def closed_formula(name: str) -> int:
    """Put the terms of 384x640 together as the published convention does."""
    conv, transposed, linear, norm, prelu, pooled, resized = TERMS[name]
    maps = 4 * BUILDERS[name][1]
    pixels = (PAPER_SIZE[0] // 16) * (PAPER_SIZE[1] // 32)
    repeated = 7 * maps * maps * maps // 2 + (pixels + 1) * 8 * maps
    return conv + 4 * transposed + linear + 4 * norm + prelu + pooled + 11 * resized + repeated


@pytest.mark.parametrize(
    ("name", "operations", "small", "single"),
    [
        ("nano", 443_048_448, 111_217_728, 318_571_008),
        ("tiny", 1_084_230_912, 274_452_672, 885_411_072),
        ("base", 3_949_681_920, 1_013_582_400, 3_498_958_080),
        ("large", 14_250_228_480, 3_767_866_560, 12_882_819_840),
    ],
)
def test_every_variant_has_its_operations(
    name: str, operations: int, small: int, single: int
) -> None:
    model = build(name)
    assert closed_formula(name) == operations
    assert published_flops(model, PAPER_SIZE) == operations
    assert published_flops(model, (192, 320)) == small
    task = "lane" if name in ("nano", "base") else "drivable"
    assert published_flops(build(name, tasks=task), PAPER_SIZE) == single


@pytest.mark.parametrize(
    ("name", "macs", "small"),
    [
        ("nano", 304_595_968, 76_511_488),
        ("tiny", 852_019_712, 215_683_712),
        ("base", 3_481_827_328, 891_002_368),
        ("large", 13_148_467_712, 3_447_942_272),
    ],
)
def test_every_variant_has_its_multiply_adds(name: str, macs: int, small: int) -> None:
    model = build(name)
    assert sum(TERMS[name][:3]) + MATRIX_PRODUCTS[name] == macs
    assert count_macs(model, PAPER_SIZE) == macs
    assert count_macs(model, (192, 320)) == small


@pytest.mark.parametrize(
    ("groups", "parameters", "operations", "macs"),
    [
        ("auto", 98_176, 1_084_230_912, 852_019_712),
        (1, 115_048, 1_222_010_112, 989_798_912),
        (2, 104_512, 1_118_514_432, 886_303_232),
        (4, 100_704, 1_093_938_432, 861_727_232),
        (8, 99_232, 1_088_285_952, 856_074_752),
        (16, 98_496, 1_085_459_712, 853_248_512),
        (32, 98_176, 1_084_230_912, 852_019_712),
    ],
)
def test_every_row_on_groups_has_its_counts(
    groups: Any, parameters: int, operations: int, macs: int
) -> None:
    model = build("tiny", groups=groups)
    assert count_parameters(model) == parameters
    assert published_flops(model, PAPER_SIZE) == operations
    assert count_macs(model, PAPER_SIZE) == macs


def test_dilations_cost_nothing() -> None:
    model = build("tiny", dilations=16)
    assert count_parameters(model) == 98_176
    assert published_flops(model, PAPER_SIZE) == 1_084_230_912


def test_the_model_is_left_as_it_is() -> None:
    model = twinmixing_nano()
    published_flops(model, (192, 320))
    assert model.training
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
