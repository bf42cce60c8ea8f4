from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtseg.ops.resize import resize_argmax, resize_logits


def slow_bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate (h, w) between pixel centres, one output pixel at a time."""
    (height, width), result = image.shape, torch.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            down, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = (1 - dx) * image[top, left] + dx * image[top, right]
            lower = (1 - dx) * image[down, left] + dx * image[down, right]
            result[i, j] = (1 - dy) * upper + dy * lower
    return result


def test_doubling_a_row_is_worked_out_by_hand() -> None:
    row = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    assert resize_logits(row, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("size", [(12, 20), (13, 17), (3, 4), (6, 5)])
def test_resize_equals_a_slow_reference(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 5)
    got = resize_logits(logits, size)
    assert got.shape == (2, 3, *size)
    for b in range(2):
        for k in range(3):
            torch.testing.assert_close(got[b, k], slow_bilinear(logits[b, k], size))


def test_half_precision_is_resized_in_float32() -> None:
    logits = torch.randn(1, 2, 4, 4).bfloat16()
    assert torch.equal(resize_logits(logits, (9, 9)), resize_logits(logits.float(), (9, 9)))
    assert resize_logits(logits, (4, 4)).dtype == torch.float32


@pytest.mark.parametrize("size", [(24, 40), (25, 39), (6, 10)])
@pytest.mark.parametrize("classes", [2, 19])
def test_best_class_is_the_largest_resized_score(size: tuple[int, int], classes: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, classes, 6, 10)
    chosen = resize_argmax(logits, size)
    assert chosen.shape == (2, *size)
    assert chosen.dtype == torch.uint8
    scores = resize_logits(logits, size)
    best = scores.gather(1, chosen.long()[:, None])[:, 0]
    torch.testing.assert_close(best, scores.amax(dim=1))


def test_many_classes_need_wide_ids() -> None:
    logits = torch.zeros(1, 300, 2, 2)
    logits[:, 299] = 1.0
    chosen = resize_argmax(logits, (4, 4))
    assert chosen.dtype == torch.int64
    assert (chosen == 299).all()


def test_lowest_class_wins_a_tie() -> None:
    assert (resize_argmax(torch.zeros(1, 5, 3, 3), (6, 6)) == 0).all()
