"""A small checkpoint with random weights, and images, for tests of prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rtseg.checkpoint import ModelInfo, create_model, save
from rtseg.structures import ClassInfo

CLASSES = (
    ClassInfo("road", (128, 64, 128)),
    ClassInfo("car", (0, 0, 142), thing=True),
    ClassInfo("sky", (70, 130, 180)),
)
PREPROCESS = {"mean": [100.0, 110.0, 120.0], "std": [60.0, 60.0, 60.0], "stride": 8}


def write_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write DABNet for 3 classes; batch norms get statistics, so that folding them matters."""
    torch.manual_seed(seed)
    model = create_model("dabnet", len(CLASSES))
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(2, 3, 48, 64))
    info = ModelInfo("dabnet", {}, "semantic", CLASSES, PREPROCESS)
    save(folder, model.state_dict(), info)
    return folder


def draw(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return an RGB image (H, W, 3) of smooth blobs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_image(path: Path, height: int = 40, width: int = 56, *, seed: int = 0) -> Path:
    """Write such an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(height, width, seed=seed)).save(path)
    return path
