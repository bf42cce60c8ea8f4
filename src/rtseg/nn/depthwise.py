"""A depth-wise convolution whose weight gradient is right under bfloat16 autocast on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """Convolve every channel on its own; train in float32 where bfloat16 gradients are wrong.

    Under CPU autocast with channels-last tensors, torch 2.15 reads unwritten memory in the bfloat16
    weight gradient of a depth-wise convolution that is dilated along the height. Outputs and input
    gradients are right, and so is everything with dilation 1, so only the affected layers leave
    bfloat16, and only while gradients are recorded. The result has the autocast type either way.

    Args:
        channels: Channels in; a multiple of it comes out.
        kernel_size: Kernel height and width, both odd.
        out_channels: Channels out, a multiple of `channels`; the same number if left out.
        dilation: Dilation along height and width; the padding keeps the size.
        bias: Learn one offset per channel out.

    Raises:
        ValueError: `out_channels` is not a multiple of `channels`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: tuple[int, int] = (3, 3),
        *,
        out_channels: int | None = None,
        dilation: tuple[int, int] = (1, 1),
        bias: bool = False,
    ) -> None:
        super().__init__(
            channels,
            channels if out_channels is None else out_channels,
            kernel_size,
            padding=same_padding(kernel_size, dilation),
            dilation=dilation,
            groups=channels,
            bias=bias,
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Conv2d uses)
        """Convolve (B, C, H, W) to (B, D, H, W)."""
        return convolve(self, input, self.weight)


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """Convolve as the depth-wise `conv` would with another weight, in float32 where it must be."""
    if not gradient_needs_float32(conv, x):
        result: Tensor = conv._conv_forward(x, weight, conv.bias)
        return result
    with torch.autocast("cpu", enabled=False):
        bias = None if conv.bias is None else conv.bias.float()
        result = conv._conv_forward(x.float(), weight.float(), bias)
    return result.to(torch.get_autocast_dtype("cpu"))


def gradient_needs_float32(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether training a depth-wise `conv` on `x` would meet the wrong gradients."""
    return (
        conv.dilation[0] > 1
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.is_grad_enabled()
    )


def same_padding(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the padding (rows, columns) that keeps the size at stride 1 with an odd kernel."""
    (rows, columns), (down, across) = kernel_size, dilation
    return down * (rows - 1) // 2, across * (columns - 1) // 2
