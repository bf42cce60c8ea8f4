"""Train one job of scripts/train_zoo.py, or go on with it, and write its result."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from zoo_jobs import Job, Scoring, folder_of

from rtseg import checkpoint, evaluation, recipe
from rtseg.data.dataset import Dataset, DiskDataset
from rtseg.data.mixture import Mixture
from rtseg.data.spec import open_data
from rtseg.errors import ConfigError, InterruptedRunError
from rtseg.structures import Sample
from rtseg.training.options import Plan
from rtseg.training.run_log import read_log

SETTING, SUMMARY = "setting.json", "summary.json"
FILES = (
    "config.yaml", "env.json", "log.jsonl", "metrics.csv", "plots/loss.png", "plots/score.png",
)  # fmt: skip
"""What a result keeps of a run; pictures of training images are not among it."""


class Setting(NamedTuple):
    """What all jobs of a call share.

    data: folder of the data sets. state: folder of the runs. reduced: whether the schedules for
    CPUs are taken. changes: further overrides of every job. device: cpu or cuda. threads: of the
    CPU; None for PyTorch's choice.
    """

    data: Path
    state: Path
    reduced: bool
    changes: tuple[str, ...]
    device: str
    threads: int | None


class Held:
    """A data set whose samples have been read once and stay in memory, as bytes.

    Reading processes share that memory, so that each only cuts labels and hands images on.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.classes, self.kinds = dataset.classes, dataset.kinds
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._samples = list(pool.map(dataset.__getitem__, range(len(dataset))))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]


# ---------------------------------------------------------------- training
def train(job: Job, setting: Setting, *, deadline: float) -> None:
    """Train a job, or go on with it, until it is finished.

    Args:
        job: What to train.
        setting: How.
        deadline: Moment of `time.monotonic` at which the run saves its state and ends.

    Raises:
        InterruptedRunError: The deadline has come; the state is saved.
        ConfigError: The job was begun with another setting, or its teacher is not trained.
    """
    folder = setting.state / job.name
    _fix_setting(job, setting, folder)
    began = (folder / recipe.CONFIG_FILE).exists()
    os.environ["RTSEG_DATASETS"] = str(setting.data)
    chosen = recipe.read_recipe(job.recipe, _overrides(job, setting))
    if began:
        chosen = dataclasses.replace(chosen, run=folder)
    plan = recipe.build(chosen)
    plan = dataclasses.replace(plan, notes=(*plan.notes, *recipe.check_data(plan)))
    recipe.run(_held(plan), chosen, folder, resume=began, display=_display(job.name, deadline))


def _fix_setting(job: Job, setting: Setting, folder: Path) -> None:
    """Write what must not change between two calls, or compare it with the first one's."""
    now = {
        "recipe": job.recipe, "overrides": list(_schedule(job, setting)), "device": setting.device,
    }  # fmt: skip
    path = folder / SETTING
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != now:
            key = next(key for key in now if before.get(key) != now[key])
            raise ConfigError(
                f"was begun with {key} {before.get(key)}, not {now[key]}", where=str(folder),
                fix="go on as it was begun, or choose another --state",
            )  # fmt: skip
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def _schedule(job: Job, setting: Setting) -> tuple[str, ...]:
    """Return the overrides that make a difference to the result."""
    reduced = job.reduced if setting.reduced else ()
    gpu = ("train.precision=bf16", "train.channels_last=true") if setting.device == "cuda" else ()
    return (*job.overrides, *reduced, *gpu, *setting.changes)


def _overrides(job: Job, setting: Setting) -> list[str]:
    """Return all overrides: those of the schedule, and those of this machine."""
    changes = [f"train.device={setting.device}"]
    if setting.device == "cuda":
        workers = max(1, min(14, (os.cpu_count() or 2) - 2))
        changes += ["data.augment_on=device", f"data.workers={workers}", "train.save_every=1000"]
        changes += ["train.log_every=50", f"train.compile={str(job.compiled).lower()}"]
    if setting.threads is not None:
        changes.append(f"train.threads={setting.threads}")
    if job.teacher:
        taught = folder_of(setting.state, job.teacher)
        if not taught.is_dir():
            raise ConfigError(
                f"needs the weights of job {job.teacher}",
                where=job.name,
                fix="train that one first",
            )
        changes.append(f"distill.teacher.path={taught}")
    return [*changes, *_schedule(job, setting)]


def _held(plan: Plan) -> Plan:
    """Read the files of a plan's data sets once; drawn scenes stay as they are."""
    train, val = plan.data.train, plan.data.val
    if isinstance(train, Mixture):
        train = Mixture([_in_memory(part) for part in train.parts], train.weights)
    data = dataclasses.replace(
        plan.data, train=_in_memory(train), val=None if val is None else _in_memory(val)
    )
    return dataclasses.replace(plan, data=data)


def _in_memory(dataset: Dataset) -> Dataset:
    return Held(dataset) if isinstance(dataset, DiskDataset) else dataset


def _display(name: str, deadline: float) -> Callable[[dict[str, Any]], None]:
    """Return a display that prints progress and, after the deadline, ends the run like Ctrl-C."""
    asked: list[bool] = []
    shown = [0.0]

    def display(event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if event["event"] == "train" and now > shown[0] + 10:
            shown[0] = now
            speed = f"{event['images_per_second']:.1f} images/s"
            print(f"{name}: step {event['step']}, loss {event['loss']:.4f}, {speed}", flush=True)
        elif event["event"] in ("validation", "note", "fault"):
            words = event.get("message") or _brief(event["scores"])
            print(f"{name}: step {event['step']}: {words}", flush=True)
        if event["event"] == "train" and now > deadline and not asked:
            asked.append(True)  # a second signal would end the run without saving
            signal.raise_signal(signal.SIGINT)

    return display


def _brief(scores: Mapping[str, Any]) -> str:
    found = {key: scores[key] for key in ("miou", "score", "drivable_miou") if key in scores}
    return ", ".join(f"{key} {value:.4f}" for key, value in (found or scores).items())


# ---------------------------------------------------------------- the result
def finish(job: Job, setting: Setting) -> dict[str, Any]:
    """Score a trained job and write its result; then drop what only training needs.

    The result is a checkpoint folder of float16 weights, and it is these that are scored.
    """
    run, result = setting.state / job.name, folder_of(setting.state, job.name)
    partial = result.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained = checkpoint.load(_chosen(run))
    names = {name for name, _ in trained.model.named_parameters()}
    weights = {
        name: value.half() if name in names and value.abs().max() < torch.finfo(torch.half).max
        else value
        for name, value in trained.model.state_dict().items()
    }  # fmt: skip
    facts = {**trained.info.facts, "recipe": job.recipe, **_terms(job, setting), "scores": {}}
    info = dataclasses.replace(
        trained.info, facts=facts, recipe=_portable(trained.info.recipe, setting)
    )
    checkpoint.save(partial, weights, info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", checkpoint.WeightsNotice)
        loaded = checkpoint.load(partial)
    found = {item.name: _score(loaded, item, setting) for item in job.scorings}
    first = job.scorings[0]
    facts = {
        **info.facts, "scores": found[first.name].scores,
        "scored_on": f"{first.reader} {first.split}, {found[first.name].images} images",
    }  # fmt: skip
    checkpoint.save(partial, weights, dataclasses.replace(info, facts=facts))
    for item in job.scorings:
        protocol = {**dataclasses.asdict(item), "size": "native", "precision": "fp32"}
        evaluation.write_evaluation(found[item.name], partial / item.name, protocol=protocol)
    for name in FILES:
        if (run / name).is_file():
            (partial / name).parent.mkdir(exist_ok=True)
            shutil.copy(run / name, partial / name)
    config = partial / recipe.CONFIG_FILE
    text = config.read_text(encoding="utf-8")
    config.write_text(_portable(text, setting), encoding="utf-8")
    summary = _summary(job, setting, run, {key: value.scores for key, value in found.items()})
    write_json(partial / SUMMARY, summary)
    shutil.rmtree(result, ignore_errors=True)
    partial.rename(result)
    for name in ("last", "best", "tensorboard"):
        shutil.rmtree(run / name, ignore_errors=True)
    return summary


def _portable(value: Any, setting: Setting) -> Any:
    """Write the folder of the data sets as `data` wherever it stands in nested values."""
    if isinstance(value, str):
        return value.replace(str(setting.data), "data")
    if isinstance(value, Mapping):
        return {key: _portable(item, setting) for key, item in value.items()}
    return [_portable(item, setting) for item in value] if isinstance(value, list) else value


def _chosen(run: Path) -> Path:
    """Return the weights to keep: what validation has chosen, else the last."""
    return run / "best" if (run / "best").is_dir() else run / "last"


def _terms(job: Job, setting: Setting) -> dict[str, str]:
    kind = "a reduced schedule for CPUs" if setting.reduced else "the whole schedule"
    more = f", changed by {' '.join(setting.changes)}" if setting.changes else ""
    notice = {"notice": job.notice} if job.notice else {}
    return {
        "training": f"job {job.name} of scripts/train_zoo.py, {kind}{more}, on {_device(setting)}",
        "weights": "float16, statistics of norms float32; scored as they are here",
        "license": job.license, **notice,
    }  # fmt: skip


def _device(setting: Setting) -> str:
    return torch.cuda.get_device_name(0) if setting.device == "cuda" else "CPU"


def _score(
    loaded: checkpoint.Checkpoint, scoring: Scoring, setting: Setting
) -> evaluation.Evaluation:
    """Score weights on one data set, in float32."""
    root = "" if scoring.reader == "synthetic" else f"={setting.data / scoring.reader}"
    dataset = open_data(f"{scoring.reader}{root}", scoring.split, options=scoring.options)
    workers = 4 if setting.device == "cuda" else 0
    found = evaluation.score(loaded, dataset, device=setting.device, workers=workers)
    return found if loaded.info.task != "road_lane" else _offered(found, dataset)


def _offered(found: evaluation.Evaluation, dataset: Dataset) -> evaluation.Evaluation:
    """Leave out scores of a map that the data set has no labels of, and their weighted sum."""
    lacking = {kind for kind in ("drivable", "lane") if kind not in dataset.kinds}
    away = (*lacking, "score") if lacking else ()
    scores = {name: value for name, value in found.scores.items() if not name.startswith(away)}
    rows = [row for row in found.per_class if row["name"] not in lacking]
    return dataclasses.replace(found, scores=scores, per_class=rows)


def _summary(
    job: Job, setting: Setting, run: Path, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    events = read_log(run)
    speeds = [event["images_per_second"] for event in events if event["event"] == "train"]
    schedule = _schedule(job, setting)
    return {
        "name": job.name, "recipe": job.recipe, "overrides": list(schedule),
        "command": " ".join(["rtseg train", job.recipe, *schedule]),
        "reduced": setting.reduced, "device": _device(setting), "steps": events[-1]["step"],
        "images_per_second": statistics.median(speeds), "license": job.license,
        "scores": {
            item.name: {"seen_in_training": item.seen, **scores[item.name]} for item in job.scorings
        },
        "environment": checkpoint.environment(),
    }  # fmt: skip


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def work_on(job: Job, setting: Setting, *, deadline: float) -> dict[str, Any] | None:
    """Do what is left of a job; return its summary once it is finished."""
    path = folder_of(setting.state, job.name) / SUMMARY
    if not path.is_file():
        try:
            train(job, setting, deadline=deadline)
        except InterruptedRunError as error:
            print(f"{job.name}: {error.what}", flush=True)
            return None
        finish(job, setting)
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary
