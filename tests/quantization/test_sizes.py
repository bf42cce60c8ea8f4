"""What quantized networks take in memory."""

from __future__ import annotations

import pytest
import torch

from quantization.nets import small
from rtseg.checkpoint import create_model
from rtseg.quantization import integer_state, prepare, quantize, size_ratio


def test_bytes_of_a_small_network_are_counted_by_hand() -> None:
    """Weights of the layers, their channels, biases, ranges of 5 bytes; the rest stays float."""
    model = prepare(small())
    weights = 4 * 3 * 9 + 4 * 2 + 4 * 4 + 4 * 4 * 9 + 3 * 4
    channels = 4 + 4 + 4 + 4 + 3
    rest = 4 + 8 * 4 * 4 + 4  # PReLU; transposed convolution
    whole = weights + 4 * channels + 4 * channels + 7 * 5 + 4 * rest
    plain = 4 * (weights + channels + rest)
    assert size_ratio(model) == pytest.approx(whole / plain)


def test_the_integer_tensors_are_integers() -> None:
    state = integer_state(quantize(small(), [torch.rand(1, 3, 8, 8)]))
    assert state["network.first.layer.weight"].dtype == torch.int8
    assert state["network.first.layer.scale"].shape == (4,)
    assert state["network.relu.1.zero"].dtype == torch.uint8
    assert state["network.up.weight"].dtype == torch.float32
    assert not any(name.endswith((".low", ".high")) for name in state)


@pytest.mark.parametrize(
    ("name", "classes", "stay", "largest"),
    [("twinmixing_tiny", (), (), 0.40), ("bsdnet_s", (19,), ("head.5",), 0.30)],
)
def test_networks_are_as_small_as_promised(
    name: str, classes: tuple[int, ...], stay: tuple[str, ...], largest: float
) -> None:
    assert size_ratio(prepare(create_model(name, *classes), float_layers=stay)) < largest
