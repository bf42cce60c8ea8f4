from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.data.color import hsv_to_rgb, rgb_to_hsv
from rtseg.data.driving import DRAWS, Driving, bilateral_blur, gaussian_blur
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError
from rtseg.structures import Sample

GRAY = (114.0, 115.0, 116.0)
NONE: dict[str, Any] = {
    "affine": 0, "hsv": 0, "flip": 0, "bilateral": 0, "gaussian": 0, "window": 0,
}  # fmt: skip


class Numbers(np.random.Generator):
    """A generator whose numbers are chosen."""

    def __init__(self, **chosen: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = np.full(DRAWS, 0.5)
        for name, value in chosen.items():
            self.numbers[int(name[1:])] = value

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        assert size == DRAWS
        return self.numbers


def marked(height: int = 72, width: int = 128) -> Sample:
    """Bright squares on black; every label kind marks them."""
    marks = np.zeros((height, width), np.uint8)
    for top, left in ((20, 30), (50, 90), (34, 60)):
        marks[top : top + 8, left : left + 8] = 1
    image = np.repeat(marks[..., None] * 250, 3, axis=2)
    labels = {"lane": marks, "semantic": marks * 7, "panoptic": marks.astype(np.int32) * 70000}
    return Sample(image, labels, path="marked")


def only(**options: Any) -> Driving:
    return Driving(**{**NONE, **options})


def test_with_all_steps_off_nothing_changes() -> None:
    sample = marked()
    result = only()(sample, np.random.default_rng(0), padding_color=GRAY)
    assert result.image.dtype == np.float32
    assert np.array_equal(result.image, sample.image.astype(np.float32))
    for kind, label in sample.labels.items():
        assert np.array_equal(result.labels[kind], label)
        assert result.labels[kind].dtype == label.dtype


def test_the_same_generator_gives_the_same_sample_and_takes_as_many_numbers() -> None:
    scene = Synthetic(size=(72, 128), length=1)[0]
    for augment in (Driving(), only(), only(**dict.fromkeys(NONE, 1))):
        rng, reference = np.random.default_rng(5), np.random.default_rng(5)
        first = augment(scene, rng, padding_color=GRAY)
        again = augment(scene, np.random.default_rng(5), padding_color=GRAY)
        assert np.array_equal(first.image, again.image)
        reference.random(DRAWS)
        assert rng.random() == reference.random()


@pytest.mark.parametrize("seed", range(12))
def test_image_and_labels_stay_together_under_every_step_that_moves_them(seed: int) -> None:
    augment = only(affine=1, flip=0.5, window=0.5)
    result = augment(marked(), np.random.default_rng(seed), padding_color=(0.0, 0.0, 0.0))
    bright = result.image[..., 0] > 125
    lane, semantic, panoptic = (result.labels[kind] for kind in ("lane", "semantic", "panoptic"))
    assert lane.shape == bright.shape in ((72, 128), (54, 96))
    assert set(np.unique(lane)) <= {0, 1}
    assert set(np.unique(semantic)) <= {0, 7, 255}
    assert set(np.unique(panoptic)) <= {0, 70000}
    assert np.array_equal(semantic == 7, lane == 1)
    assert np.array_equal(panoptic == 70000, lane == 1)
    union = (bright | (lane == 1)).sum()
    assert union > 50
    # A square of 8 pixels has 28 on its border, where bilinear and nearest may differ.
    assert (bright & (lane == 1)).sum() >= 0.75 * union


def test_the_window_cuts_image_and_every_label_alike() -> None:
    rows, columns = np.mgrid[:72, :128].astype(np.uint8)
    sample = Sample(np.stack([rows, columns, rows], -1), {"lane": rows, "drivable": columns})
    starts = set()
    for seed in range(200):
        result = only(window=1)(sample, np.random.default_rng(seed), padding_color=GRAY)
        assert result.image.shape == (54, 96, 3)
        assert np.array_equal(result.image[..., 0], result.labels["lane"])
        assert np.array_equal(result.image[..., 1], result.labels["drivable"])
        starts.add((int(result.image[0, 0, 0]), int(result.image[0, 0, 1])))
    assert {top for top, _ in starts} == set(range(19))
    assert {left for _, left in starts} == set(range(33))


def test_the_published_window_is_540_by_960() -> None:
    sample = Sample(np.zeros((720, 1280, 3), np.uint8), {})
    result = only(window=1)(sample, np.random.default_rng(0), padding_color=GRAY)
    assert result.image.shape == (540, 960, 3)


# ---------------------------------------------------------------- affine
def center(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


@pytest.mark.parametrize(("across", "down"), [(1, 0.5), (0, 0.5), (0.5, 1), (0.5, 0), (0.75, 0.25)])
def test_translation_is_a_share_of_each_side(across: float, down: float) -> None:
    sample = marked(100, 200)
    result = only(affine=1)(sample, Numbers(d3=across, d4=down), padding_color=GRAY)
    moved = center(result.labels["lane"] == 1) - center(sample.labels["lane"] == 1)
    assert moved == pytest.approx(
        [100 * 0.1 * (2 * down - 1), 200 * 0.1 * (2 * across - 1)], abs=0.1
    )


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.8), (1.0, 1.2), (0.75, 1.1)])
def test_zoom_is_about_the_center(draw: float, factor: float) -> None:
    marks = np.zeros((120, 120), np.uint8)
    marks[40:80, 40:80] = 1
    sample = Sample(np.zeros((120, 120, 3), np.uint8), {"lane": marks})
    result = only(affine=1)(sample, Numbers(d2=draw), padding_color=GRAY)
    lane = result.labels["lane"]
    assert center(lane == 1) == pytest.approx([59.5, 59.5], abs=0.1)
    assert np.sqrt(lane.sum()) == pytest.approx(40 * factor, abs=1.0)


@pytest.mark.parametrize(("draw", "degrees"), [(0.0, 5), (1.0, 5), (0.75, 2.5)])
def test_rotation_turns_about_the_center(draw: float, degrees: float) -> None:
    marks = np.zeros((201, 201), np.uint8)
    marks[98:103, 180:185] = 1
    sample = Sample(np.zeros((201, 201, 3), np.uint8), {"lane": marks})
    result = only(affine=1)(sample, Numbers(d1=draw), padding_color=GRAY)
    down, across = center(result.labels["lane"] == 1) - 100
    assert np.degrees(np.arctan2(abs(down), across)) == pytest.approx(degrees, abs=0.3)
    assert np.hypot(down, across) == pytest.approx(82, abs=0.6)


def test_pixels_from_outside_are_filled_by_kind() -> None:
    shape = (40, 40)
    ones = {
        "lane": np.ones(shape, np.uint8), "drivable": np.ones(shape, np.uint8),
        "semantic": np.ones(shape, np.uint8), "panoptic": np.ones(shape, np.int32),
    }  # fmt: skip
    sample = Sample(np.zeros((*shape, 3), np.uint8), ones)
    result = only(affine=1)(sample, Numbers(d3=1.0), padding_color=GRAY)
    outside = {kind: set(label[:, :4].ravel().tolist()) for kind, label in result.labels.items()}
    assert outside == {"lane": {0}, "drivable": {0}, "semantic": {255}, "panoptic": {0}}
    assert (result.image[:, :3] == GRAY).all()
    assert all((label[:, 5:] == 1).all() for label in result.labels.values())


# ---------------------------------------------------------------- color
@pytest.mark.parametrize("numbers", [(0.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 0.0), (1, 0, 1)])
def test_hue_saturation_and_value_are_multiplied(numbers: tuple[float, float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    chosen = dict(zip(("d6", "d7", "d8"), numbers, strict=True))
    result = only(hsv=1)(Sample(image, {}), Numbers(**chosen), padding_color=GRAY)
    hue, saturation, value = rgb_to_hsv(torch.from_numpy(image / 255).permute(2, 0, 1))
    gains = [1 + g * (2 * n - 1) for g, n in zip((0.015, 0.7, 0.4), numbers, strict=True)]
    parts = [hue * gains[0], (saturation * gains[1]).clamp(0, 1), (value * gains[2]).clamp(0, 1)]
    expected = (hsv_to_rgb(torch.stack(parts)) * 255).permute(1, 2, 0).numpy()
    assert np.allclose(result.image, expected, atol=1e-2)


# ---------------------------------------------------------------- blurs
def noise(height: int = 9, width: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, height, width, generator=generator) * 255


@pytest.mark.parametrize(("sigma", "reach"), [(0.05, 2), (0.6, 2), (0.7, 3), (1.0, 3)])
def test_bilateral_blur_equals_the_sum_written_out(sigma: float, reach: int) -> None:
    image = noise()
    color = float(image.numpy().std())
    padded = np.pad(image.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    expected = np.zeros_like(image.numpy())
    for y in range(9):
        for x in range(11):
            total = weights = 0.0
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    other = padded[:, reach + y + dy, reach + x + dx]
                    unlike = ((other - image.numpy()[:, y, x]) ** 2).sum() / color**2
                    weight = np.exp(-0.5 * (unlike + (dy**2 + dx**2) / sigma**2))
                    total, weights = total + weight * other, weights + weight
            expected[:, y, x] = total / weights
    assert np.allclose(bilateral_blur(image, sigma).numpy(), expected, atol=0.02)


def test_bilateral_blur_keeps_an_edge_that_a_gaussian_washes_out() -> None:
    image = torch.zeros(3, 16, 16)
    image[:, :, 8:] = 200
    image += noise(16, 16) / 25
    for blur, kept in ((bilateral_blur, True), (gaussian_blur, False)):
        step = blur(image, 1.0)[:, :, 8] - blur(image, 1.0)[:, :, 7]
        assert bool((step > 150).all()) is kept


def test_a_flat_image_stays_flat() -> None:
    flat = torch.full((3, 8, 8), 77.0)
    assert torch.equal(bilateral_blur(flat, 1.0), flat)
    torch.testing.assert_close(gaussian_blur(flat, 1.3), flat)


@pytest.mark.parametrize("sigma", [0.1, 0.15, 0.7, 1.3])
def test_gaussian_blur_agrees_with_scipy(sigma: float) -> None:
    from scipy.ndimage import gaussian_filter

    image = noise()
    expected = gaussian_filter(image.numpy(), (0, sigma, sigma), mode="reflect", truncate=4.0)
    assert np.allclose(gaussian_blur(image, sigma).numpy(), expected, atol=0.01)


@pytest.mark.parametrize(
    ("step", "index", "bounds"), [("bilateral", 11, (0.05, 1.0)), ("gaussian", 13, (0.15, 1.3))]
)
def test_widths_of_the_blurs_are_drawn_between_their_bounds(
    step: str, index: int, bounds: tuple[float, float]
) -> None:
    image = noise(16, 16)
    sample = Sample(image.permute(1, 2, 0).numpy(), {})
    blur = bilateral_blur if step == "bilateral" else gaussian_blur
    for draw in (0.0, 0.5, 1.0):
        sigma = bounds[0] + (bounds[1] - bounds[0]) * draw
        result = only(**{step: 1})(sample, Numbers(**{f"d{index}": draw}), padding_color=GRAY)
        assert np.allclose(result.image, blur(image, sigma).permute(1, 2, 0).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("index", "step", "chance"),
    [(0, "affine", 0.5), (5, "hsv", 0.5), (9, "flip", 0.5), (10, "bilateral", 0.1),
     (12, "gaussian", 0.1), (14, "window", 0.1)],
)  # fmt: skip
def test_every_step_has_its_published_probability(index: int, step: str, chance: float) -> None:
    image = noise(16, 16).permute(1, 2, 0).numpy()
    augment = only(**{step: getattr(Driving(), step)})
    others = {f"d{number}": 0.9 for number in (1, 2, 3, 4, 6, 7, 8, 11, 13)}
    for draw, on in ((chance - 0.01, True), (chance, False)):
        numbers = Numbers(**others, **{f"d{index}": draw})
        result = augment(Sample(image, {}), numbers, padding_color=GRAY).image
        assert (result.shape != image.shape or not np.allclose(result, image, atol=1e-3)) is on


@pytest.mark.parametrize(
    "options",
    [
        {"affine": 1.5}, {"flip": -0.1}, {"zoom": 1.0}, {"zoom": -0.1}, {"window_share": 0.0},
        {"window_share": 1.1}, {"degrees": -1.0}, {"hue": -0.1}, {"shift": -0.1},
        {"bilateral_sigma": (0.0, 1.0)}, {"gaussian_sigma": (1.0, 0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.augment"):
        Driving(**options)
