"""Every view is the input that the resized or mirrored image would have given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from inference.tiny import draw
from rtseg.data.preprocess import Preprocess
from rtseg.data.views import ONE_VIEW, Views, scaled
from rtseg.errors import ConfigError

PLAIN = Preprocess(mean=(100.0, 110.0, 120.0), std=(60.0, 50.0, 40.0), stride=8)


def test_one_view_is_the_preprocessed_image() -> None:
    image = draw(30, 45)
    (view,) = ONE_VIEW.fit(PLAIN, image, path="a.png")
    expected, meta = PLAIN.fit(image, path="a.png")
    assert torch.equal(view.image, expected)
    assert view.meta == meta
    assert view.mirrored is False
    assert len(ONE_VIEW) == 1


def test_views_come_size_by_size_and_each_has_its_own_input() -> None:
    image = draw(30, 45)
    views = Views(scale=0.5, scales=(1.0, 2.0), flip=True)
    found = views.fit(PLAIN, image, path="a.png")
    assert len(found) == len(views) == 4
    assert [view.mirrored for view in found] == [False, True, False, True]
    assert [view.meta.input_size for view in found] == [(15, 23), (15, 23), (30, 45), (30, 45)]
    assert {view.meta.source_size for view in found} == {(30, 45)}
    assert {view.meta.path for view in found} == {"a.png"}
    flipped = np.ascontiguousarray(image[:, ::-1])
    assert torch.equal(found[3].image, PLAIN.fit(flipped).image)
    small = F.resize(torch.from_numpy(image).permute(2, 0, 1), [15, 23], antialias=True)
    by_hand = PLAIN.fit(small.permute(1, 2, 0).contiguous().numpy()).image
    assert torch.allclose(found[0].image, by_hand, atol=0.02)  # one is rounded to whole numbers


@pytest.mark.parametrize(
    ("rule", "factor", "expected"),
    [
        ({}, 0.75, (75, 150)),
        ({}, 0.5, (50, 100)),
        ({"size": (60, 80)}, 0.75, (45, 60)),
        ({"size": (60, 80)}, 2.0, (120, 160)),
        ({"short_side": 50}, 0.5, (25, 50)),
        ({"short_side": 50, "max_long_side": 80}, 0.5, (20, 40)),
        ({}, 0.001, (1, 1)),
    ],
)
def test_sizes_are_those_of_the_rule_times_the_factor(
    rule: dict[str, Any], factor: float, expected: tuple[int, int]
) -> None:
    preprocess = Preprocess(stride=1, **rule)
    image = np.zeros((100, 200, 3), np.uint8)
    rule_of_view = scaled(preprocess, factor, (100, 200))
    assert rule_of_view.fit(image).meta.input_size == expected
    (view,) = Views(scale=factor).fit(preprocess, image)
    assert view.image.shape[1:] == expected


def test_halves_are_rounded_up() -> None:
    assert scaled(PLAIN, 0.5, (45, 61)).size == (23, 31)
    assert scaled(PLAIN, 0.5, (43, 63)).size == (22, 32)


@pytest.mark.parametrize(
    "fixed", [Preprocess(letterbox=(64, 96)), Preprocess(size=(32, 64), score_at="input")]
)
def test_a_size_that_belongs_to_the_benchmark_stays(fixed: Preprocess) -> None:
    image = draw(40, 60)
    assert scaled(fixed, 1.0, (40, 60)) is fixed
    assert len(Views(flip=True).fit(fixed, image)) == 2
    with pytest.raises(ConfigError, match="size of the input is fixed"):
        Views(scale=0.5).fit(fixed, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scales": (1.0, -2.0)}, "scale is -2"),
        ({"scales": (float("inf"),)}, "scale is inf"),
        ({"scales": ()}, "no scale is given"),
    ],
)
def test_factors_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Views(**options)
