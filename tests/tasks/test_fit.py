"""Scores come back to the pixels of the source image, however it was padded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.structures import ImageMeta
from rtseg.tasks.fit import padded_source_size, source_window, to_source

LETTERBOX = ImageMeta("", (720, 1280), (360, 640), (24, 0), (12, 0))


def ramp(height: int, width: int) -> Tensor:
    """Scores (1, 2, H, W) that are their row and their column."""
    rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(height, width)
    columns = torch.arange(width, dtype=torch.float32).expand(height, width)
    return torch.stack([rows, columns])[None]


def test_a_centred_letterbox_is_measured_in_source_pixels() -> None:
    assert padded_source_size(LETTERBOX) == (768, 1280)
    assert source_window(LETTERBOX) == (slice(24, 744), slice(0, 1280))


@pytest.mark.parametrize("offset", [(0, 0), (3, 0), (0, 2), (3, 2), (5, 4)])
def test_padding_is_cut_off_wherever_it_lies(offset: tuple[int, int]) -> None:
    meta = ImageMeta("", (11, 12), (11, 12), (5, 4), offset)
    top, left = offset
    cut = to_source(ramp(16, 16), meta)
    assert torch.equal(cut, ramp(16, 16)[..., top : top + 11, left : left + 12])


def test_a_resized_letterbox_is_undone_pixel_by_pixel() -> None:
    meta = ImageMeta("", (20, 24), (10, 12), (6, 4), (2, 3))
    cut = to_source(ramp(16, 16), meta)[0]
    assert cut.shape == (2, 20, 24)
    # source pixel y has its centre at input row (y + 0.5) / 2 - 0.5, and 2 rows lie above
    rows = (torch.arange(20) + 0.5) / 2 - 0.5 + 2
    columns = (torch.arange(24) + 0.5) / 2 - 0.5 + 3
    torch.testing.assert_close(cut[0], rows.view(-1, 1).expand(20, 24))
    torch.testing.assert_close(cut[1], columns.expand(20, 24))


def test_coarse_scores_are_resized_over_the_padding_first() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 8, dtype=torch.float16)
    meta = ImageMeta("", (30, 60), (30, 60), (2, 4), (1, 2))
    full = F.interpolate(logits.float(), size=(32, 64), mode="bilinear", align_corners=False)
    got = to_source(logits, meta)
    assert got.dtype == torch.float32
    assert torch.equal(got, full[..., 1:31, 2:62])


def test_rounding_halves_does_not_lose_a_row() -> None:
    meta = ImageMeta("", (3, 3), (2, 2), (1, 1), (1, 1))  # 4.5 and 1.5 source pixels
    assert to_source(torch.zeros(1, 2, 3, 3), meta).shape == (1, 2, 3, 3)


@pytest.mark.parametrize("source", [(361, 637), (720, 1280), (333, 1), (7, 999)])
def test_the_result_has_the_source_size_at_any_ratio(source: tuple[int, int]) -> None:
    for offset in ((0, 0), (12, 0), (24, 0)):
        meta = ImageMeta("", source, (40, 64), (24, 0), offset)
        assert to_source(torch.zeros(1, 2, 64, 64), meta).shape == (1, 2, *source)
