from __future__ import annotations

import pytest
import torch

from rtseg.benchmark.complexity import count_macs
from rtseg.benchmark.rules_fvcore import fvcore_operations, fvcore_panoptic_operations
from rtseg.models.bisenetformer import bisenetformer_stdc1, bisenetformer_stdc2


def build(builder, classes=19, **switches):
    with torch.device("meta"):
        return builder(classes, **switches)


@pytest.mark.parametrize(
    ("queries", "semantic", "panoptic"), [(50, 80.02, "80"), (100, 82.25, "83"), (200, 86.75, "88")]
)
def test_the_table_on_queries_is_reproduced(queries: int, semantic: float, panoptic: str) -> None:
    model = build(bisenetformer_stdc2, queries=queries)
    assert fvcore_operations(model, (1024, 2048)) / 1e9 == pytest.approx(semantic, abs=0.006)
    assert f"{fvcore_panoptic_operations(model, (1024, 2048)) / 1e9:.0f}" == panoptic


def test_what_the_tool_counts_is_added_up_by_hand() -> None:
    """Norms, resizes and later predictions come on top of the multiply-adds of evaluation."""
    height, width, queries, dim, features, classes = 64, 96, 10, 256, 128, 3
    sizes = {8: (8, 12), 16: (4, 6), 32: (2, 3)}
    pixels = {scale: h * w for scale, (h, w) in sizes.items()}
    model = build(bisenetformer_stdc1, classes, queries=queries, decoder_layers=2)
    norms = 2 * sum(channels * area for channels, area in batch_norms(pixels))
    # Per layer three layer norms; two in each prediction, for classes and masks: two of them steer
    # the attention, the third is the result.
    norms += 5 * queries * dim * (2 * 3 + 3 * 2)
    resizes = 4 * features * (pixels[16] + pixels[8])
    resizes += 4 * queries * (pixels[32] + pixels[16])
    # Evaluation makes small masks for the attention, here they are full and have classes.
    heads = 2 * queries * dim * (classes + 1)
    masks = queries * features * (2 * pixels[8] - pixels[32] - pixels[16])
    scores = queries * dim * (pixels[32] + pixels[16])
    expected = count_macs(model, (height, width)) + norms + resizes + heads + masks - scores
    assert fvcore_operations(model, (height, width)) == expected


def batch_norms(pixels: dict[int, int]) -> list[tuple[int, int]]:
    """Return channels and pixels of every batch norm of the network on STDC1."""
    half, quarter = 4 * pixels[8] * 4, 4 * pixels[8]
    found = [(32, half), (64, quarter)]
    for channels, before, area in ((256, quarter, 8), (512, pixels[8], 16), (1024, pixels[16], 32)):
        here = pixels[area]
        # Strided block: 1x1 at the old size, a depth-wise one, three 3x3; then a plain block.
        found += [(channels // 2, before), (channels // 2, here)]
        found += [(channels // 4, here), (channels // 8, here), (channels // 8, here)]
        found += [(channels // 2, here), (channels // 4, here)]
        found += [(channels // 8, here), (channels // 8, here)]
    found += [(128, pixels[32]), (128, 1), (128, 1)]  # ARM, its gate, the mean
    found += [(128, pixels[16]), (128, pixels[16]), (128, 1), (128, pixels[8])]  # up, ARM, gate, up
    return [*found, (128, pixels[8]), (128, pixels[8])]  # mix and refine of the fusion


def test_without_masked_attention_nothing_is_left_out() -> None:
    size, queries = (64, 96), 10
    masked, plain = (
        build(bisenetformer_stdc1, 3, queries=queries, decoder_layers=2, masked_attention=value)
        for value in (True, False)
    )
    difference = fvcore_operations(plain, size) - fvcore_operations(masked, size)
    assert difference == queries * 256 * (6 + 24)


def test_panoptic_adds_the_resize_of_all_masks() -> None:
    model = build(bisenetformer_stdc1, 3, queries=10, decoder_layers=2)
    more = fvcore_panoptic_operations(model, (64, 96)) - fvcore_operations(model, (64, 96))
    assert more == 4 * 10 * 64 * 96


def test_counting_leaves_the_network_as_it_is() -> None:
    model = build(bisenetformer_stdc1, 3, queries=10, decoder_layers=2).train()
    fvcore_operations(model, (64, 96))
    assert model.training
    assert model.decoder.heads.training
    assert all(not module._forward_hooks for module in model.modules())
