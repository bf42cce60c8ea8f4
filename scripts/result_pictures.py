"""Draw what shipped networks find in images of kinds they have and have not seen; for docs/results.

Usage: python scripts/result_pictures.py [NAME ...] [--roads DIR]

Drawn scenes, of which anybody may publish pictures: for a network of their classes the two that it
does best of 40 and the two that it does worst, with truth and errors; for others the first four.
`--roads` names a folder of photographs that may be published too. Pictures of data sets whose terms
forbid that are not drawn. They appear as docs/results/pictures/NAME_scenes.jpg and NAME_roads.jpg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtseg import Predictor
from rtseg.checkpoint import list_shipped
from rtseg.data.synthetic import Synthetic
from rtseg.inference.sources import image_paths
from rtseg.visualize import comparison, contact_sheet, write_image
from rtseg.visualize.sheet import key_strip

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "pictures"
SIZE = (256, 512)
SCENES, SHOWN = 40, 4
WIDTH = 440


def draw_scenes(predictor: Predictor) -> NDArray[np.uint8]:
    """Return a sheet of drawn scenes and of what a network finds there."""
    scenes = Synthetic(split="test", size=SIZE, length=SCENES)
    classes = predictor.task.classes
    if [item.name for item in classes] != [item.name for item in scenes.classes]:
        return draw_images(predictor, [scenes[index].image for index in range(SHOWN)])
    found = [(scene := scenes[index], predictor(scene.image)) for index in range(SCENES)]
    found.sort(key=lambda pair: share_right(pair[0].labels["semantic"], pair[1].mask))
    palette, names = [item.color for item in classes], [item.name for item in classes]
    rows = [
        comparison(
            scene.image, scene.labels["semantic"], result.mask, palette, names, cell_width=WIDTH
        )
        for scene, result in (found[-1], found[-2], found[1], found[0])
    ]
    height = max(row.shape[0] for row in rows)
    return np.vstack(
        [np.pad(row, ((0, height - len(row)), (0, 0), (0, 0)), mode="edge") for row in rows]
    )


def share_right(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float:
    """Return the share of labelled pixels with the right class."""
    return float((truth == mask)[truth != 255].mean())


def draw_images(predictor: Predictor, images: list[Any]) -> NDArray[np.uint8]:
    """Return a sheet of images, each beside what a network finds in it."""
    results = [predictor(image) for image in images]
    pairs = [picture for item in results for picture in (item.image, item.plot(alpha=0.55))]
    sheet = contact_sheet(pairs, columns=2, cell_width=WIDTH * 3 // 2)
    key = [(item.name, item.color) for item in predictor.task.classes]
    return np.vstack([sheet, key_strip(key, sheet.shape[1])])


def main() -> None:
    """Draw the sheets of the networks that are named, or of all that ship."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--roads", type=Path, help="folder of photographs")
    options = parser.parse_args()
    for name in options.names or list_shipped():
        predictor = Predictor.load(name, runtime="torch")
        print(f"wrote {write_image(FOLDER / f'{name}_scenes.jpg', draw_scenes(predictor))}")
        if options.roads is not None:
            sheet = draw_images(predictor, list(image_paths(str(options.roads))))
            print(f"wrote {write_image(FOLDER / f'{name}_roads.jpg', sheet)}")


if __name__ == "__main__":
    main()
