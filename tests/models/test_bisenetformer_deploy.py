"""BiSeNetFormer's decoder as it is deployed against the one that was trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.test_all_models import image, warm
from rtseg.models.bisenetformer import (
    QUERY_DIM,
    Attention,
    BiSeNetFormer,
    Decoder,
    position_code,
)
from rtseg.models.bisenetformer_deploy import CrossAttention, DeployedDecoder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_near(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


SWITCHES: list[dict[str, Any]] = [
    {},
    {"decoder_levels": 3, "pre_norm": False},
    {"masked_attention": False, "attention": "sdpa"},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_deployed_network_equals_the_trained_one(switches: dict[str, Any]) -> None:
    built = BiSeNetFormer(
        7, backbone="stdc1", base_width=8, queries=12, decoder_layers=4, **switches
    )
    model = warm(built, multiple=(1, 1)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed = model.deployable()
    for size in ((64, 96), (61, 79)):
        images = image(batch=2, size=size)
        with torch.no_grad():
            expected, got = model(images), deployed(images)
        assert_near(got.class_logits, expected.class_logits)
        assert_near(got.mask_logits, expected.mask_logits)
        assert got.aux == ()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_keys_and_values_read_the_level_itself() -> None:
    """Key: W_k (P f + p + place) + b; value: W_v (P f + p) + b, without the place."""
    level, attention = nn.Conv2d(24, QUERY_DIM, 1), Attention(form="matmul")
    nn.init.normal_(attention.in_proj_bias)
    query, features = torch.randn(1, 5, QUERY_DIM), torch.randn(2, 24, 3, 4)
    place = position_code(3, 4, like=query)
    tokens = level(features).flatten(2).transpose(1, 2)
    with torch.no_grad():
        expected = attention(query, tokens + place, tokens)
        cross = CrossAttention(attention, level)
        assert_near(cross(query, features.flatten(2).transpose(1, 2), place, None), expected)
    assert cross.key.weight.shape == cross.value.weight.shape == (QUERY_DIM, 24)


def test_layers_take_the_levels_in_turn() -> None:
    """Five layers on three levels read the levels 0, 1, 2, 0, 1; the fourth map is not read."""
    decoder = Decoder(
        3, queries=4, width=16, levels=3, layers=5, ffn_dim=8, masked_attention=True,
        pre_norm=True, attention="matmul",
    ).eval()  # fmt: skip
    context = [torch.randn(1, 16, side, side + 1) for side in (2, 3, 5)]
    features = torch.randn(1, 16, 9, 7)
    with torch.no_grad():
        expected = decoder(context, features)
        got = DeployedDecoder(decoder)(context, features)
    assert_near(got.class_logits, expected.class_logits)
    assert_near(got.mask_logits, expected.mask_logits)


@pytest.mark.slow
def test_deployed_network_exports_with_any_batch() -> None:
    model = BiSeNetFormer(7, backbone="stdc1", base_width=8, queries=12, decoder_layers=2)
    deployed = warm(model, multiple=(1, 1)).eval().deployable()
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(deployed, (image(batch=2),), dynamic_shapes=shapes, strict=False)
    with torch.no_grad():
        expected, got = deployed(image(batch=3)), program.module()(image(batch=3))
    assert_near(got.class_logits, expected.class_logits)
    assert_near(got.mask_logits, expected.mask_logits)
