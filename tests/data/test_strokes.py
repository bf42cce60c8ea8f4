from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rtseg.data.bdd100k import Bdd100k
from rtseg.data.check import check_dataset
from rtseg.data.strokes import stroke_width


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_straight_strokes_have_their_width(width: int) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20 : 20 + width] = 1
    assert stroke_width(mask) == width
    assert stroke_width(mask.T) == width
    mask[:, 50:59] = 255  # void is no stroke
    assert stroke_width(mask) == width


def test_a_stroke_along_the_border_is_not_taken_for_half_of_one() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :5] = 1
    assert stroke_width(mask) == 5


@pytest.mark.parametrize("width", [3, 5, 9])
def test_slanted_strokes_have_about_their_width(width: int) -> None:
    image = Image.new("L", (200, 200))
    ImageDraw.Draw(image).line((20, 10, 150, 190), fill=1, width=width)
    found = stroke_width(np.asarray(image))
    assert found == pytest.approx(width, abs=max(1, 0.2 * width))


def test_without_strokes_there_is_no_width() -> None:
    assert stroke_width(np.zeros((5, 5), np.uint8)) is None
    assert stroke_width(np.full((5, 5), 255, np.uint8)) is None


def test_published_lanes_are_wide_in_train_and_narrow_in_val(bdd100k_sample: Path) -> None:
    report = check_dataset({name: Bdd100k(bdd100k_sample, split=name) for name in ("train", "val")})
    widths = {name: summary.widths["lane"] for name, summary in report.splits.items()}
    assert widths["train"] == pytest.approx(9, abs=1)
    assert widths["val"] == pytest.approx(3, abs=0.5)
    assert report.to_dict()["splits"]["val"]["stroke_widths"] == {"lane": widths["val"]}
