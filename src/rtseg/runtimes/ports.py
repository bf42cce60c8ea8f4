"""What goes into an exported file and what comes out of it, as its manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rtseg.errors import CheckpointError, ConfigError
from rtseg.runtimes.manifest import Manifest
from rtseg.structures import (
    ClassificationOutput,
    ClassMapOutput,
    MaskOutput,
    RoadLaneMapOutput,
    RoadLaneOutput,
    SemanticOutput,
)

OUTPUTS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ClassificationOutput,
        ClassMapOutput,
        MaskOutput,
        RoadLaneMapOutput,
        RoadLaneOutput,
        SemanticOutput,
    )
}
"""The tuples that a file can stand for, by the name that its manifest gives."""


def fit_input(images: Tensor, manifest: Manifest) -> Tensor:
    """Return images in type and layout of the file's input.

    Args:
        images: (B, 3, H, W) float; for a file that normalizes also (B, H, W, 3) uint8.
        manifest: Of the file.

    Raises:
        ConfigError: The file does not take this shape or type.
    """
    pixels = images.dtype == torch.uint8
    channels = images.shape[-1 if pixels else 1] if images.ndim == 4 else 0
    if channels != 3 or not (pixels or images.is_floating_point()):
        raise ConfigError(
            f"input is {tuple(images.shape)} of {images.dtype}",
            fix="give (B, 3, H, W) float32, or to a file that normalizes (B, H, W, 3) uint8",
        )
    if pixels and not manifest.with_preprocess:
        raise ConfigError(
            "input is uint8, but the file does not normalize",
            fix="normalize it, or export with --with-preprocess",
        )
    if manifest.with_preprocess and not pixels:
        images = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    _check_shape(tuple(images.shape), manifest)
    return images.to(getattr(torch, manifest.image.dtype)).contiguous()


def _check_shape(shape: tuple[int, ...], manifest: Manifest) -> None:
    """Refuse a batch or size that the file was not made for."""
    first = 1 if manifest.with_preprocess else 2
    size, taken = shape[first : first + 2], manifest.image.shape[first : first + 2]
    if manifest.image.shape[0] not in (None, shape[0]):
        raise ConfigError(
            f"input is a batch of {shape[0]}, the file takes {manifest.image.shape[0]}",
            fix="split the batch, or export with --dynamic batch",
        )
    if any(fixed not in (None, side) for fixed, side in zip(taken, size, strict=True)):
        sides = "x".join("any" if side is None else str(side) for side in taken)
        raise ConfigError(
            f"input is {size[0]}x{size[1]} (H x W), the file takes {sides}",
            fix=f"resize or pad the images, or export with --size {size[0]}x{size[1]}",
        )
    if any(side % divisor for side, divisor in zip(size, manifest.divisors, strict=True)):
        raise ConfigError(
            f"input is {size[0]}x{size[1]} (H x W), no multiple of "
            f"{manifest.divisors[0]}x{manifest.divisors[1]}",
            fix="pad the images at the bottom and on the right",
        )


def check_outputs(manifest: Manifest) -> None:
    """Refuse outputs that are no known tuple.

    Raises:
        CheckpointError: The manifest names a tuple or a field that is not known.
    """
    kind = OUTPUTS.get(manifest.output)
    names = [port.name for port in manifest.outputs]
    if kind is None or not names or not set(names) <= set(kind._fields):
        raise CheckpointError(
            f"has the outputs {', '.join(names) or 'none'} of {manifest.output}, which is unknown",
            where=manifest.file,
            fix="export again with this version of rtseg",
        )


def name_outputs(values: Sequence[Tensor], manifest: Manifest) -> Any:
    """Return the outputs of a file as the tuple that its network returns; floats as float32.

    Args:
        values: In the order of the manifest.
        manifest: Of the file.
    """
    names = [port.name for port in manifest.outputs]
    floats = [value.float() if value.is_floating_point() else value for value in values]
    return make_output(manifest.output, dict(zip(names, floats, strict=True)))


def make_output(name: str, fields: Mapping[str, Tensor]) -> Any:
    """Return the output tuple of a name; heads that a network has not are None."""
    kind = OUTPUTS[name]
    absent = dict.fromkeys(set(kind._fields) - set(kind._field_defaults))
    return kind(**absent | dict(fields))
