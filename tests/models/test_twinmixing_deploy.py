"""TwinMixing as it is deployed against the network that was trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.test_twinmixing import VARIANTS, warm
from rtseg.models.twinmixing import DBU, EPM, PCAA, ShuffleUnit, twinmixing_nano
from rtseg.models.twinmixing_deploy import (
    DeployedEPM,
    DeployedPCAA,
    DeployedUnit,
    Doubling,
    LastDoubling,
)
from rtseg.structures import RoadLaneOutput


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def folded(module: nn.Module) -> Any:
    """Fold the norms of a part as those of a network are folded."""
    model = warm(twinmixing_nano())
    model.part = warm(module)
    return model.folded().part


def assert_near(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


SWITCHES: list[dict[str, Any]] = [
    {},
    {"tasks": "drivable"},
    {"tasks": "lane", "dbu": "fine"},
    {"dbu": "coarse"},
    {"dbu": "fine"},
    {"groups": 1},
    {"dilations": 16},
    {"width": 5, "depths": (1, 1)},  # nothing divides anything
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_deployed_network_equals_the_trained_one(switches: dict[str, Any]) -> None:
    model = warm(twinmixing_nano(**switches))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    deployed = model.deployable()
    kinds = {type(module) for module in deployed.modules()}
    assert not kinds & {nn.BatchNorm2d, EPM, ShuffleUnit, DBU}
    for size in ((16, 32), (48, 96)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected, got = model(images), deployed(images)
        assert type(got) is RoadLaneOutput
        for one, other in zip(expected, got, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert_near(other, one)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["tiny", "base", "large"])
def test_larger_networks_equal_theirs_and_choose_the_same_classes(name: str) -> None:
    model = warm(VARIANTS[name]())
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        for expected, got in zip(model(images), model.deployable()(images), strict=True):
            assert_near(got, expected)
            assert (got.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


def test_negative_and_absent_factors_of_norms_are_no_special_case() -> None:
    model = warm(twinmixing_nano())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::2] *= -1
            module.weight.data[1] = 0
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for expected, got in zip(model(images), model.deployable()(images), strict=True):
            assert_near(got, expected)


def test_sizes_that_the_network_does_not_take_are_named() -> None:
    with pytest.raises(ValueError, match="pad it to 368x640"):
        twinmixing_nano().deployable()(torch.empty(1, 3, 360, 640))


# ---------------------------------------------------------------- parts
@pytest.mark.parametrize(("channels", "out"), [(32, 32), (38, 64), (128, 32)])
def test_unit_reads_parts_as_if_they_were_joined(channels: int, out: int) -> None:
    unit = folded(ShuffleUnit(channels, out))
    deployed = DeployedUnit(unit, widths=(20, channels - 20)) if channels != out else (
        DeployedUnit(unit)
    )  # fmt: skip
    x = torch.randn(2, channels, 5, 7)
    parts = x.split([20, channels - 20], dim=1) if channels != out else (x,)
    with torch.no_grad():
        assert_near(deployed(*parts), unit(x))


@pytest.mark.parametrize(("channels", "out", "stride"), [(40, 40, 1), (64, 64, 1), (35, 72, 2)])
def test_epm_is_two_products_around_the_dilations(channels: int, out: int, stride: int) -> None:
    """With 40 channels every branch has a shortcut, with 64 all but the first, at stride 2 none."""
    epm = folded(EPM(channels, out, stride=stride))
    deployed = DeployedEPM(epm)
    x = torch.randn(1, channels, 12, 20)
    with torch.no_grad():
        assert_near(deployed(x), epm(x))
    points = [m for m in deployed.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert len(points) == 3
    assert all(conv.kernel_size == (1, 1) for conv in points)
    assert points[-1].in_channels % 32 == 0


def test_pcaa_cuts_the_same_patches() -> None:
    pcaa = folded(PCAA(16))
    x = torch.randn(2, 16, 6, 12)
    with torch.no_grad():
        assert_near(DeployedPCAA(pcaa)(x), pcaa(x))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("branches", ["both", "fine", "coarse"])
def test_decoders_run_side_by_side(branches: Any, *, shared: bool) -> None:
    steps = [folded(DBU(6, 4, skip_channels=3, branches=branches)) for _ in range(2)]
    deployed = Doubling(steps, shared=shared, skip_channels=5)
    inputs = [torch.randn(1, 6, 4, 3)] * 2 if shared else list(torch.randn(2, 1, 6, 4, 3))
    skip = torch.randn(1, 5, 8, 6)
    with torch.no_grad():
        expected = [step(x, skip[:, :3]) for step, x in zip(steps, inputs, strict=True)]
        got = deployed(inputs[0] if shared else torch.cat(inputs, dim=1), skip)
        assert_near(got, torch.cat(expected, dim=1))


@pytest.mark.parametrize("branches", ["both", "fine", "coarse"])
def test_last_step_doubles_after_it_has_scored(branches: Any) -> None:
    step = folded(DBU(8, 2, branches=branches))
    deployed = LastDoubling(step, place=8, channels=24)
    x = torch.randn(2, 24, 5, 3)
    with torch.no_grad():
        got = deployed(x, F.pad(x, (1, 1, 1, 1), mode="replicate"))
        assert_near(got, step(x[:, 8:16]))


# ---------------------------------------------------------------- export
@pytest.mark.slow
def test_deployed_network_exports_with_any_batch_and_size() -> None:
    deployed = warm(twinmixing_nano()).deployable()
    height, width = (torch.export.Dim(name, min=1, max=64) for name in ("height", "width"))
    shapes = {"images": {0: torch.export.Dim("batch"), 2: 16 * height, 3: 32 * width}}
    program = torch.export.export(
        deployed, (torch.rand(2, 3, 32, 96),), dynamic_shapes=shapes, strict=False
    )
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if "adaptive" in name or "norm" in name]
    for shape in ((1, 3, 48, 64), (3, 3, 32, 128)):
        images = torch.rand(shape)
        with torch.no_grad():
            for expected, got in zip(deployed(images), program.module()(images), strict=True):
                torch.testing.assert_close(got, expected)
