"""A depth-wise convolution that trains well on the CPU: right under bfloat16, and fast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """Convolve every channel on its own; train around three weaknesses of torch 2.15 on the CPU.

    The first two concern dilated layers under bfloat16 autocast with channels-last tensors, which
    therefore leave bfloat16, only while gradients are recorded: with dilation along the height the
    weight gradient reads unwritten memory, along the width it takes 2 to 4 times as long as that of
    float32. The result has the autocast type either way. The third is the gradient of several
    channels out per channel in: 50 times as slow (float32: 2 times) as that of several convolutions
    with one each, so it is trained as these.

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
    """Convolve as the depth-wise `conv` would with another weight; see `DepthwiseConv2d`."""
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        result: Tensor = conv._conv_forward(x, weight, conv.bias)
        return result
    if not torch.is_autocast_enabled("cpu") or max(conv.dilation) == 1:
        return _convolve_in_parts(conv, x, weight, conv.bias)
    with torch.autocast("cpu", enabled=False):
        bias = None if conv.bias is None else conv.bias.float()
        result = _convolve_in_parts(conv, x.float(), weight.float(), bias)
    return result.to(torch.get_autocast_dtype("cpu"))


def _convolve_in_parts(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve once for each channel out per channel in."""
    parts = conv.out_channels // conv.in_channels
    outputs = [
        conv._conv_forward(x, weight[part::parts], None if bias is None else bias[part::parts])
        for part in range(parts)
    ]
    return outputs[0] if parts == 1 else F.channel_shuffle(torch.cat(outputs, dim=1), parts)


def same_padding(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the padding (rows, columns) that keeps the size at stride 1 with an odd kernel."""
    (rows, columns), (down, across) = kernel_size, dilation
    return down * (rows - 1) // 2, across * (columns - 1) // 2
