"""Convolution, batch norm and activation as one block, and the last two alone."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from rtseg.nn.depthwise import DepthwiseConv2d, same_padding


class NormAct(nn.Sequential):
    """Batch norm, then PReLU with one slope per channel: 3 parameters per channel."""

    def __init__(self, channels: int, *, eps: float = 1e-3) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=eps), nn.PReLU(channels))


class ConvNormAct(nn.Module):
    """Convolve without bias, normalise, activate; the size stays at stride 1 and halves (up) at 2.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Odd kernel size of both sides, or (height, width).
        stride: Step of both sides.
        dilation: Dilation along height and width; needs `depthwise`.
        depthwise: Convolve every channel on its own; channels in and out must agree.
        activation: PReLU with one slope per channel, ReLU, or none.
        eps: Added to the variance by the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        depthwise: bool = False,
        activation: Literal["prelu", "relu", "none"] = "prelu",
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.conv: nn.Conv2d = (
            DepthwiseConv2d(in_channels, size, out_channels=out_channels, dilation=dilation)
            if depthwise
            else nn.Conv2d(
                in_channels,
                out_channels,
                size,
                stride=stride,
                padding=same_padding(size, dilation),
                dilation=dilation,
                bias=False,
            )
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=eps)
        self.act: nn.Module = nn.PReLU(out_channels) if activation == "prelu" else nn.Identity()
        if activation == "relu":
            self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride), rounded up."""
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result
