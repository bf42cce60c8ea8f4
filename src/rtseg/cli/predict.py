"""`rtseg predict`: class maps, overlays and one line of JSON per image."""

from __future__ import annotations

import json
import secrets
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, jsonable, make_table
from rtseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rtseg.structures import SemanticResult

RESULTS = "results.jsonl"
ENDINGS = {"mask": ".png", "overlay": "_overlay.png", "confidence": "_confidence.png"}


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint or run folder.")],
    source: Annotated[
        str, typer.Argument(help="Image, folder, quoted pattern, or .txt list of paths.")
    ],
    *,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("predictions"),
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also write <stem>_confidence.png (0 to 255).")
    ] = False,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Add the outlines of all regions to results.jsonl.")
    ] = False,
    alpha: Annotated[
        float, typer.Option(help="Share of the class color in the overlay, 0 to 1.")
    ] = 0.5,
    shared: Shared,
) -> int | None:
    """Segment images and write what was found.

    For each image: <stem>.png (pixel value = class id), <stem>_overlay.png, and a line in
    results.jsonl, which appears when all is done. Images that cannot be read are named at the end,
    with exit code 3.
    """
    from rtseg.inference.predictor import Predictor
    from rtseg.inference.sources import image_paths

    if not 0 <= alpha <= 1:
        raise ConfigError(f"is {alpha:g}", where="--alpha", fix="use a number from 0 to 1")
    paths = image_paths(source)
    names = unique_names(paths)
    kinds = [kind for kind in ENDINGS if confidence or kind != "confidence"]
    _require_free(output, paths, names, kinds, overwrite=shared.overwrite)
    predictor = Predictor.load(checkpoint, device=shared.device)
    faults: list[DataError] = []
    summary = Summary()
    results = predictor.stream(
        paths, confidence=confidence, on_error=faults.append if len(paths) > 1 else None
    )
    name_of = dict(zip(map(str, paths), names, strict=True))
    with shared.progress("images") as progress, _results_file(output / RESULTS) as lines:
        for result in results:
            files = _write_pictures(result, output, name_of[result.source], alpha=alpha)
            row = {**result.to_dict(), "files": files}
            summary.add(row)
            if polygons:
                row["polygons"] = result.to_polygons()
            lines.write(json.dumps(jsonable(row)) + "\n")
            progress(summary.images + len(faults), len(paths))
    return _finish(summary, faults, output=output, shared=shared)


# ---------------------------------------------------------------- files
def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return the stem of each path; `-2`, `-3`, ... are appended where files would be the same.

    Two names also differ after `_overlay` or `_confidence` is appended, and where upper and lower
    case are the same.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while taken & _claims(name):
            number += 1
            name = f"{path.stem}-{number}"
        taken |= _claims(name)
        names.append(name)
    return names


def _claims(name: str) -> set[str]:
    return {f"{name}{ending}".lower() for ending in ENDINGS.values()}


def _require_free(
    output: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    kinds: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Refuse to replace results without `--overwrite`, and to replace a source image ever."""
    targets = [output / f"{name}{ENDINGS[kind]}" for name in names for kind in kinds]
    existing = [target for target in [output / RESULTS, *targets] if target.exists()]
    sources = {path.resolve() for path in paths}
    for target in existing:
        if target.resolve() in sources:
            raise DataError(
                "is an image to predict and would be replaced by its result",
                where=str(target),
                fix="choose another --output",
            )
    if existing and not overwrite:
        raise DataError(
            f"holds results already, such as {existing[0].name}",
            where=str(output),
            fix="replace them with --overwrite, or choose another --output",
        )


@contextmanager
def _results_file(path: Path) -> Iterator[IO[str]]:
    """Open a file that appears when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        with temporary.open("x", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_pictures(
    result: SemanticResult, output: Path, name: str, *, alpha: float
) -> dict[str, str]:
    """Write the pictures of one image; return their paths by kind."""
    import numpy as np

    from rtseg import visualize

    paths = {kind: output / f"{name}{ending}" for kind, ending in ENDINGS.items()}
    visualize.write_mask(paths["mask"], result.mask, result.palette)
    visualize.write_image(paths["overlay"], result.plot(alpha=alpha, legend=True))
    if result.confidence is None:
        del paths["confidence"]
    else:
        levels = np.rint(result.confidence.astype(np.float32) * 255).astype(np.uint8)
        visualize.write_image(paths["confidence"], np.stack([levels] * 3, axis=-1))
    return {kind: str(path) for kind, path in paths.items()}


# ---------------------------------------------------------------- summary
class Summary:
    """Running sums over images: pixels by class and milliseconds by stage."""

    def __init__(self) -> None:
        self.images = 0
        self.pixels: Counter[tuple[int, str]] = Counter()
        self.milliseconds: Counter[str] = Counter()

    def add(self, row: dict[str, Any]) -> None:
        """Add the row of one image."""
        self.images += 1
        self.pixels.update({(item["id"], item["name"]): item["pixels"] for item in row["classes"]})
        for stage, value in row["timing_ms"].items():
            self.milliseconds[stage] += value

    def classes(self) -> list[dict[str, Any]]:
        """Return pixels and share of each class that occurs, largest first."""
        total = self.pixels.total()
        return [
            {"id": index, "name": name, "pixels": pixels, "share": pixels / total}
            for (index, name), pixels in self.pixels.most_common()
        ]

    def mean_milliseconds(self) -> dict[str, float]:
        """Return the mean of each stage."""
        return {stage: value / self.images for stage, value in self.milliseconds.items()}


def _finish(
    summary: Summary, faults: Sequence[DataError], *, output: Path, shared: Shared
) -> int | None:
    times = summary.mean_milliseconds()
    document = {
        "images": summary.images,
        "failed": [{"file": fault.where, "message": str(fault)} for fault in faults],
        "output": output,
        "results": output / RESULTS,
        "classes": summary.classes(),
        "mean_timing_ms": times,
    }
    rows = [[item["name"], f"{item['share']:.2%}"] for item in summary.classes()]
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in times.items())
    shared.finish(
        document,
        make_table("", ["class", "share of pixels"], rows, numbers=1),
        f"{summary.images} images, mean ms: {stages or 'none'}",
        f"written to {output}: <name>.png, <name>_overlay.png, {RESULTS}",
    )
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return DataError.exit_code if faults else None
