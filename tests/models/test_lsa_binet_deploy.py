"""LSA-BiNet as it is deployed against the network that was trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.test_all_models import image
from models.test_all_models import warm as used
from models.test_twinmixing import warm
from rtseg.models.lsa_binet import SVFM, LSABiNet, PooledDown
from rtseg.models.lsa_binet_deploy import DEEP, SHALLOW, DeployedDown, DeployedSVFM
from rtseg.nn.depthwise import DepthwiseConv2d

SVFM_DEFAULTS: dict[str, Any] = {
    "branches": "both", "pool_ratio": 8, "resize": "nearest", "variance": "population",
    "norm": "none", "residual": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_near(got: Tensor, expected: Tensor, *, tolerance: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


SWITCHES: list[dict[str, Any]] = [
    {},
    {"lrfa": False, "svfm": False, "rcad": False},
    {"svfm_branches": "lde"},
    {"svfm_branches": "easa", "svfm_norm": "l2"},
    {"svfm": False, "resatt_skip": False},
    {"rcad": False, "svfm_residual": True, "lrfa_gate": False},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_deployed_network_equals_the_trained_one(switches: dict[str, Any]) -> None:
    model = used(LSABiNet(5, **switches), multiple=(1, 1)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed = model.deployable()
    for size in ((48, 64), (61, 79), (8, 8)):
        images = image(batch=2, size=size)
        with torch.no_grad():
            assert_near(deployed(images).logits, model(images).logits, tolerance=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_channels_fit_and_no_layer_doubles_them_apart() -> None:
    """Channels at 1/4 are a multiple of 16 and at 1/8 one of 32."""
    assert (SHALLOW, DEEP) == (144, 288)
    images = torch.randn(1, 3, 32, 48)
    deployed = LSABiNet(5).deployable()
    with torch.no_grad():
        shallow, deep = deployed.encoder(images)
    assert shallow.shape == (1, SHALLOW, 8, 12)
    assert deep.shape == (1, DEEP, 4, 6)
    assert not shallow[:, 131:].any()
    assert not deep[:, 259:].any()
    for module in deployed.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            assert module.in_channels == module.out_channels
    assert any(
        isinstance(module, DepthwiseConv2d) and module.out_channels > module.in_channels
        for module in LSABiNet(5).modules()
    )


def test_down_takes_features_and_image_apart() -> None:
    down = warm(PooledDown(35, 64))
    x, image = torch.randn(1, 32, 9, 7), torch.randn(1, 3, 9, 7)
    with torch.no_grad():
        expected = down(torch.cat([x, image], dim=1))
        assert_near(DeployedDown(down)(x, image), expected)


@pytest.mark.parametrize(
    "switches", [{}, {"branches": "lde"}, {"branches": "easa"}, {"norm": "l2"}], ids=str
)
def test_svfm_keeps_zeros_and_the_rest(switches: dict[str, Any]) -> None:
    svfm = warm(SVFM(259, **(SVFM_DEFAULTS | switches)))
    assert isinstance(svfm, SVFM)
    if svfm.easa is not None:
        nn.init.normal_(svfm.easa.beta)
    x = torch.randn(2, 259, 9, 17)
    filled = torch.cat([x, torch.zeros(2, DEEP - 259, 9, 17)], dim=1)
    with torch.no_grad():
        expected = svfm(x)
        found = DeployedSVFM(svfm)(filled)
    assert_near(found[:, :259], expected)
    assert not found[:, 259:].any()


@pytest.mark.slow
def test_deployed_network_exports_with_any_batch_and_pools_to_no_size() -> None:
    deployed = warm(LSABiNet(5)).deployable()
    example = torch.randn(2, 3, 61, 79)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(deployed, (example,), dynamic_shapes=shapes, strict=False)
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if "adaptive" in name]
    images = torch.randn(3, 3, 61, 79)
    with torch.no_grad():
        assert_near(program.module()(images).logits, deployed(images).logits)
