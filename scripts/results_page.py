"""Write docs/results.md from the results of scripts/train_zoo.py in docs/results; nothing is typed.

Usage: python scripts/results_page.py [--add runs/zoo/JOB ...]

`--add` first copies the tables, log and curves of finished jobs (not the weights) to docs/results.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from zoo_jobs import JOBS, Job, folder_of

from rtseg.errors import DataError
from rtseg.recipe import recipe_folder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
TARGET = ROOT / "docs" / "results.md"
HEAD = """# Results

Written by `make docs` from `docs/results`, where each job has its log, curves, scores and
configuration; do not edit. What else was measured, and how: [notes](results/README.md).

Protocol: one confusion matrix over all images of the split, float32, native label size, no
test-time augmentation, weights rounded to float16 as they ship. Networks of CamVid are trained on
train and val and scored on the 233 frames of test; nothing is selected on test. A published figure
is its paper's, in percent. "Reduced" is a schedule for CPUs: expect less of it than of the paper's.
"""
PUBLISHED = re.compile(r"^# Expected: published mIoU ([\d.]+)", flags=re.MULTILINE)
SHOWN = {
    "miou": "mIoU", "drivable_miou": "drivable mIoU", "lane_iou": "lane IoU",
    "lane_accuracy": "lane accuracy",
}  # fmt: skip
PICTURES = {
    "scenes": "Drawn scenes; if the network knows their classes, its two best of 40 and two worst",
    "roads": "Photographs of motorways by Udacity (MIT), on which nothing was trained",
}
"""What the sheets of scripts/result_pictures.py show."""
SEED = re.compile(r"train\.seed=(\d+)")


def add(run: Path, results: Path = RESULTS) -> Path:
    """Copy what a finished job has written, but not its weights, and return the new folder.

    Raises:
        DataError: The job is not finished.
    """
    source = folder_of(run.parent, run.name)
    if not (source / "summary.json").is_file():
        raise DataError("holds no finished job", where=str(run), fix="train it to its end first")
    target = results / run.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "README.md")
    )
    return target


def render(results: Path = RESULTS, jobs: Sequence[Job] = JOBS) -> str:
    """Return the text of the page."""
    found = {job.name: _summary(results / job.name) for job in jobs}
    lines = [
        HEAD,
        "| job | recipe | ours | published | schedule | seed | trained on |",
        "|---|---|---|---|---|---|---|",
        *(_row(job, found[job.name]) for job in jobs),
        "",
    ]
    for job in jobs:
        summary = found[job.name]
        if summary is not None:
            lines += _section(job, summary, results / job.name)
    return "\n".join(lines)


def published(recipe: str) -> str:
    """Return the mIoU in percent that the paper prints for a recipe or row of it; "none"."""
    name, _, row = recipe.partition("@")
    if row:
        path = recipe_folder() / name.split("/")[0] / "ablations.yaml"
        rows: Any = OmegaConf.to_container(OmegaConf.load(path))
        return str(rows[row]["published"].get("miou", "none"))
    match = PUBLISHED.search((recipe_folder() / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return match[1] if match else "none"


def _summary(folder: Path) -> dict[str, Any] | None:
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _row(job: Job, summary: Mapping[str, Any] | None) -> str:
    seed = next((match[1] for item in job.overrides if (match := SEED.match(item))), "0")
    own = published(job.recipe)
    if summary is None:
        cells = [job.name, f"`{job.recipe}`", "not trained", own, "", seed, ""]
    else:
        first = summary["scores"][job.scorings[0].name]
        kind = "reduced" if summary["reduced"] or job.recipe.endswith("_cpu") else "whole"
        cells = [
            f"[{job.name}](#{job.name})", f"`{job.recipe}`", _scores(first), own,
            f"{kind}, {summary['steps']:,} steps", seed, summary["device"],
        ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _scores(scores: Mapping[str, Any]) -> str:
    shown = [f"{label} {100 * scores[key]:.2f}" for key, label in SHOWN.items() if key in scores]
    return ", ".join(shown)


def _section(job: Job, summary: Mapping[str, Any], folder: Path) -> Iterator[str]:
    place = folder.name
    yield f"## {job.name}\n"
    yield f"`{summary['command']}`\n"
    environment = summary["environment"]
    yield (
        f"{summary['device']}, torch {environment['versions']['torch']}, "
        f"{summary['images_per_second']:.1f} images/s (median over the run); weights: "
        f"{summary['license']}. [Log](results/{place}/log.jsonl), "
        f"[configuration](results/{place}/config.yaml), [environment](results/{place}/env.json).\n"
    )
    yield "| scored on | images seen in training | scores |\n|---|---|---|"
    for scoring in job.scorings:
        scores = summary["scores"][scoring.name]
        seen = "yes" if scores["seen_in_training"] else "no"
        yield f"| {scoring.reader} {scoring.split} | {seen} | {_scores(scores)} |"
    table = folder / job.scorings[0].name / "per_class.csv"
    yield f"\nOn {job.scorings[0].reader} {job.scorings[0].split}, in percent:\n"
    yield "| class | IoU |\n|---|---|"
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield f"| {row['name']} | {_percent(row['iou'])} |"
    yield f"\n![Training loss](results/{place}/plots/loss.png)\n"
    for kind, text in PICTURES.items():
        if job.ship and (folder.parent / "pictures" / f"{job.ship}_{kind}.jpg").is_file():
            yield f"{text}\n\n![{text}](results/pictures/{job.ship}_{kind}.jpg)\n"


def _percent(value: str) -> str:
    return f"{100 * float(value):.2f}" if value else "absent"


def main() -> None:
    """Copy results, if any, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--add", nargs="*", type=Path, default=[], metavar="RUN")
    for run in parser.parse_args().add:
        print(f"copied to {add(run)}")
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
