"""`rtseg data preview`: a sheet of images with their labels drawn over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import SetOption, Shared
from rtseg.cli.data_source import DataArgument, open_chosen
from rtseg.errors import DataError

if TYPE_CHECKING:
    from rtseg.data.dataset import Dataset
    from rtseg.structures import Sample


def preview(
    data: DataArgument,
    *,
    split: Annotated[str | None, typer.Option(help="Split; default: the first one.")] = None,
    options: SetOption = None,
    count: Annotated[int, typer.Option(help="Images, drawn at random.", min=1, max=100)] = 12,
    augment: Annotated[
        str | None, typer.Option(help="Recipe: show samples as its augmentation changes them.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("preview.png"),
    shared: Shared,
) -> None:
    """Draw images with their labels over, to see whether both fit.

    Pixels have the color of their class, things of panoptic labels an outline; what is not labeled
    is hatched. Another --seed shows other images.
    """
    if output.exists() and not shared.overwrite:
        raise DataError(
            "exists already",
            where=str(output),
            fix="replace it with --overwrite, or choose another --output",
        )
    import numpy as np

    from rtseg.data.preview import preview_sheet
    from rtseg.visualize import write_image

    datasets = open_chosen(data, [split] if split else None, options, shared)
    name, dataset = next(iter(datasets.items()))
    read = dataset.__getitem__ if augment is None else _augmented(dataset, augment)
    order = np.random.default_rng(shared.seed or 0).permutation(len(dataset))
    chosen = sorted(order[:count].tolist())
    heading = f"{data}, {name}: {len(chosen)} of {len(dataset)} images"
    note = ", ".join(dataset.kinds) + (f"; augmented as {augment} does" if augment else "")
    images: list[dict[str, Any]] = []

    def samples() -> Iterator[Sample]:
        for index in chosen:
            sample = read(index)
            images.append({"index": index, "path": sample.path})
            progress(len(images), len(chosen))
            yield sample

    with shared.progress("samples") as progress:
        sheet = preview_sheet(samples(), dataset.classes, heading=heading, note=note)
    write_image(output, sheet)
    document = {
        "data": data, "split": name, "labels": dataset.kinds, "augment": augment, "output": output,
        "width": sheet.shape[1], "height": sheet.shape[0],
        "images": images,
    }  # fmt: skip
    shared.finish(document, f"{len(chosen)} of {len(dataset)} images of {name} drawn in {output}")


def _augmented(dataset: Dataset, source: str) -> Callable[[int], Sample]:
    """Return a reader of samples as training with a recipe sees them in its first epoch."""
    from rtseg.data.counters import AUGMENTATION, counter_rng
    from rtseg.recipe import read_recipe
    from rtseg.recipe.building import build_transforms

    sections = read_recipe(source).sections
    augment, preprocess = build_transforms(sections["data"])
    seed = sections["train"].get("seed", 0)

    def read(index: int) -> Sample:
        rng = counter_rng(AUGMENTATION, seed, 0, index)
        return augment(dataset[index], rng, padding_color=preprocess.padding_color)

    return read
