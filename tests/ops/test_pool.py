from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rtseg.ops.pool import adaptive_max_pool, window_table


@pytest.mark.parametrize(
    ("height", "width"), [(45, 60), (46, 61), (23, 31), (64, 128), (9, 15), (8, 8), (1, 1), (7, 20)]
)
def test_equals_the_torch_operator_exactly(height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, height, width)
    size = (max(1, height // 8), max(1, width // 8))
    assert torch.equal(adaptive_max_pool(x, size), F.adaptive_max_pool2d(x, size))
    nhwc = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(adaptive_max_pool(nhwc, size), F.adaptive_max_pool2d(x, size))


def test_gradient_equals_that_of_the_torch_operator() -> None:
    torch.manual_seed(0)
    ours = torch.randn(1, 2, 46, 61, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    adaptive_max_pool(ours, (5, 7)).square().sum().backward()
    F.adaptive_max_pool2d(theirs, (5, 7)).square().sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_windows_of_an_uneven_axis_are_listed_by_hand() -> None:
    assert window_table(5, 2) == [[0, 1, 2], [2, 3, 4]]
    assert window_table(7, 3) == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert window_table(4, 3) == [[0, 1], [1, 2], [2, 3]]
    padded = [[0, 1, 1], [1, 2, 2], [2, 3, 4], [4, 5, 5], [5, 6, 7], [7, 8, 8], [8, 9, 9]]
    assert window_table(10, 7) == padded
