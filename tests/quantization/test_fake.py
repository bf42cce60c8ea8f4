"""Rounding to eight bits, with numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtseg.quantization.fake import FakeQuantize, integer_weight, round_weight, weight_grid


def with_range(low: float, high: float) -> FakeQuantize:
    quantizer = FakeQuantize().eval()
    quantizer.low.fill_(low)
    quantizer.high.fill_(high)
    return quantizer


def test_values_are_rounded_to_the_grid_and_cut_at_the_range() -> None:
    """255 steps of 0.01 from -1 to 1.55; byte 100 means 0."""
    quantizer = with_range(-1.0, 1.55)
    scale, zero = quantizer.grid()
    assert float(scale) == pytest.approx(0.01)
    assert int(zero) == 100
    x = torch.tensor([0.0, 0.004, 0.006, -0.123, -1.0, -2.0, 1.55, 3.0], requires_grad=True)
    y = quantizer(x)
    expected = torch.tensor([0.0, 0.0, 0.01, -0.12, -1.0, -1.0, 1.55, 1.55])
    torch.testing.assert_close(y, expected)
    (3 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3, 3, 3, 3, 0, 3, 0]


@pytest.mark.parametrize(("low", "high", "zero"), [(0.5, 2.55, 0), (-2.55, -0.5, 255)])
def test_a_range_always_holds_zero(low: float, high: float, zero: int) -> None:
    quantizer = with_range(low, high)
    scale, found = quantizer.grid()
    assert float(scale) == pytest.approx(0.01)
    assert int(found) == zero
    assert float(quantizer(torch.zeros(1))) == 0


def test_an_empty_range_gives_almost_zero_and_not_nan() -> None:
    assert FakeQuantize().eval()(torch.tensor([1.0, -1.0])).abs().max() < 1e-9


def test_the_range_follows_in_training_only() -> None:
    quantizer = FakeQuantize()
    quantizer(torch.tensor([-1.0, 3.0]))
    assert (float(quantizer.low), float(quantizer.high)) == pytest.approx((-0.01, 0.03))
    quantizer(torch.tensor([-2.0, 1.0]))
    assert (float(quantizer.low), float(quantizer.high)) == pytest.approx((-0.0299, 0.0397))
    quantizer.eval()(torch.tensor([-9.0, 9.0]))
    assert (float(quantizer.low), float(quantizer.high)) == pytest.approx((-0.0299, 0.0397))


def test_a_widening_range_holds_all_that_passed_unchanged() -> None:
    quantizer = FakeQuantize().eval()
    quantizer.widening = True
    for values in ([0.3, 0.7], [-0.1, 0.2], [0.0, 0.5]):
        x = torch.tensor(values)
        assert quantizer(x) is x
    assert (float(quantizer.low), float(quantizer.high)) == pytest.approx((-0.1, 0.7))


def test_type_and_shape_stay() -> None:
    x = torch.randn(2, 3, 4, 5).to(torch.bfloat16)
    y = with_range(-4, 4)(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert round_weight(x).dtype == torch.bfloat16


def test_weights_are_rounded_by_output_channel() -> None:
    weight = torch.tensor([[1.27, -0.634, 0.0], [0.0127, 0.00636, -0.0127], [0.0, 0.0, 0.0]])
    assert weight_grid(weight)[:2].tolist() == pytest.approx([0.01, 0.0001])
    whole, scale = integer_weight(weight)
    assert whole.dtype == torch.int8
    assert whole.tolist() == [[127, -63, 0], [127, 64, -127], [0, 0, 0]]
    expected = torch.tensor([[1.27, -0.63, 0.0], [0.0127, 0.0064, -0.0127], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(round_weight(weight), expected)
    assert scale.shape == (3,)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (6, 1, 5, 1), (10, 7)])
def test_bytes_and_factors_give_the_rounded_weights(shape: tuple[int, ...]) -> None:
    weight: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    whole, scale = integer_weight(weight)
    product = whole.float() * scale.view(-1, *[1] * (len(shape) - 1))
    torch.testing.assert_close(product, round_weight(weight), rtol=1e-6, atol=0)
    assert int(whole.min()) >= -127


def test_gradients_reach_every_weight_unchanged() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    factors = torch.randn(4, 3)
    (round_weight(weight) * factors).sum().backward()
    torch.testing.assert_close(weight.grad, factors)
