"""TwinMixing as it is deployed: the same function, computed in fewer and denser steps.

Engines are quick at plain convolutions over channels in multiples of 32, and slow at many small
layers. Rounding apart, nothing changes, for any weights:

- Units inside an EPM are linear. Their 1x1 convolutions become three for the whole block: one that
  narrows, one in front of all dilations, and one behind them that also adds up the branches and
  holds the norm.
- A shuffle is an order of channels, and goes into the weights around it; 1x1 convolutions in groups
  become dense ones with zeros.
- Both decoders run side by side as one with twice the channels, up to the last step.
- The last step works at half the size, on the four pixels that come from one as channels: a
  transposed convolution is a 1x1 convolution then, and bilinear doubling a 3x3 one.
- Images are pooled by convolutions. A concatenation that only a convolution reads becomes a sum of
  two convolutions. PCAA cuts its patches once.
- Channels are filled up with zeros where that makes their number a multiple of 32.

decision: dense weights with many zeros multiply more than the trained network (base: by a half
more); they are faster all the same, because the small layers never kept the processor busy. What
is stored or trained in eight bits starts from `TwinMixing.folded` instead, which keeps the layers.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.models.twinmixing import (
    DBU,
    EPM,
    HEAD_CHANNELS,
    IMAGE_CHANNELS,
    PATCHES,
    PCAA,
    CoarseBranch,
    Encoder,
    FineBranch,
    ShuffleUnit,
    TwinMixing,
    check_size,
)
from rtseg.nn.conv import ConvNormAct
from rtseg.nn.fill import (
    average_pool,
    bias_of,
    convolution,
    fill,
    fill_convolution,
    missing,
    prelu,
    slopes_of,
)
from rtseg.structures import RoadLaneOutput

NARROW = 16
"""Step of the inner channels of units, instead of 32: for 129, 144 are quicker than 160."""
BILINEAR = ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))
"""Weights of three neighbours in the first and second of two pixels that come from the middle."""


# ---------------------------------------------------------------- weights
def _matrix(conv: nn.Module) -> Tensor:
    """Return the float64 matrix (D, C) of a 1x1 convolution; groups are blocks in it."""
    assert isinstance(conv, nn.Conv2d)
    return _diagonal(conv.weight.detach().double()[:, :, 0, 0].chunk(conv.groups))


def _diagonal(matrices: Iterable[Tensor]) -> Tensor:
    """Return one matrix with the given ones as blocks along its diagonal."""
    joined: Tensor = torch.block_diag(*matrices)  # type: ignore[no-untyped-call]
    return joined


def _shuffled(unit: ShuffleUnit) -> Tensor:
    """Return which channel of the narrow part comes in each place after the shuffle."""
    assert isinstance(unit.reduce.conv, nn.Conv2d)
    channels = unit.reduce.conv.out_channels
    order: Tensor = unit.shuffle(torch.arange(channels).view(1, channels, 1, 1)).flatten()
    return order


def _narrowing(unit: ShuffleUnit) -> Tensor:
    """Return the matrix of the first 1x1 convolution, with the shuffle."""
    return _matrix(unit.reduce.conv)[_shuffled(unit)]


# ---------------------------------------------------------------- encoder
class DeployedUnit(nn.Module):
    """A shuffle unit at stride 1 with norms folded, on one input or on the parts of one.

    Args:
        unit: The unit, its norms folded.
        read: Matrix from the channels given to those that the unit expects. With a shortcut,
            what comes out has the channels given too.
        widths: Channels of each input; one input if left out.
    """

    def __init__(
        self, unit: ShuffleUnit, *, read: Tensor | None = None, widths: Sequence[int] = ()
    ) -> None:
        super().__init__()
        first, order = _narrowing(unit), _shuffled(unit)
        read = torch.eye(first.shape[1]).double() if read is None else read
        channels = len(first) + missing(len(first), step=NARROW)
        sizes = list(widths) or [read.shape[1]]
        parts = fill(first @ read, channels).split_with_sizes(sizes, dim=1)
        bias = fill(bias_of(unit.reduce.conv)[order], channels)
        self.reduce = nn.ModuleList(
            convolution(part, bias if part is parts[0] else None) for part in parts
        )
        self.inner = prelu(fill(slopes_of(unit.reduce.act)[order], channels))
        self.spatial = fill_convolution(unit.spatial.conv, out_channels=channels)
        back = read.T if unit.add else torch.eye(len(slopes_of(unit.act))).double()
        last = _matrix(unit.expand.conv)
        last = fill(last, len(last), channels)
        self.expand = convolution(back @ last, back @ bias_of(unit.expand.conv).double())
        self.act = prelu(back.float() @ slopes_of(unit.act))
        self.add = unit.add

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map (B, C, H, W), or the parts of it, to (B, D, H, W)."""
        narrow, *others = (conv(x) for conv, x in zip(self.reduce, inputs, strict=True))
        y = self.expand(self.spatial(self.inner(sum(others, start=narrow))))
        result: Tensor = self.act(y + inputs[0] if self.add else y)
        return result


class Stem(nn.Module):
    """The strided unit at the image, without the pooled image in its result."""

    def __init__(self, unit: ShuffleUnit) -> None:
        super().__init__()
        order = _shuffled(unit)
        self.reduce = convolution(_narrowing(unit), bias_of(unit.reduce.conv)[order])
        self.inner = prelu(slopes_of(unit.reduce.act)[order])
        self.spatial = copy.deepcopy(unit.spatial.conv)
        self.expand = convolution(_matrix(unit.expand.conv), bias_of(unit.expand.conv))
        self.act = prelu(slopes_of(unit.act)[:-IMAGE_CHANNELS])

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, P, H/2, W/2)."""
        result: Tensor = self.act(self.expand(self.spatial(self.inner(self.reduce(images)))))
        return result


class Mixing(nn.Module):
    """All branches of an EPM with its norm: two 1x1 convolutions around the dilated ones.

    Args:
        epm: The block.
        grow: Matrix from the channels that come in to those that the branches expect.
    """

    def __init__(self, epm: EPM, *, grow: Tensor) -> None:
        super().__init__()
        units = [branch for branch in epm.branches if isinstance(branch, ShuffleUnit)]
        enter = [_narrowing(unit) for unit in units]
        sizes = [len(matrix) for matrix in enter]
        joined = torch.cat(enter) @ grow
        sizes[-1] += missing(len(joined))
        self.sizes = sizes
        self.enter = convolution(fill(joined, sum(sizes)))
        self.dilated = nn.ModuleList(
            fill_convolution(unit.spatial.conv, out_channels=size)
            for unit, size in zip(units, sizes, strict=True)
        )
        self.carries = any(unit.add for unit in units)
        leave = _summed([
            fill(_matrix(unit.expand.conv), _width(unit), size)
            for unit, size in zip(units, sizes, strict=True)
        ])  # fmt: skip
        if self.carries:
            shortcuts = [
                grow if unit.add else grow.new_zeros(_width(unit), grow.shape[1]) for unit in units
            ]
            carried = torch.stack(_summed(shortcuts).chunk(len(units), dim=1)).sum(dim=0)
            leave = torch.cat([carried, leave], dim=1)
        scale, shift = _scale_and_shift(epm)
        self.leave = convolution(scale[:, None] * leave, shift)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        parts = self.enter(x).split_with_sizes(self.sizes, dim=1)
        mixed = [conv(part) for conv, part in zip(self.dilated, parts, strict=True)]
        result: Tensor = self.leave(torch.cat([x, *mixed] if self.carries else mixed, dim=1))
        return result


def _width(unit: ShuffleUnit) -> int:
    return len(_matrix(unit.expand.conv))


def _summed(blocks: Sequence[Tensor]) -> Tensor:
    """Return the matrix from all branches side by side to their sums, one below the other.

    The first branch stays alone; to each of the others all since the second are added.
    """
    first, *others = _diagonal(blocks).split_with_sizes([len(block) for block in blocks])
    return torch.cat([first, *itertools.accumulate(others)])


def _scale_and_shift(epm: EPM) -> tuple[Tensor, Tensor]:
    """Return what the norm of the block multiplies and adds, in float64."""
    norm = epm.norm[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


class DeployedEPM(nn.Module):
    """An EPM with its norm folded.

    Args:
        epm: The block.
        read: Matrix from the channels given to those that the block expects, at stride 2.
    """

    def __init__(self, epm: EPM, *, read: Tensor | None = None) -> None:
        super().__init__()
        unit = epm.reduce
        first, grow = _narrowing(unit), _matrix(unit.expand.conv)
        self.pool, self.down, self.scale = unit.pool, None, None
        if self.pool is None:
            taps = _bare(unit.spatial.conv)[:, 0, 0]  # kernels of one pixel
            channels = len(first) + missing(len(first))
            self.narrow = convolution(fill(taps * first, channels))
            grow = fill(grow, len(grow), channels)
        else:
            read = torch.eye(first.shape[1]).double() if read is None else read
            channels = len(first) + missing(len(first) + read.shape[1])
            self.narrow = convolution(fill(first @ read, channels))
            self.down = fill_convolution(unit.spatial.conv, out_channels=channels)
            grow = _diagonal([fill(grow, len(grow), channels), read])
        self.mix = Mixing(epm, grow=grow)
        if epm.add:
            scale, _ = _scale_and_shift(epm)
            self.scale = nn.Parameter(scale.float()[None, :, None, None])
        self.act = prelu(slopes_of(epm.norm[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H / stride, W / stride)."""
        narrow = self.narrow(x)
        if self.down is not None and self.pool is not None:
            narrow = torch.cat([self.down(narrow), self.pool(x)], dim=1)
        y = self.mix(narrow)
        result: Tensor = self.act(y if self.scale is None else y + x * self.scale)
        return result


def _bare(conv: nn.Module) -> Tensor:
    """Return the float64 weights (D, C / groups, k, k) of a convolution."""
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.detach().double()


class DeployedPCAA(nn.Module):
    """`PCAA` that scores and queries before it cuts into patches, and so cuts once."""

    def __init__(self, pcaa: PCAA) -> None:
        super().__init__()
        maps, query = pcaa.maps, pcaa.query
        assert maps.bias is not None
        self.widths = [maps.in_channels, maps.out_channels, query.out_features]
        self.heads = convolution(
            torch.cat([_matrix(maps), query.weight.detach().double()]),
            torch.cat([maps.bias, query.bias]),
        )
        self.rest = copy.deepcopy(pcaa)
        self.rest.maps, self.rest.query = nn.Identity(), nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; H must divide by 2 and W by 4."""
        cut = _patches(torch.cat([x, self.heads(x)], dim=1))
        pixels, maps, query = cut.split_with_sizes(
            self.widths, dim=-1
        )  # (B, N, T, C), K and C/2 channels
        attended = self.rest.attend(maps, pixels, query)
        added: Tensor = self.rest.project(_image(attended, x.shape))
        return x + added


def _patches(x: Tensor) -> Tensor:
    """Cut (B, C, H, W) into patches (B, N, T, C); in channels-last memory, rows move as a whole."""
    batch, channels, height, width = x.shape
    rows, columns = PATCHES
    cut = x.permute(0, 2, 3, 1).reshape(
        batch, rows, height // rows, columns, width // columns, channels
    )
    return cut.transpose(2, 3).reshape(batch, rows * columns, -1, channels)


def _image(x: Tensor, shape: torch.Size) -> Tensor:
    """Put patches (B, N, T, C) back together: (B, C, H, W), with `shape` (B, ., H, W)."""
    batch, _, height, width = shape
    rows, columns = PATCHES
    cut = x.reshape(batch, rows, columns, height // rows, width // columns, x.shape[-1])
    return cut.transpose(2, 3).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


# ---------------------------------------------------------------- decoders, all tasks at once
def _phases(up: nn.ConvTranspose2d) -> Tensor:
    """Return the matrix (4 D, C) that makes of a pixel the four that the doubling makes of it."""
    matrix: Tensor = up.weight.detach().double().permute(1, 2, 3, 0).reshape(-1, up.in_channels)
    return matrix


class Fine(nn.Module):
    """The fine branches of all tasks.

    Args:
        branches: One of each task.
        shared: Whether they read the same channels, or each its own.
        skip_channels: Channels of the skip that is given; the last ones may be unused.
    """

    def __init__(self, branches: Sequence[FineBranch], *, shared: bool, skip_channels: int) -> None:
        super().__init__()
        matrix = _joined([_phases(branch.up) for branch in branches], shared=shared)
        kernels = matrix.reshape(-1, 2, 2, matrix.shape[1]).permute(3, 0, 1, 2)
        self.up = nn.ConvTranspose2d(len(kernels), kernels.shape[1], 2, stride=2, device="meta")
        self.up.weight = nn.Parameter(kernels.float().contiguous())
        self.up.bias = nn.Parameter(torch.cat([bias_of(branch.up) for branch in branches]))
        self.act = prelu(torch.cat([slopes_of(branch.act) for branch in branches]))
        convs, slopes = zip(*(_blend(branch) for branch in branches), strict=True)
        own = convs[0].out_channels
        weights = [_bare(conv).permute(2, 3, 0, 1) for conv in convs]  # (3, 3, D, D + S)
        blend = torch.stack([
            _diagonal(weight[row, column, :, :own] for weight in weights)
            for row in range(3) for column in range(3)
        ])  # fmt: skip
        self.blend = convolution(
            blend.permute(1, 2, 0).reshape(*blend.shape[1:], 3, 3),
            torch.cat([bias_of(conv) for conv in convs]),
        )
        skips = torch.cat([_bare(conv)[:, own:] for conv in convs]).transpose(0, 1)
        self.skip = convolution(fill(skips, skip_channels).transpose(0, 1))
        self.out = prelu(torch.cat(slopes))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (B, C, H, W) and a skip (B, S, 2H, 2W) to (B, D, 2H, 2W)."""
        result: Tensor = self.out(self.blend(self.act(self.up(x))) + self.skip(skip))
        return result


def _joined(matrices: Sequence[Tensor], *, shared: bool) -> Tensor:
    """Return the matrix of all tasks, which read the same channels or each its own."""
    return torch.cat(list(matrices)) if shared else _diagonal(matrices)


def _blend(branch: FineBranch) -> tuple[nn.Conv2d, Tensor]:
    """Return the convolution that blends in the skip, and the slopes behind it."""
    assert isinstance(branch.blend, ConvNormAct)
    return branch.blend.conv, slopes_of(branch.blend.act)


class Coarse(nn.Module):
    """The coarse branches of all tasks; arguments as of `Fine`."""

    def __init__(self, branches: Sequence[CoarseBranch], *, shared: bool) -> None:
        super().__init__()
        matrices = [_matrix(branch.project) for branch in branches]
        self.project = convolution(_joined(matrices, shared=shared))
        self.up = copy.deepcopy(branches[0].up)
        self.act = prelu(torch.cat([slopes_of(branch.act) for branch in branches]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, 2H, 2W)."""
        result: Tensor = self.act(self.up(self.project(x)))
        return result


class Doubling(nn.Module):
    """A step of all decoders at once, but for the last; arguments as of `Fine`."""

    def __init__(self, steps: Sequence[DBU], *, shared: bool, skip_channels: int) -> None:
        super().__init__()
        fine = [step.fine for step in steps if step.fine is not None]
        coarse = [step.coarse for step in steps if step.coarse is not None]
        self.fine = Fine(fine, shared=shared, skip_channels=skip_channels) if fine else None
        self.coarse = Coarse(coarse, shared=shared) if coarse else None

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (B, C, H, W) and a skip (B, S, 2H, 2W) to (B, D, 2H, 2W)."""
        parts: list[Tensor] = [] if self.fine is None else [self.fine(x, skip)]
        if self.coarse is not None:
            parts.append(self.coarse(x))
        return sum(parts[1:], start=parts[0])


class LastDoubling(nn.Module):
    """The last step of one decoder, computed before the size doubles.

    Args:
        step: The step.
        place: First of its channels among those of all tasks.
        channels: Channels of all tasks.
    """

    def __init__(self, step: DBU, *, place: int, channels: int) -> None:
        super().__init__()
        self.fine: nn.Module | None = None
        self.coarse: nn.Module | None = None
        if step.fine is not None:
            weight = _placed(_phases(step.fine.up), place, channels)
            bias = bias_of(step.fine.up).repeat_interleave(4)
            slopes = slopes_of(step.fine.act).repeat_interleave(4)
            self.fine = nn.Sequential(convolution(weight, bias), prelu(slopes))
        if step.coarse is not None:
            matrix = _placed(_matrix(step.coarse.project), place, channels)
            taps = torch.tensor(BILINEAR, dtype=torch.float64)
            kernels = torch.einsum("dc,iu,jv->dijcuv", matrix, taps, taps).flatten(0, 2)
            conv = convolution(kernels)
            conv.padding = (0, 0)
            slopes = slopes_of(step.coarse.act).repeat_interleave(4)
            self.coarse = nn.Sequential(conv, prelu(slopes))

    def forward(self, x: Tensor, bordered: Tensor) -> Tensor:
        """Score from (B, C, H, W) and the same with its border repeated: (B, 2, 2H, 2W)."""
        parts = [] if self.fine is None else [self.fine(x)]
        if self.coarse is not None:
            parts.append(self.coarse(bordered))
        return F.pixel_shuffle(sum(parts[1:], start=parts[0]), 2)


def _placed(matrix: Tensor, place: int, channels: int) -> Tensor:
    """Let a matrix read its channels from among others."""
    return F.pad(matrix, (place, channels - place - matrix.shape[1]))


# ---------------------------------------------------------------- network
class DeployedEncoder(nn.Module):
    """The encoder, which pools the image itself.

    Args:
        encoder: The encoder, its norms folded.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        slopes = slopes_of(encoder.stem.act)
        width = len(slopes) - IMAGE_CHANNELS
        # The pooled image as it is, and as the stem would activate it.
        self.halve = average_pool(torch.eye(IMAGE_CHANNELS).repeat(2, 1))
        self.halve_act = prelu(torch.cat([torch.ones(IMAGE_CHANNELS), slopes[width:]]))
        given = width + 2 * IMAGE_CHANNELS
        swapped = [*range(width), *range(width + IMAGE_CHANNELS, given),
                   *range(width, width + IMAGE_CHANNELS)]  # fmt: skip
        self.stem = Stem(encoder.stem)
        self.mix_half = DeployedUnit(
            encoder.mix_half,
            read=torch.eye(given).double()[swapped],
            widths=(width, 2 * IMAGE_CHANNELS),
        )
        self.down2 = DeployedEPM(encoder.down2)
        self.stage2 = _stage(encoder.stage2)
        joined = _narrowing(encoder.mix_quarter).shape[1]
        filled = torch.eye(joined, joined + missing(joined)).double()
        self.quarter = average_pool(
            fill(torch.eye(IMAGE_CHANNELS), IMAGE_CHANNELS + missing(joined), 2 * IMAGE_CHANNELS)
        )
        self.mix_quarter = DeployedUnit(encoder.mix_quarter, read=filled)
        self.down3 = DeployedEPM(encoder.down3, read=filled)
        self.stage3 = _stage(encoder.stage3)
        eighth = _narrowing(encoder.mix_eighth).shape[1] // 2
        self.mix_eighth = DeployedUnit(encoder.mix_eighth, widths=(eighth, eighth))
        self.pcaa = DeployedPCAA(encoder.pcaa)
        self.neck = DeployedUnit(encoder.neck)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images (B, 3, H, W).

        Returns:
            Features (B, 2P, H/8, W/8) and the pooled images (B, 6, H/2, W/2) and (B, S, H/4, W/4),
            which begin with the three colours.
        """
        half = self.halve_act(self.halve(images))
        quarter = self.quarter(half)
        x = self.down2(self.mix_half(self.stem(images), half))
        x = self.mix_quarter(torch.cat([self.stage2(x), x, quarter], dim=1))
        x = self.down3(x)
        return self.neck(self.pcaa(self.mix_eighth(x, self.stage3(x)))), half, quarter


def _stage(blocks: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(DeployedEPM(block) for block in blocks if isinstance(block, EPM)))


class DeployedTwinMixing(nn.Module):
    """The function of a `TwinMixing` for evaluation.

    Args:
        model: The network, its norms folded (`TwinMixing.folded`); it is left as it is.
    """

    def __init__(self, model: TwinMixing) -> None:
        super().__init__()
        both = {"drivable": model.drivable, "lane": model.lane}
        decoders = {task: decoder for task, decoder in both.items() if decoder is not None}
        self.tasks = tuple(decoders)
        self.encoder = DeployedEncoder(model.encoder)
        half, quarter = (pool.out_channels for pool in (self.encoder.halve, self.encoder.quarter))
        parts = list(decoders.values())
        self.up1 = Doubling([part.up1 for part in parts], shared=True, skip_channels=quarter)
        self.up2 = Doubling([part.up2 for part in parts], shared=False, skip_channels=half)
        channels = len(parts) * HEAD_CHANNELS
        self.out = nn.ModuleList(
            LastDoubling(part.out, place=index * HEAD_CHANNELS, channels=channels)
            for index, part in enumerate(parts)
        )
        self.eval()

    def forward(self, images: Tensor) -> RoadLaneOutput:
        """Score images as `TwinMixing.forward` does."""
        check_size(*images.shape[-2:])
        features, half, quarter = self.encoder(images)
        x = self.up2(self.up1(features, quarter), half)
        bordered = F.pad(x, (1, 1, 1, 1), mode="replicate")
        scores = {task: out(x, bordered) for task, out in zip(self.tasks, self.out, strict=True)}
        return RoadLaneOutput(scores.get("drivable"), scores.get("lane"))
