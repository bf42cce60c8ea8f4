"""Reading maps at points, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rtseg.losses.point_sample import sample_points, uncertain_points


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.25, 0.25), 0.0),  # the centre of the first pixel
        ((0.75, 0.25), 1.0),  # x comes first
        ((0.25, 0.75), 2.0),
        ((0.5, 0.5), 1.5),
        ((1.0, 1.0), 0.75),  # a quarter of 3, the rest lies outside and is 0
        ((0.0, 0.25), 0.0),
        ((0.5, 0.25), 0.5),
    ],
)
def test_points_of_a_2x2_map_are_worked_out_by_hand(
    point: tuple[float, float], expected: float
) -> None:
    grid = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2)
    got = sample_points(grid, torch.tensor([[point]]))
    assert got.shape == (1, 1, 1)
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_channels_share_points_and_images_do_not() -> None:
    maps, points = torch.randn(2, 3, 5, 7), torch.rand(2, 11, 2)
    got = sample_points(maps, points)
    assert got.shape == (2, 3, 11)
    for image in range(2):
        for channel in range(3):
            one = sample_points(maps[image, channel][None, None], points[image][None])
            torch.testing.assert_close(got[image, channel], one[0, 0])


def test_maps_without_channels_or_images_give_nothing() -> None:
    assert sample_points(torch.zeros(1, 0, 4, 4), torch.rand(1, 6, 2)).shape == (1, 0, 6)
    assert sample_points(torch.zeros(0, 1, 4, 4), torch.rand(0, 6, 2)).shape == (0, 1, 6)
    assert uncertain_points(torch.zeros(0, 1, 4, 4), 6).shape == (0, 6, 2)


def test_uncertain_points_lie_where_the_logit_is_smallest() -> None:
    # The logit falls from -4 to 4 along x: it is 0 in the middle.
    ramp = torch.linspace(-4, 4, 64).expand(1, 1, 64, 64)
    points = uncertain_points(torch.cat([ramp, ramp + 3]), 400)
    assert points.shape == (2, 400, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    # 300 of 1200 candidates: the quarter nearest to the zero, that is 1/8 on both sides; a few
    # lie at the border, where zeros outside make every logit small.
    hard, uniform = points[:, :300], points[:, 300:]
    assert ((hard[0, :, 0] - 0.5).abs() < 0.15).float().mean() > 0.97
    assert ((hard[1, :, 0] - 0.125).abs() < 0.16).float().mean() > 0.97  # each mask on its own
    for rest in uniform:
        assert rest[:, 0].min() < 0.1
        assert rest[:, 0].max() > 0.9
    assert not points.requires_grad


@pytest.mark.parametrize(("importance", "hard"), [(0.0, 0), (0.5, 8), (1.0, 16)])
def test_importance_is_the_share_of_hard_points(importance: float, hard: int) -> None:
    logits = torch.full((1, 1, 2, 2), 5.0)
    logits[..., 0] = 0.0  # the left half is uncertain
    points = uncertain_points(logits, 16, oversample=60.0, importance=importance)
    left = points[0, :hard, 0] <= 0.27
    assert left.all()
    assert points.shape[1] == 16
    if hard < 16:
        assert (points[0, hard:, 0] > 0.27).any()


def test_published_numbers_of_points() -> None:
    drawn: list[int] = []
    original = torch.rand

    def rand(*size: int, **options: object) -> torch.Tensor:
        drawn.append(size[1])
        return original(*size, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", rand)
        uncertain_points(torch.zeros(1, 1, 4, 4), 12544)
    assert drawn == [37_632, 3_136]
    assert math.isclose(12544 - drawn[1], 9_408)
