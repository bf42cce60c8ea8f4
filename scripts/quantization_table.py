"""Compare float, calibrated and fine-tuned eight-bit networks on procedural scenes.

    python scripts/quantization_table.py runs/quantization docs/results/qat_synthetic

The first folder holds the runs: what is there already is not trained again, and a run that stopped
goes on. The second receives `table.md` and the log of each run. Perhaps half an hour on one
free core; `--quick` only shows that all parts work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rtseg
from rtseg.checkpoint import Checkpoint
from rtseg.evaluation import score
from rtseg.quantization import Calibration, QuantizedNetwork, quantize, size_ratio
from rtseg.recipe import build, read_recipe, resume_recipe, train

NETWORKS = {
    "twinmixing": ("drivable_miou", "lane_iou"),
    "bsdnet": ("miou",),
}
"""Folder of the recipes, and the scores to show."""
COMMON = ("train.device=cpu", "train.threads=1", "train.precision=fp32", "train.save_every=20")
QUICK = (
    "train.iterations=2", "train.batch_size=2", "train.val_every=2", "data.train.size=[32,64]",
    "data.train.length=4", "data.val.size=[32,64]", "data.val.length=2", "data.workers=0",
)  # fmt: skip


def trained(name: str, folder: Path, overrides: list[str]) -> Path:
    """Train a recipe into a folder, unless that has been done, and return its last checkpoint."""
    recipe = read_recipe(name, overrides)
    total = recipe.sections["train"]["iterations"]
    last = folder / "last"
    if not last.exists() or rtseg.load(last).info.facts["step"] < total:
        resume = (folder / "config.yaml").exists()
        train(resume_recipe(folder) if resume else recipe, folder, resume=resume)
    return last


def rows(network: str, runs: Path, *, quick: bool) -> list[str]:
    """Return the lines of the table for one network."""
    shown, changes = NETWORKS[network], [*COMMON, *(QUICK if quick else ())]
    plain = trained(f"{network}/synthetic", runs / network, changes)
    changes.append(f"model.weights={plain}")
    tuned = rtseg.load(trained(f"{network}/synthetic_qat", runs / f"{network}_qat", changes))
    recipe = read_recipe(f"{network}/synthetic_qat", changes)
    data, section = build(recipe).data, recipe.sections["quantize"]
    assert data.val is not None
    start = rtseg.load(plain)
    images = Calibration(data.train, data.preprocess, count=section["images"])
    after = quantize(start.model, images, float_layers=section.get("float_layers", ()))
    forms = {
        "float": start,
        "INT8, calibrated": Checkpoint(after, start.info, start.path),
        "INT8, fine-tuned": tuned,
    }
    lines = []
    for form, checkpoint in forms.items():
        scores = score(checkpoint, data.val).scores
        figures = ", ".join(f"{key} {100 * scores[key]:.2f}" for key in shown)
        small = isinstance(checkpoint.model, QuantizedNetwork)
        size = f"{size_ratio(checkpoint.model):.3f}" if small else "1"
        lines.append(f"| {start.info.name} | {form} | {figures} | {size} |")
    return lines


def main() -> None:
    """Train what is missing, score everything, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    lines = ["| network | form | scores, synthetic val (%) | bytes / float |", "|---|---|---|---|"]
    for network in NETWORKS:
        lines += rows(network, given.runs, quick=given.quick)
    given.output.mkdir(parents=True, exist_ok=True)
    for log in sorted(given.runs.glob("*/log.jsonl")):
        text = log.read_text(encoding="utf-8").replace(f"{given.runs}/", "")
        (given.output / f"{log.parent.name}.jsonl").write_text(text, encoding="utf-8")
    partial = given.output / ".table.md.partial"
    partial.write_text("\n".join([*lines, "", "Single run, seed 0."]) + "\n", encoding="utf-8")
    partial.replace(given.output / "table.md")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
