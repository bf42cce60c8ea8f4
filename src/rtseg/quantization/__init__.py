"""Networks that compute as their eight-bit form will: ranges, rounding, calibration, sizes.

Everything here is PyTorch alone, so a quantized checkpoint needs no further package. A network that
has been prepared computes in float with values rounded to those that eight bits can hold.
"""

from __future__ import annotations

from rtseg.quantization.calibration import Calibration
from rtseg.quantization.fake import FakeQuantize, weight_grid
from rtseg.quantization.layers import QuantizedLayer
from rtseg.quantization.prepare import QuantizedNetwork, calibrate, follow_ranges, prepare, quantize
from rtseg.quantization.sizes import integer_state, size_ratio

__all__ = [
    "Calibration",
    "FakeQuantize",
    "QuantizedLayer",
    "QuantizedNetwork",
    "calibrate",
    "follow_ranges",
    "integer_state",
    "prepare",
    "quantize",
    "size_ratio",
    "weight_grid",
]
