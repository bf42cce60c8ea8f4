"""Tiny trees of published layouts, drawn by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 6, 8


def write_image(path: Path, *, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Write noise; another seed gives other pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, values: object, *, palette: bool = False) -> Path:
    """Write values (H, W), (H, W, 3) or (H, W, 4) as they are; with `palette` as indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    if palette:
        image.putpalette([value % 256 for value in range(90, 90 + 768)])
    image.save(path)
    return path


def rgba(values: object) -> np.ndarray:
    """Repeat values (H, W) in three channels and add full opacity."""
    gray = np.asarray(values, dtype=np.uint8)
    return np.stack([gray, gray, gray, np.full_like(gray, 255)], axis=-1)


def half(left: int, right: int) -> np.ndarray:
    """Return a mask with one value in its left half and another in its right half."""
    mask = np.full((HEIGHT, WIDTH), left, dtype=np.uint8)
    mask[:, WIDTH // 2 :] = right
    return mask
