"""Does distillation help? Train one student with and without a teacher on CamVid at half size.

The teacher (`bsdnet_b`) is trained first, then for each seed the student (`bsdnet_s`) in the modes
none, cwd, ofa and both: equal steps, seeds and everything else (recipe bsdnet/camvid_half). All are
scored on the test split in float32 with their last weights; nothing is selected on it.

    python scripts/distillation_table.py --data data/camvid --minutes 70

The work goes on where it stopped when the same command is given again; `--minutes` bounds one call.
Runs lie in `--work`; table.json, table.md and the logs in `--output`.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rtseg
from rtseg import recipe
from rtseg.checkpoint import environment
from rtseg.errors import ConfigError, InterruptedRunError, RtsegError
from rtseg.training.run_log import read_log

RECIPE, TEACHER = "bsdnet/camvid_half", "teacher"
MODES = ("none", "cwd", "ofa", "both")
RESULT, SETTING = "result.json", "setting.json"


class Job(NamedTuple):
    """One run: its name, mode, seed, and what it changes in the recipe."""

    name: str
    mode: str
    seed: int
    overrides: tuple[str, ...]


def jobs(setting: Mapping[str, Any], work: Path) -> Iterator[Job]:
    """Yield the teacher and then all students, seed after seed."""
    shared = (f"data.train.root={setting['data']}", "data.val=null")
    steps = f"train.iterations={setting['teacher_steps']}"
    yield Job(TEACHER, TEACHER, 0, (*shared, "model.name=bsdnet_b", steps))
    steps = f"train.iterations={setting['steps']}"
    for seed in setting["seeds"]:
        for mode in MODES:
            changes = (
                f"train.seed={seed}", f"distill.mode={mode}",
                f"distill.teacher.path={work / TEACHER}",
            )  # fmt: skip
            yield Job(f"{mode}_{seed}", mode, seed, (*shared, steps, *changes))


def train(job: Job, folder: Path, *, deadline: float) -> None:
    """Train a job, or go on with it, until it is finished.

    Raises:
        InterruptedRunError: The deadline has come; the state is saved.
    """
    began = (folder / recipe.CONFIG_FILE).exists()
    chosen = recipe.resume_recipe(folder) if began else recipe.read_recipe(RECIPE, job.overrides)
    recipe.train(chosen, folder, resume=began, display=stop_at(deadline))


def stop_at(deadline: float) -> Callable[[dict[str, Any]], None]:
    """Return a display that asks the run to save and end, as Ctrl-C does, after the deadline."""
    asked: list[bool] = []

    def display(event: Mapping[str, Any]) -> None:
        if event["event"] == "train" and time.monotonic() > deadline and not asked:
            asked.append(True)  # a second signal would end the run without saving
            signal.raise_signal(signal.SIGINT)

    return display


def score(job: Job, folder: Path, data: str) -> dict[str, Any]:
    """Score the last weights of a finished job on the test split."""
    found = rtseg.evaluate(folder / "last", f"camvid={data}", split="test", device="cpu")
    speeds = [line["images_per_second"] for line in read_log(folder) if line["event"] == "train"]
    return {
        "name": job.name,
        "mode": job.mode,
        "seed": job.seed,
        "overrides": list(job.overrides),
        "miou": found.scores["miou"],
        "pixel_accuracy": found.scores["pixel_accuracy"],
        "class_iou": {row["name"]: row["iou"] for row in found.per_class},
        "images": found.images,
        "images_per_second": statistics.median(speeds),
    }


def work_on(setting: Mapping[str, Any], work: Path, *, deadline: float) -> list[dict[str, Any]]:
    """Do what is left to do until the deadline; return the results so far."""
    results = []
    for job in jobs(setting, work):
        folder = work / job.name
        path = folder / RESULT
        if not path.is_file():
            if time.monotonic() > deadline:
                break
            print(f"{job.name} ...", flush=True)
            try:
                train(job, folder, deadline=deadline)
            except InterruptedRunError as error:
                print(error.what)
                break
            text = json.dumps(score(job, folder, setting["data"]), indent=2) + "\n"
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        results.append(json.loads(path.read_text(encoding="utf-8")))
        print(f"{job.name}: mIoU {100 * results[-1]['miou']:.2f}", flush=True)
    return results


def summarize(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over the seeds that all modes have, and the gain of each seed."""
    scores = {(item["mode"], item["seed"]): 100 * item["miou"] for item in results}
    seeds = [
        seed
        for seed in dict.fromkeys(seed for _, seed in scores)
        if all((mode, seed) in scores for mode in MODES)
    ]
    if not seeds:
        return []
    rows = []
    for mode in MODES:
        values = [scores[mode, seed] for seed in seeds]
        gains = [scores[mode, seed] - scores["none", seed] for seed in seeds]
        rows.append(
            {
                "mode": mode,
                "miou": values,
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "gains": gains,
                "mean_gain": statistics.mean(gains),
            }
        )
    return rows


def render(document: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    setting, rows = document["setting"], document["rows"]
    lines = [
        "# Distillation on CamVid at half size",
        "",
        "Written by `scripts/distillation_table.py`; do not edit. mIoU in percent on the test",
        f"split (233 images, 11 classes, input 180x240, labels 360x480), recipe `{RECIPE}`,",
        f"{setting['steps']} steps of 8 images for every row. Teacher: `bsdnet_b`, "
        f"{setting['teacher_steps']} steps, mIoU {document['teacher_miou']}.",
        "",
        "| mode | seeds | mean | deviation | gain over none, per seed | mean gain |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = "one seed" if row["deviation"] is None else f"{row['deviation']:.2f}"
        values = " / ".join(f"{value:.2f}" for value in row["miou"])
        gains = " / ".join(f"{value:+.2f}" for value in row["gains"])
        lines.append(
            f"| {row['mode']} | {values} | {row['mean']:.2f} | {spread} | {gains} "
            f"| {row['mean_gain']:+.2f} |"
        )
    return "\n".join([*lines, "", f"Runs done: {document['done']} of {document['wanted']}."]) + "\n"


def write(
    setting: Mapping[str, Any], results: Sequence[Mapping[str, Any]], work: Path, output: Path
) -> None:
    """Write table.json, table.md and the logs of all finished runs."""
    (output / "logs").mkdir(parents=True, exist_ok=True)
    for item in results:
        log = (work / item["name"] / "log.jsonl").read_text(encoding="utf-8")
        text = log.replace(f"{work}/", "")  # where the runs lie is nobody's business
        (output / "logs" / f"{item['name']}.jsonl").write_text(text, encoding="utf-8")
    taught = [item["miou"] for item in results if item["mode"] == TEACHER]
    document = {
        "setting": {**setting, "data": Path(setting["data"]).name},
        "environment": environment(),
        "teacher_miou": f"{100 * taught[0]:.2f}" if taught else "not measured",
        "done": len(results),
        "wanted": 1 + len(MODES) * len(setting["seeds"]),
        "rows": summarize(results),
        "runs": list(results),
    }
    (output / "table.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (output / "table.md").write_text(render(document), encoding="utf-8")


def fixed_setting(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs share, which must not change between two calls.

    Raises:
        ConfigError: The work folder holds runs of another setting.
    """
    setting = {
        "data": arguments.data, "steps": arguments.steps,
        "teacher_steps": arguments.teacher_steps, "seeds": arguments.seeds,
    }  # fmt: skip
    path = arguments.work / SETTING
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != setting:
            raise ConfigError(
                f"holds runs of {before}", where=str(arguments.work), fix="choose another --work"
            )
    arguments.work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(setting) + "\n", encoding="utf-8")
    return setting


def main() -> None:
    """Read the command line, work for a while, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="data/camvid")
    parser.add_argument("--minutes", type=float, default=70.0, help="of this call")
    parser.add_argument("--steps", type=int, default=400, help="of each student")
    parser.add_argument("--teacher-steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/distillation_camvid"))
    parser.add_argument("--output", type=Path, default=Path("docs/results/distillation_camvid"))
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    try:
        setting = fixed_setting(arguments)
        results = work_on(setting, arguments.work, deadline=deadline)
    except RtsegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    write(setting, results, arguments.work, arguments.output)
    print((arguments.output / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
