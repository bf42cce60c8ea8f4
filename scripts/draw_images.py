"""Draw the pictures of the documentation from synthetic scenes, which anybody may publish.

Usage: python scripts/draw_images.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rtseg.data.synthetic import Synthetic
from rtseg.visualize import overlay

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SCENES = (8, 3, 7)
SIZE = (160, 320)
COLORS = 160
"""A palette instead of true color keeps the file small."""


def main() -> None:
    """Write `scenes.png`: images above, labels painted over them below."""
    dataset = Synthetic(split="test", size=SIZE)
    palette = [item.color for item in dataset.classes]
    columns = []
    for index in SCENES:
        sample = dataset[index]
        painted = overlay(sample.image, sample.labels["semantic"], palette, alpha=0.6)
        columns.append(np.vstack([sample.image, painted]))
    picture = Image.fromarray(np.hstack(columns)).quantize(COLORS, dither=Image.Dither.NONE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture.save(FOLDER / "scenes.png", optimize=True)


if __name__ == "__main__":
    main()
