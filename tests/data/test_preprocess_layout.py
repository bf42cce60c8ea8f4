"""The order of an image in memory changes no value, and is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.data.pixels import as_rows, pad_image
from rtseg.data.preprocess import Preprocess

RULES: tuple[dict[str, Any], ...] = (
    {"stride": 1},
    {"stride": 32},
    {"stride": 4, "letterbox": (48, 64)},
    {"stride": 8, "size": (20, 30)},
)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def plainly(preprocess: Preprocess, image: np.ndarray) -> Tensor:
    """Normalize and pad one number at a time."""
    meta = preprocess.measure((image.shape[0], image.shape[1]))
    height, width = (side + more for side, more in zip(meta.input_size, meta.padding, strict=True))
    color = preprocess.padding_color
    result = np.empty((3, height, width), np.float32)
    for c in range(3):
        mean, std = np.float32(preprocess.mean[c]), np.float32(preprocess.std[c])
        result[c] = (np.float32(color[c]) - mean) / std
        top, left = meta.offset
        part = (image[..., c].astype(np.float32) - mean) / std
        result[c, top : top + image.shape[0], left : left + image.shape[1]] = part
    return torch.from_numpy(result)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("rule", RULES[:2], ids=str)
def test_every_value_is_that_of_the_formula(rule: Any, dtype: Any, planar: bool) -> None:
    image = noise(37, 50, 3).astype(dtype)
    preprocess = Preprocess(pad_value=(1.0, 2.0, 3.5), **rule)
    before = image.copy()
    fitted = preprocess.fit(image, planar=planar).image
    assert torch.equal(fitted, plainly(preprocess, image))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_planes_hold_what_pixels_hold(rule: Any) -> None:
    preprocess = Preprocess(pad_value=(1.0, 2.0, 3.5), **rule)
    pixels, planes = (preprocess.fit(noise(36, 48, 3), planar=planar) for planar in (False, True))
    assert planes.image.is_contiguous()
    assert planes.meta == pixels.meta
    assert torch.equal(planes.image, pixels.image)


@pytest.mark.parametrize("rule", RULES[:3], ids=str)
def test_an_image_keeps_its_channels_side_by_side(rule: Any) -> None:
    fitted = Preprocess(**rule).fit(noise(36, 48, 3)).image
    assert fitted.movedim(0, -1).is_contiguous()
    planes = torch.from_numpy(noise(3, 36, 48))
    preprocess = Preprocess(**rule)
    assert preprocess.fit_tensor(planes, preprocess.measure((36, 48))).is_contiguous()


def test_batches_are_normalized_in_either_order() -> None:
    preprocess = Preprocess(mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0))
    pixels = torch.from_numpy(noise(2, 5, 7, 3)).permute(0, 3, 1, 2)
    expected = (pixels - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor([2.0, 4, 5]).view(
        3, 1, 1
    )
    ways = (pixels, pixels.contiguous(), pixels.float(), pixels.float().contiguous())
    for images in (*ways, pixels[:, :, ::2, 1:]):
        before = images.clone()
        found = preprocess.normalize(images)
        part = expected if images.shape == pixels.shape else expected[:, :, ::2, 1:]
        assert torch.equal(found, part)
        assert torch.equal(images, before)


def test_rows_share_the_memory_of_the_image() -> None:
    image = torch.arange(24).view(2, 4, 3).permute(2, 0, 1)  # 2 rows of 4 pixels
    rows = as_rows(image)
    assert rows is not None
    assert rows.tolist() == [list(range(12)), list(range(12, 24))]
    assert rows.data_ptr() == image.data_ptr()
    assert as_rows(image.contiguous()) is None
    assert as_rows(image[:, :, 1:]) is None


@pytest.mark.parametrize("planar", [False, True])
def test_padding_surrounds_an_image_in_either_order(planar: bool) -> None:
    image = torch.arange(6.0).view(1, 2, 3).permute(2, 0, 1)  # 1 row of 2 pixels
    image = image.contiguous() if planar else image
    full = pad_image(image, torch.tensor([7.0, 8.0, 9.0]).view(3, 1, 1), (3, 3), (1, 0))
    assert full[0].tolist() == [[7, 7, 7], [0, 3, 7], [7, 7, 7]]
    assert full[2].tolist() == [[9, 9, 9], [2, 5, 9], [9, 9, 9]]
    assert full.is_contiguous() == planar
