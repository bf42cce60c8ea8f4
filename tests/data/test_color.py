from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.data.color import DISTORT_DRAWS, distort, hsv_to_rgb, rgb_to_hsv

OFF = 0.9  # a draw that leaves its step out
EDGES = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0),
         (0, 1, 1), (1, 0, 1), (0.2, 0.7, 0.7), (0.7, 0.2, 0.7)]  # fmt: skip


def pixels() -> Tensor:
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.array(EDGES), rng.random((89, 3))]).astype(np.float32)
    return torch.from_numpy(rows.T.reshape(3, 10, 10).copy())


def draws(**steps: float) -> np.ndarray:
    """All steps off, but for those named: their value; `late` puts contrast last."""
    numbers = np.full(DISTORT_DRAWS, OFF)
    for index, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        if name in steps:
            numbers[2 * index], numbers[2 * index + 1] = 0.1, steps[name]
    numbers[8] = 0.1 if "late" in steps else OFF
    return numbers


def test_hsv_agrees_with_the_standard_library_and_back() -> None:
    image = pixels()
    hsv, flat = rgb_to_hsv(image), image.reshape(3, -1).T
    expected = [colorsys.rgb_to_hsv(*(float(value) for value in row)) for row in flat]
    torch.testing.assert_close(hsv.reshape(3, -1).T, torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(hsv_to_rgb(hsv), image, atol=1e-5, rtol=0)


def test_hue_is_a_circle() -> None:
    hsv = rgb_to_hsv(pixels())
    for turns in (-1, 1, 2):
        turned = hsv.clone()
        turned[0] += turns
        torch.testing.assert_close(hsv_to_rgb(turned), pixels(), atol=1e-5, rtol=0)
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    third = rgb_to_hsv(red) + torch.tensor([1 / 3, 0, 0]).view(3, 1, 1)
    torch.testing.assert_close(hsv_to_rgb(third).flatten(), torch.tensor([0.0, 1, 0]))


def test_with_every_step_off_nothing_changes() -> None:
    assert torch.equal(distort(pixels() * 255, draws()), pixels() * 255)


@pytest.mark.parametrize(("draw", "shift"), [(0.0, -32), (0.5, 0), (0.75, 16)])
def test_brightness_is_a_shift_within_the_range(draw: float, shift: float) -> None:
    result = distort(pixels() * 255, draws(brightness=draw))
    torch.testing.assert_close(result, (pixels() * 255 + shift).clamp(0, 255))


@pytest.mark.parametrize("late", [{}, {"late": 1}])
@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.5, 1), (0.75, 1.25)])
def test_contrast_is_a_factor_within_the_range(
    draw: float, factor: float, late: dict[str, float]
) -> None:
    result = distort(pixels() * 255, draws(contrast=draw, **late))
    torch.testing.assert_close(result, (pixels() * 255 * factor).clamp(0, 255))


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.25, 0.75), (0.75, 1.25)])
def test_saturation_is_a_factor_within_the_range(draw: float, factor: float) -> None:
    hsv = rgb_to_hsv(pixels())
    hsv[1] = (hsv[1] * factor).clamp(0, 1)
    result = distort(pixels() * 255, draws(saturation=draw))
    torch.testing.assert_close(result, hsv_to_rgb(hsv) * 255, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("draw", "steps"), [(0.0, -18), (0.5, 0), (0.999, 18), (0.76, 10)])
def test_hue_turns_by_whole_steps_of_180(draw: float, steps: int) -> None:
    hsv = rgb_to_hsv(pixels())
    hsv[0] += steps / 180
    result = distort(pixels() * 255, draws(hue=draw))
    torch.testing.assert_close(result, hsv_to_rgb(hsv) * 255, atol=1e-3, rtol=0)


def test_contrast_comes_before_or_after_saturation() -> None:
    # Contrast 1.5 clips the red of (200, 100, 50) at 255. Before saturation: (255, 150, 75), whose
    # saturation 0.70588 becomes 0.35294: green halfway to red, blue too.
    image = torch.tensor([200.0, 100, 50]).view(3, 1, 1)
    numbers = {"contrast": 1.0, "saturation": 0.0}
    early = distort(image, draws(**numbers)).flatten()
    torch.testing.assert_close(early, torch.tensor([255.0, 202.5, 165]))
    late = distort(image, draws(**numbers, late=1)).flatten()
    torch.testing.assert_close(late, torch.tensor([255.0, 225, 187.5]))


def test_what_brightness_drives_out_of_range_is_cut_before_the_next_step() -> None:
    # (250, 100, 50) + 32 is (255, 132, 82) and not (282, 132, 82); contrast 0.5 halves that.
    image = torch.tensor([250.0, 100, 50]).view(3, 1, 1)
    result = distort(image, draws(brightness=1.0, contrast=0.0)).flatten()
    torch.testing.assert_close(result, torch.tensor([127.5, 66, 41]))


def test_every_step_happens_in_half_of_the_cases_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    image = pixels() * 255
    unchanged = 0
    for _ in range(400):
        result = distort(image, rng.random(DISTORT_DRAWS))
        assert float(result.min()) >= 0
        assert float(result.max()) <= 255.001
        unchanged += int(torch.equal(result, image))
    assert 10 <= unchanged <= 42  # 25 expected, one in 16
