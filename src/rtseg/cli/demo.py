"""`rtseg demo`: train, score and show the embedded example, with nothing to download."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared
from rtseg.cli.run_display import duration, run_display
from rtseg.cli.val import count_images, refuse_existing, score_tables

if TYPE_CHECKING:
    from rtseg.checkpoint import Checkpoint
    from rtseg.evaluation import Evaluation
    from rtseg.recipe import Recipe
    from rtseg.training.options import Plan
    from rtseg.visualize import Section

RECIPE = "lsa_binet/synthetic"
SCORED, SHOWN, LOOKED_AT = 200, 6, 2
STEP_LIMITS = (40, 1500)
TRAINING_SHARE = 0.85
"""Of the time that is granted; the rest is for validation and for slower moments."""
CONTENT = ("run", "scenes", "predictions", "comparisons")
REPORT = "report.html"


def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("demo"),
    minutes: Annotated[
        float, typer.Option(help="Longest training time; it ends sooner on fast machines.", min=0.1)
    ] = 5.0,
    shared: Shared,
) -> None:
    """Train LSA-BiNet on procedural street scenes, score it, predict unseen scenes, show all of it.

    Nothing is downloaded. Open report.html in the output folder afterwards.
    """
    refuse_existing(output, (REPORT, *CONTENT), shared)
    for name in CONTENT:
        shutil.rmtree(output / name, ignore_errors=True)
    from rtseg.checkpoint import load
    from rtseg.recipe import build, run
    from rtseg.visualize import html_page, write_text

    recipe = _fitted_recipe(minutes, shared)
    plan = build(recipe)
    began = time.perf_counter()
    with run_display(shared) as display:
        run(plan, recipe, output / "run", display=display)
    seconds = time.perf_counter() - began
    loaded = load(output / "run" / "last")
    result = _score(loaded, plan, output, shared)
    shown = _predict(plan, output)
    sections = _sections(result, shown, plan, output, seconds=seconds)
    sections.extend(_shipped(output))
    page = html_page(
        "rtseg demo",
        sections,
        subtitle=f"{plan.info.name} learns procedural street scenes in {duration(seconds)}",
        footer="Drawn by `rtseg demo`. Scenes and labels are generated; nothing was downloaded.",
    )
    report = write_text(output / REPORT, page)
    document = {
        "output": output, "report": report, "miou": result.scores["miou"],
        "scores": result.scores, "training_seconds": round(seconds, 1),
        "steps": plan.options.iterations, "per_class": result.per_class,
    }  # fmt: skip
    shared.finish(document, *score_tables(result), *_pointers(output, result, seconds))


def _fitted_recipe(minutes: float, shared: Shared) -> Recipe:
    """Read the recipe with as many steps as this machine computes in the given time."""
    from rtseg.recipe import build, read_recipe

    changes = [] if shared.seed is None else [f"train.seed={shared.seed}"]
    if shared.device != "auto":
        changes.append(f"train.device={shared.device}")
    probe = build(read_recipe(RECIPE, [*changes, "data.val=null"]))
    seconds = _seconds_per_step(probe)
    steps = min(max(round(TRAINING_SHARE * 60 * minutes / seconds), STEP_LIMITS[0]), STEP_LIMITS[1])
    shared.log(f"a step takes {seconds:.2f} s here: {steps} steps fit into {minutes:g} min")
    changes += [f"train.iterations={steps}", f"train.val_every={-(-steps // 3)}"]
    return read_recipe(RECIPE, changes)


def _seconds_per_step(plan: Plan) -> float:
    """Time a few training steps, the first of which warm up."""
    import tempfile

    from rtseg.training.probe import step_seconds

    with tempfile.TemporaryDirectory() as folder:
        return step_seconds(plan, Path(folder), warmup=2, steps=4)


def _score(loaded: Checkpoint, plan: Plan, output: Path, shared: Shared) -> Evaluation:
    """Score the network on validation scenes and draw the first few beside their truth."""
    from rtseg.evaluation import score, write_evaluation
    from rtseg.inference.predictor import choose_device

    dataset = _scenes(plan, split="val", length=SCORED)
    with shared.progress("scoring") as progress:
        device = choose_device(shared.device)
        visit = count_images(progress, len(dataset))
        result = score(loaded, dataset, device=device, visit=visit)
    protocol = {"data": f"synthetic val, {SCORED} scenes", "size": "native", "precision": "fp32"}
    write_evaluation(result, output, protocol=protocol)
    return result


def _scenes(plan: Plan, *, split: str, length: int) -> Any:
    """Return scenes of the size that the network was trained on."""
    from rtseg.data.synthetic import Synthetic

    image = plan.data.train[0].image
    return Synthetic(split=split, size=(image.shape[0], image.shape[1]), length=length)


def _predict(plan: Plan, output: Path) -> list[Any]:
    """Write unseen scenes as files, predict them as a user would, and set truth beside them."""
    from rtseg.inference.predictor import Predictor
    from rtseg.visualize import comparison, write_image

    predictor = Predictor.load(output / "run" / "last", runtime="torch")
    pictures = []
    for number, sample in enumerate(_scenes(plan, split="test", length=SHOWN)):
        path = write_image(output / "scenes" / f"scene_{number}.png", sample.image)
        result = predictor(path)
        result.save(output / "predictions")
        maps = [enlarge(item) for item in (sample.labels["semantic"], result.mask)]
        image, names = enlarge(sample.image), result.names
        picture = comparison(image, maps[0], maps[1], result.palette, names, columns=2)
        write_image(output / "comparisons" / f"scene_{number}.png", picture)
        pictures.append(picture)
    return pictures


def _shipped(output: Path) -> list[Section]:
    """Return what the weights that come with the package see in the same scenes, if there are any.

    They have never seen such small pictures, and those of CamVid no such scenes: a look, no score.
    """
    from rtseg.checkpoint import list_shipped
    from rtseg.inference.predictor import Predictor
    from rtseg.visualize import Picture, Section

    paths = sorted((output / "scenes").glob("*.png"))[:LOOKED_AT]
    sections = []
    for name in list_shipped():
        predictor = Predictor.load(name, runtime="torch")
        pictures = [
            Picture(enlarge(predictor(path).plot()), f"{name}, {path.stem}") for path in paths
        ]
        sections.append(Section(f"Shipped weights: {name}", pictures))
    return sections


def enlarge(pixels: Any) -> Any:
    """Repeat the pixels of a small (H, W) or (H, W, 3) array so that it fills a page: 480 wide."""
    factor = max(1, 480 // pixels.shape[1] + 1)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _sections(
    result: Evaluation, shown: Sequence[Any], plan: Plan, output: Path, *, seconds: float
) -> list[Section]:
    """Return the parts of the report: result, scenes, classes, training, confusion."""
    from rtseg.data.files import read_image
    from rtseg.visualize import Picture, Section, Table, bar_chart, confusion_picture

    options, names = plan.options, [row["name"] for row in result.per_class]
    images = (options.iterations or 0) * options.batch_size
    text = (
        f"Mean IoU {result.scores['miou']:.3f} over {result.scores['classes_in_mean']} classes, "
        f"{result.scores['pixel_accuracy']:.1%} of the pixels right, on {result.images} scenes "
        f"that were not trained on. Training: {options.iterations} steps of {options.batch_size} "
        f"scenes ({images} in all) in {duration(seconds)}, from random weights."
    )
    rows = [(row["name"], row["iou"], row["accuracy"], row["pixels"]) for row in result.per_class]
    bars = bar_chart({row["name"]: row["iou"] for row in result.per_class}, title="IoU by class")
    plots = [
        Picture(read_image(path), caption)
        for path, caption in (
            (output / "run" / "plots" / "loss.png", "Training loss"),
            (output / "run" / "plots" / "score.png", "Scores on validation scenes while training"),
        )
        if path.is_file()
    ]
    captions = [f"Unseen scene {number}" for number in range(len(shown))]
    scenes = [Picture(picture, text) for picture, text in zip(shown, captions, strict=True)]
    matrix = confusion_picture(result.metric.matrix(), names)
    return [
        Section("Result", [text]),
        Section("Unseen scenes", scenes),
        Section("Classes", [Picture(bars), Table(("class", "IoU", "accuracy", "pixels"), rows)]),
        Section("Training", plots),
        Section("Confusion", [Picture(matrix, "Rows: truth; columns: prediction; share of row")]),
    ]


def _pointers(output: Path, result: Evaluation, seconds: float) -> list[str]:
    return [
        f"mean IoU {result.scores['miou']:.3f} on {result.images} unseen scenes "
        f"after {duration(seconds)} of training",
        f"open   {output / REPORT}",
        f"look   {output / 'comparisons'}, {output / 'predictions'}",
        f"next   rtseg predict {output / 'run'} YOUR_IMAGES   or   rtseg train --help",
    ]
