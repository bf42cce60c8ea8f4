"""Convolutions whose weights become +1 and -1 times one factor per channel.

Two switches are thrown while a network trains: the weights of a layer, and, in layers built for
it, the inputs. W1A32 is a network with binary weights and real inputs, W1A1 one with both. Source:
BiSegUNet, eqs. 22 and 23; the sign, its gradients and the border are decisions written at their
functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.depthwise import convolve
from rtseg.nn.fuse import fuse_conv_norm

SMALLEST_ALPHA = 1e-8


# ---------------------------------------------------------------- functions
def sign(x: Tensor) -> Tensor:
    """Return +1 where `x` is 0 or more (-0.0 included), else -1, in its shape and type.

    decision: `torch.sign` gives 0 at 0, a third value that one bit cannot hold.
    """
    return (x >= 0).to(x.dtype) * 2 - 1


def sign_of_weights(x: Tensor) -> Tensor:
    """Return `sign(x)`; gradients pass unchanged where |x| <= 1 and nowhere else."""
    surrogate = _within_one(x)
    return sign(x) + (surrogate - surrogate.detach())


def sign_of_inputs(x: Tensor) -> Tensor:
    """Return `sign(x)`, with the slope 2 - 2|x| where |x| <= 1 and 0 elsewhere.

    Source: Bi-Real Net's piecewise polynomial.
    """
    inside = _within_one(x)
    surrogate = inside * (2 - inside.abs())
    return sign(x) + (surrogate - surrogate.detach())


def _within_one(x: Tensor) -> Tensor:
    # Not clamp: its gradient at -1 and 1 is 0, where clamped weights would stay for good.
    return torch.where(x.abs() <= 1, x, 0.0)


def interleave(x: Tensor, groups: int) -> Tensor:
    """Reorder the channels of (B, C, H, W): group j of `groups` gets j, j + groups, j + 2 groups.

    A grouped convolution then sees every group of the layer before it, and every part of a
    concatenation.
    """
    batch, channels, height, width = x.shape
    mixed = x.reshape(batch, channels // groups, groups, height, width).transpose(1, 2)
    return mixed.reshape(batch, channels, height, width)


# ---------------------------------------------------------------- layers
class InterleavedConv2d(nn.Conv2d):
    """Convolve groups of interleaved channels; depth-wise and ungrouped layers read them in order.

    Takes the arguments of `torch.nn.Conv2d`.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Conv2d uses)
        """Convolve (B, C, H, W) to (B, D, H', W')."""
        return self.convolve(input, self.weight)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve (B, C, H, W) with (D, C / groups, k, k) in place of the own weight."""
        if self.groups == self.in_channels > 1:
            return convolve(self, x, weight)
        if self.groups > 1:
            x = interleave(x, self.groups)
        result: Tensor = self._conv_forward(x, weight, self.bias)
        return result


class BinaryConv2d(InterleavedConv2d):
    """Convolve without bias, with real weights at first and with alpha * sign(weights) later.

    `binarize` switches the weights, `binarize_inputs` the inputs. Both states are part of the
    state dict (`_extra_state`, uint8 of [weights are binary, bits of the inputs]), so that a loaded
    network computes what the saved one did. alpha is kept as `log_alpha`: it stays positive without
    a limit at which its gradient would vanish.

    With inputs of one bit the layer reads sign(x - tau) with one learnable threshold per channel
    (after a ReLU, sign(x) would be +1 everywhere), and the border counts as -1, since one bit
    cannot hold the 0 of a real border.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Odd side of the kernel; the padding keeps the size at stride 1.
        stride: Step of both sides.
        dilation: Of both sides.
        groups: Groups of interleaved channels; `in_channels` is depth-wise.
        act_bits: Bits that the inputs may come to have; 1 adds the thresholds `tau`.

    Source: BiSegUNet, eqs. 22 and 23.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act_bits: Literal[1, 32] = 32,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.log_alpha = nn.Parameter(torch.zeros(out_channels))
        self.tau = nn.Parameter(torch.zeros(in_channels)) if act_bits == 1 else None
        self.binarized = False
        self.act_bits = 32

    def reset_parameters(self) -> None:
        """Draw the weights as He does for ReLU, by the number of inputs of one output."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Conv2d uses)
        """Convolve (B, C, H, W) to (B, D, H / stride, W / stride), sizes rounded up."""
        if self.tau is None or self.act_bits == 32:
            return self.convolve(input, self.effective_weight())
        signs = sign_of_inputs(input - self.tau[:, None, None])
        return self.convolve(signs, self.effective_weight())

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve as the parent does, but pad signs with -1."""
        if self.act_bits == 32:
            return super().convolve(x, weight)
        if self.groups > 1:
            x = interleave(x, self.groups)
        return F.conv2d(
            pad_signs(x, self.padding), weight, None, self.stride, 0, self.dilation, self.groups
        )

    def effective_weight(self) -> Tensor:
        """Return what the inputs are multiplied by: the weights, or alpha * sign(weights)."""
        weight: Tensor = self.weight
        waiting: list[Tensor] = []
        if self.binarized:
            weight = self.log_alpha.exp()[:, None, None, None] * sign_of_weights(weight)
        else:
            waiting.append(self.log_alpha)
        if self.tau is not None and self.act_bits == 32:
            waiting.append(self.tau)
        if not self.training or not waiting:
            return weight
        # Parameters that wait for their switch get a gradient of 0 instead of none.
        return weight + 0 * torch.cat(waiting).sum()

    @torch.no_grad()
    def binarize(self) -> None:
        """Make the weights binary, with alpha = mean |weight| of each output channel.

        That alpha is the best one for the signs at hand, in squares of the weights' changes.
        Source: XNOR-Net.

        Raises:
            ValueError: They are binary already; alpha, which has been trained, would be lost.
        """
        if self.binarized:
            raise ValueError("the weights of this layer are binary already; binarize it only once")
        alpha = self.weight.abs().mean(dim=(1, 2, 3)).clamp(min=SMALLEST_ALPHA)
        self.log_alpha.copy_(alpha.log())
        self.binarized = True

    @torch.no_grad()
    def binarize_inputs(self, tau: Tensor) -> None:
        """Make the inputs binary, with thresholds `tau` (C,) to start from.

        Raises:
            ValueError: The layer was built for real inputs.
        """
        if self.tau is None:
            raise ValueError("this layer keeps real inputs; build it with act_bits=1")
        self.tau.copy_(tau)
        self.act_bits = 1

    def get_extra_state(self) -> Tensor:
        """Return the two switches as uint8 (2,)."""
        return torch.tensor([self.binarized, self.act_bits], dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Throw the switches as a saved layer had them."""
        binarized, act_bits = state.tolist()
        self.binarized, self.act_bits = bool(binarized), int(act_bits)


class SignOfInputs(nn.Module):
    """Map (B, C, H, W) to sign(x - tau), with a border of -1: the input of a deployed layer."""

    tau: Tensor

    def __init__(self, tau: Tensor, padding: str | tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("tau", tau[:, None, None])
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H + 2 p, W + 2 p) of -1 and +1."""
        return pad_signs(sign(x - self.tau), self.padding)


def pad_signs(x: Tensor, padding: str | tuple[int, ...]) -> Tensor:
    """Surround (B, C, H, W) with -1: `padding` rows above and below, columns left and right."""
    assert not isinstance(padding, str)
    rows, columns = padding
    return F.pad(x, (columns, columns, rows, rows), value=-1.0)


# ---------------------------------------------------------------- all layers of a network
def binary_layers(model: nn.Module) -> dict[str, BinaryConv2d]:
    """Return the layers of `model` that have or will have binary weights, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, BinaryConv2d)
    }


@torch.no_grad()
def clamp_weights(layers: Iterable[BinaryConv2d]) -> None:
    """Bring the latent weights of binary layers back to [-1, 1]; to be done after every step.

    Beyond, no gradient could change their sign any more. Source: BinaryConnect.
    """
    for layer in layers:
        if layer.binarized:
            layer.weight.clamp_(-1, 1)


@torch.no_grad()
def binarize_inputs(model: nn.Module, images: Tensor, layers: Iterable[BinaryConv2d]) -> None:
    """Make the inputs of `layers` binary, with their means over one batch as thresholds.

    Args:
        model: The network that the layers belong to; it runs once, in evaluation mode.
        images: Normalised images (B, 3, H, W).
        layers: Built with `act_bits=1`; their inputs are real when the batch runs.
    """
    means: dict[BinaryConv2d, Tensor] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, BinaryConv2d)
        means[module] = inputs[0].float().mean(dim=(0, 2, 3))

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    was_training = model.training
    model.eval()(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    for layer, mean in means.items():
        layer.binarize_inputs(mean)


def binary_penalty(
    layers: Iterable[BinaryConv2d], *, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Return how far latent weights are from their signs: |W - sign(W)|, summed or averaged.

    decision: the mean over all weights, since the paper's sum is thousands of times the
    cross-entropy (15 million weights). It does not change what binary layers compute, only how
    readily their weights change sign.

    Args:
        layers: The ones to count; in training those that are binary already.
        reduction: `sum` is the paper's formula.

    Returns:
        Scalar, float32; 0 without layers.

    Source: BiSegUNet, eq. 24.
    """
    weights = [layer.weight.float() for layer in layers]
    if not weights:
        return torch.zeros(())
    total = torch.stack([(weight - sign(weight)).abs().sum() for weight in weights]).sum()
    return total if reduction == "sum" else total / sum(weight.numel() for weight in weights)


# ---------------------------------------------------------------- deployment
@torch.no_grad()
def deploy_binary(conv: BinaryConv2d, norm: nn.BatchNorm2d) -> nn.Module:
    """Return an ordinary convolution (with bias) that equals `conv` then `norm` in evaluation.

    Its weights are the layer's effective ones times the scale of the norm. Binary inputs add a
    module in front that draws their signs.
    """
    binary_inputs = conv.act_bits == 1
    plain = InterleavedConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # typed as tuples of any length by torch
        stride=conv.stride,  # type: ignore[arg-type]
        padding=0 if binary_inputs else conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=False,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    plain.weight.copy_(conv.effective_weight())
    fused = fuse_conv_norm(plain, norm)
    if conv.tau is None or not binary_inputs:
        return fused
    return nn.Sequential(SignOfInputs(conv.tau.detach().clone(), conv.padding), fused)
