"""Layers with the weights that deployment wants: channels filled up with zeros, pools as weights.

Matrix units of processors take channels in steps; a number between two of them takes a slow path.
Channels of zeros cost less, and change nothing.
"""

from __future__ import annotations

from torch import Tensor, nn

STEP = 32
"""Channels that matrix units take at once in bfloat16."""


def missing(channels: int, *, step: int = STEP) -> int:
    """Return how many channels a number is short of a multiple of `step`."""
    return -channels % step


def fill(x: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """Add zeros at the end of the first dimension, and of the second if its length is given."""
    grown = x.new_zeros(rows, *x.shape[1:] if columns is None else (columns, *x.shape[2:]))
    grown[: x.shape[0], *(slice(0, size) for size in x.shape[1:])] = x
    return grown


def convolution(weight: Tensor, bias: Tensor | None = None, *, stride: int = 1) -> nn.Conv2d:
    """Return the float32 convolution with weights (D, C, k, k), or (D, C); stride 1 keeps the size.

    No random numbers are drawn, unlike where a layer is built as usual.
    """
    if weight.dim() == 2:
        weight = weight[:, :, None, None]
    out_channels, in_channels, size, _ = weight.shape
    conv = nn.Conv2d(
        in_channels, out_channels, int(size), stride=stride, padding=int(size) // 2,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    conv.weight = nn.Parameter(weight.detach().float().contiguous())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().float().clone())
    return conv


def fill_convolution(
    conv: nn.Module, *, in_channels: int | None = None, out_channels: int | None = None
) -> nn.Conv2d:
    """Return a copy with more channels, the new ones 0.

    Args:
        conv: A convolution without groups, or a depth-wise one with as many channels out as in,
            of which both numbers must be given or follow from one.
        in_channels: Channels in; as before if left out.
        out_channels: Channels out; as before if left out.
    """
    assert isinstance(conv, nn.Conv2d)
    rows = out_channels or in_channels if conv.groups > 1 else out_channels
    rows = rows or conv.out_channels
    columns = 1 if conv.groups > 1 else in_channels or conv.in_channels
    filled = nn.Conv2d(
        rows if conv.groups > 1 else columns, rows, (conv.kernel_size[0], conv.kernel_size[1]),
        stride=(conv.stride[0], conv.stride[1]), dilation=(conv.dilation[0], conv.dilation[1]),
        groups=rows if conv.groups > 1 else 1, bias=conv.bias is not None, device="meta",
    )  # fmt: skip
    filled.padding = conv.padding
    filled.weight = nn.Parameter(fill(conv.weight.detach(), rows, columns))
    if conv.bias is not None:
        filled.bias = nn.Parameter(fill(conv.bias.detach(), rows))
    return filled


def prelu(slopes: Tensor) -> nn.PReLU:
    """Return the activation with these slopes (C,)."""
    act = nn.PReLU(len(slopes))
    act.weight = nn.Parameter(slopes.detach().clone())
    return act


def slopes_of(act: nn.Module) -> Tensor:
    """Return the slopes (C,) of an activation."""
    assert isinstance(act, nn.PReLU)
    return act.weight.detach()


def bias_of(conv: nn.Module) -> Tensor:
    """Return the bias (D,) of a convolution that has one."""
    assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
    assert conv.bias is not None
    return conv.bias.detach()


def average_pool(choice: Tensor) -> nn.Conv2d:
    """Return the 3x3 average pool with stride 2 as a convolution; zeros beyond the border count.

    An engine keeps its memory layout through a convolution, but not through a pool of three
    channels.

    Args:
        choice: What to return of what is pooled, a matrix (D, C).
    """
    return convolution((choice / 9)[:, :, None, None].expand(-1, -1, 3, 3), stride=2)
