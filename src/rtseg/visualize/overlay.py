"""Label maps as pictures: class colors, colors over photographs, comparisons with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg.visualize.drawing import Color, Pixels
from rtseg.visualize.legend import KeyEntry, key_panel
from rtseg.visualize.sheet import contact_sheet, hatch, key_strip

_ERROR_RED: Color = (225, 29, 72)


def colorize(mask: NDArray[Any], palette: Sequence[Color]) -> Pixels:
    """Paint every pixel in the color of its class.

    Args:
        mask: Class ids (H, W), any integer type.
        palette: RGB color by class id, 0-255.

    Returns:
        RGB uint8 (H, W, 3); black where the label is 255 or outside the palette.
    """
    table = np.array([*palette, (0, 0, 0)], dtype=np.uint8)
    return table.take(_palette_index(mask, len(palette)), axis=0)


def overlay(
    image: Pixels | None,
    mask: NDArray[Any],
    palette: Sequence[Color],
    *,
    alpha: float = 0.5,
    legend: Sequence[str] | None = None,
) -> Pixels:
    """Paint the class colors over a photograph; 255 and ids outside the palette stay unpainted.

    Args:
        image: RGB uint8 (H, W, 3), or None for the colors alone (unpainted pixels are black).
        mask: Class ids (H, W), any integer type.
        palette: RGB color by class id, 0-255.
        alpha: Share of the class color, 0 (image only) to 1 (colors only), in steps of 1/256.
        legend: Class names by id; if given, a panel at the right names the classes that occur,
            largest first.

    Returns:
        RGB uint8 (H, W, 3), wider by the panel.

    Raises:
        ValueError: If image and mask differ in size or `alpha` is out of range.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; it must be 0 to 1")
    if image is None:
        painted = colorize(mask, palette)
    else:
        _check_size(image, mask)
        painted = _blend(image, _palette_index(mask, len(palette)), palette, alpha)
    if legend is None:
        return painted
    return np.concatenate([painted, _legend_panel(mask, palette, legend)], axis=1)


def comparison(
    image: Pixels,
    truth: NDArray[Any],
    prediction: NDArray[Any],
    palette: Sequence[Color],
    names: Sequence[str],
    *,
    columns: int = 4,
    cell_width: int = 480,
) -> Pixels:
    """Set image, truth, prediction and errors side by side, with captions and a key.

    Pixels without truth are hatched in gray in `truth` and in `errors`; wrong pixels are red.

    Args:
        image: RGB uint8 (H, W, 3).
        truth: Class ids (H, W), 255 = void.
        prediction: Class ids (H, W).
        palette: RGB color by class id, 0-255.
        names: Class names by id.
        columns: Pictures in a row, 4 or 2 for wide images.
        cell_width: Width of each picture in pixels; larger images are shrunk to it.

    Returns:
        RGB uint8 (h, w, 3).
    """
    for part in (truth, prediction):
        _check_size(image, part)
    known = truth != 255
    wrong = known & (truth != prediction)
    gray = np.round(image @ np.array([0.299, 0.587, 0.114]))  # luma weights of ITU-R BT.601
    errors = np.repeat((0.5 * gray + 100).astype(np.uint8)[..., None], 3, axis=2)
    errors[wrong] = _ERROR_RED
    colors = colorize(truth, palette)
    colors[~known] = errors[~known] = hatch(*truth.shape)[~known]
    share = 100 * wrong.sum() / max(int(known.sum()), 1)
    sheet = contact_sheet(
        [image, colors, colorize(prediction, palette), errors],
        titles=["image", "truth", "prediction", f"errors: {share:.1f} % of labeled pixels"],
        columns=columns,
        cell_width=cell_width,
    )
    present = np.union1d(truth, prediction)
    key: list[tuple[str, Color | None]] = [
        (names[index], palette[index]) for index in present if index < len(palette)
    ]
    if not known.all():
        key.append(("not labeled", None))
    key.append(("wrong", _ERROR_RED))
    return np.concatenate([sheet, key_strip(key, sheet.shape[1])], axis=0)


def _palette_index(mask: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Return the class ids with all that has no color replaced by `count`."""
    if mask.ndim != 2:
        raise ValueError(f"mask must be (H, W), got {mask.shape}")
    if mask.dtype not in (np.uint8, np.uint16):
        known = (mask >= 0) & (mask < min(count, 255))
        return np.where(known, mask, count)
    table = np.minimum(np.arange(np.iinfo(mask.dtype).max + 1), count)
    if mask.dtype == np.uint8:  # only maps of more than 255 classes use 255 as a class
        table[255] = count
    return table.take(mask)


def _check_size(image: Pixels, mask: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image {image.shape[:2]} and mask {mask.shape} differ in size")


def _blend(
    image: Pixels, index: NDArray[np.intp], palette: Sequence[Color], alpha: float
) -> Pixels:
    """Mix in fixed point: 256 parts, of which `alpha` are class color; exact at 0 and 1."""
    parts = round(alpha * 256)
    colors = np.array([*palette, (0, 0, 0)], dtype=np.uint16) * np.uint16(parts) + np.uint16(128)
    rest = np.full(len(palette) + 1, 256 - parts, dtype=np.uint16)
    rest[-1] = 256
    weight = rest.take(index)
    painted = np.empty_like(image)
    for channel in range(3):  # one at a time, for the sake of the cache
        mixed = image[..., channel] * weight  # largest sum 255 * 256 + 128, inside uint16
        mixed += colors[:, channel].take(index)
        np.right_shift(mixed, 8, out=painted[..., channel], casting="unsafe")
    return painted


def _legend_panel(mask: NDArray[Any], palette: Sequence[Color], names: Sequence[str]) -> Pixels:
    """Draw the key (H, w, 3): classes by falling area, with their shares of the picture."""
    known = min(len(palette), len(names))
    counts = np.bincount(_palette_index(mask, known).ravel())[:known]
    classes = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    entries = [
        KeyEntry(palette[c], names[c], f"{100 * counts[c] / mask.size:.1f} %") for c in classes
    ]
    return key_panel(entries, height=mask.shape[0])
