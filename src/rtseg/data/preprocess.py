"""From an image to the tensor that a network sees; the same in training, evaluation and use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from rtseg.data.pixels import (
    BINARY_KINDS,
    Color,
    Size,
    as_rows,
    column,
    cover_label,
    label_maps,
    normalize_pixels,
    pad_image,
    pad_label,
    resize_label,
    shortest_side,
    to_tensor,
    with_maps,
)
from rtseg.errors import ConfigError
from rtseg.structures import ImageMeta, Sample


class Fitted(NamedTuple):
    """A network's input, float32 (3, h, w), normalized and padded, and where it came from."""

    image: Tensor
    meta: ImageMeta


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the input of a network; part of recipe and checkpoint, in units of 0-255.

    mean, std: per channel (RGB). pad_value: what padding holds before normalization (default: the
    mean, so 0 after it).
    stride: height and width are padded at the bottom and right to a multiple of it.
    size: (h, w) that every image is resized to. short_side: its shortest side instead, ratio kept;
    max_long_side: the longest side that this may give. None of them: its own size.
    letterbox: (H, W) to which the image is padded on all sides, so that it lies in the middle;
    without `size` the image is first resized, ratio kept, until it touches two sides.
    antialias: resizing bilinearly averages over all source pixels when it shrinks; false takes the
    four nearest ones only.
    mask_resize: how label maps follow a resize; `max` makes a pixel of a binary map 1 if any source
    pixel under it is.
    resize: `evaluation` spares training images the size rule: they keep the size that augmentation
    gave them.
    score_at: results are compared with the labels at `native` size, or at the size that the image
    has at the `input`, before padding.
    """

    mean: Color = (123.675, 116.28, 103.53)
    std: Color = (58.395, 57.12, 57.375)
    pad_value: Color | None = None
    stride: int = 32
    size: Size | None = None
    short_side: int | None = None
    max_long_side: int | None = None
    letterbox: Size | None = None
    antialias: bool = True
    resize: Literal["always", "evaluation"] = "always"
    mask_resize: Literal["nearest", "max"] = "nearest"
    score_at: Literal["native", "input"] = "native"

    def __post_init__(self) -> None:
        sides = (*(self.size or ()), *(self.letterbox or ()))
        lengths = [side for side in (self.short_side, self.max_long_side) if side is not None]
        if min(self.stride, *self.std, *sides, *lengths) <= 0:
            raise ConfigError(
                f"stride {self.stride}, std {self.std} and size {self.size} must be positive",
                where="data.preprocess",
                fix="use stride 1 for no padding and std 1 for no scaling",
            )
        self._require_one_size_rule()
        if self.letterbox is not None:
            self._require_room(self.letterbox)

    def _require_one_size_rule(self) -> None:
        if self.short_side is not None and (self.size or self.letterbox):
            raise ConfigError(
                "short_side excludes size and letterbox",
                where="data.preprocess",
                fix="give one rule for the size",
            )
        if self.max_long_side is not None and self.short_side is None:
            raise ConfigError(
                "max_long_side caps short_side, which is missing",
                where="data.preprocess",
                fix="add short_side",
            )

        if self.resize == "evaluation" and (self.letterbox or not (self.size or self.short_side)):
            raise ConfigError(
                "resize: evaluation needs size or short_side, and no letterbox",
                where="data.preprocess.resize",
                fix="leave it out",
            )

    def _require_room(self, letterbox: Size) -> None:
        small = any(a > b for a, b in zip(self.size or (0, 0), letterbox, strict=True))
        if small or any(side % self.stride for side in letterbox):
            raise ConfigError(
                f"letterbox {list(letterbox)} is smaller than size or no multiple of the stride "
                f"{self.stride}",
                where="data.preprocess",
                fix="enlarge it, or lower size or stride",
            )

    def for_training(self) -> Preprocess:
        """Return what training images pass, which is less with `resize` at `evaluation`."""
        if self.resize == "always":
            return self
        return replace(self, size=None, short_side=None, max_long_side=None, resize="always")

    def in_pixels(self) -> Preprocess:
        """Return the same without normalization, for a network that normalizes inside.

        Whole numbers of 0..255 stay such: what padding holds is rounded.
        """
        red, green, blue = (float(round(value)) for value in self.padding_color)
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return replace(self, mean=zero, std=one, pad_value=(red, green, blue))

    @property
    def padding_color(self) -> Color:
        """What padded pixels hold before normalization, in 0-255."""
        return self.mean if self.pad_value is None else self.pad_value

    def normalize(self, image: Tensor) -> Tensor:
        """Return (image - mean) / std as float32; image (..., 3, H, W) in 0-255.

        Memory stays ordered as it is: in planes, or with the channels of a pixel side by side.
        """
        mean, std = column(self.mean).to(image.device), column(self.std).to(image.device)
        rows = as_rows(image)
        if rows is None:
            return image.to(torch.float32, copy=True).sub_(mean).div_(std)
        # Whole rows at once: loops over the three channels of a pixel take ten times as long.
        mean, std = (part.flatten().repeat(image.shape[-1]) for part in (mean, std))
        normalized = rows.to(torch.float32, copy=True).sub_(mean).div_(std)
        return normalized.view(*rows.shape[:-1], -1, 3).movedim(-1, -3)

    def fit(self, image: NDArray[Any], *, path: str = "", planar: bool = False) -> Fitted:
        """Resize by the size rule, normalize, and pad.

        Args:
            image: (H, W, 3) RGB in 0-255, uint8 or float32.
            path: Kept in the result's meta.
            planar: Order memory in planes, one per channel, as exported files take images. By
                default an image keeps the channels of a pixel side by side unless it is resized.
        """
        meta = self.measure((image.shape[0], image.shape[1]), path=path)
        if meta.input_size != meta.source_size:
            return Fitted(self.fit_tensor(to_tensor(image), meta, planar=planar), meta)
        outer = (meta.input_size[0] + meta.padding[0], meta.input_size[1] + meta.padding[1])
        normalized = normalize_pixels(
            image, np.array(self.mean, np.float32), np.array(self.std, np.float32),
            color=self.padding_color, size=outer, offset=meta.offset, planar=planar,
        )  # fmt: skip
        return Fitted(normalized, meta)

    def measure(self, source: Size, *, path: str = "") -> ImageMeta:
        """Return how an image of a size (H, W) will be fitted."""
        inner = self._input_size(source)
        outer = self.letterbox or (inner[0] + -inner[0] % self.stride,
                                   inner[1] + -inner[1] % self.stride)  # fmt: skip
        padding = (outer[0] - inner[0], outer[1] - inner[1])
        offset = (padding[0] // 2, padding[1] // 2) if self.letterbox else (0, 0)
        return ImageMeta(path, source, inner, padding, offset)

    def fit_tensor(self, image: Tensor, meta: ImageMeta, *, planar: bool = False) -> Tensor:
        """Do to an image (3, H, W) in 0-255 what `measure` has said; on the image's device.

        planar: As for `fit`.
        """
        tensor = F.resize(image, list(meta.input_size), antialias=self.antialias)
        tensor = self.normalize(tensor.contiguous() if planar else tensor)
        if meta.padding == (0, 0):
            return tensor
        color = self.normalize(column(self.padding_color).to(tensor.device))
        outer = (tensor.shape[-2] + meta.padding[0], tensor.shape[-1] + meta.padding[1])
        return pad_image(tensor, color, outer, meta.offset)

    def _input_size(self, source: Size) -> Size:
        if self.size is not None:
            return self.size
        if self.short_side is not None:
            return shortest_side(source, self.short_side, cap=self.max_long_side)
        if self.letterbox is not None:
            scale = min(self.letterbox[0] / source[0], self.letterbox[1] / source[1])
            return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
        return source

    def fit_labels(
        self, labels: Mapping[str, NDArray[Any]], meta: ImageMeta
    ) -> dict[str, NDArray[Any]]:
        """Bring the labels of a training image to the size that `fit` gave the image.

        Args:
            labels: By kind; maps (H, W), all of the size of the image, or labels of the whole
                image, which stay.
            meta: What `fit` returned for the image.

        Returns:
            Maps of the size of the network's input: void where it is padded.
        """
        outer = (meta.input_size[0] + meta.padding[0], meta.input_size[1] + meta.padding[1])
        maps = {
            kind: pad_label(label, kind, outer, meta.offset)
            for kind, label in self._resized(labels, meta).items()
        }
        return with_maps(labels, maps)

    def scored(self, sample: Sample, meta: ImageMeta) -> tuple[Sample, ImageMeta]:
        """Return sample and meta as an evaluation uses them: labels at the size of `score_at`.

        Args:
            sample: As read.
            meta: What `fit` returned for its image.
        """
        if self.score_at == "native":
            return sample, meta
        labels = with_maps(sample.labels, self._resized(sample.labels, meta))
        return replace(sample, labels=labels), meta._replace(source_size=meta.input_size)

    def _resized(self, labels: Mapping[str, NDArray[Any]], meta: ImageMeta) -> dict[str, Tensor]:
        maps = label_maps(labels)
        if meta.input_size == meta.source_size:
            return maps
        wide = BINARY_KINDS if self.mask_resize == "max" else ()
        return {
            kind: (cover_label if kind in wide else resize_label)(label, meta.input_size)
            for kind, label in maps.items()
        }
