"""What runs have in common and in what they differ, from the files of their folders."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from rtseg.errors import DataError
from rtseg.training.run_log import LOG, Event, read_log

CONFIG = "config.yaml"
SEED = "train.seed"
_DEFAULTS = {"train.monitor": "miou", SEED: 0}


@dataclass(frozen=True)
class RunRecord:
    """What a run folder tells.

    name: how the run is called in a comparison. settings: the resolved recipe, by dotted key.
    events: lines of the log.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    events: Sequence[Event]

    def setting(self, key: str) -> Any:
        """Return a setting; of those that a recipe may leave out, its default."""
        return self.settings.get(key, _DEFAULTS.get(key))

    @property
    def seconds(self) -> list[tuple[int, float]]:
        """Pairs of step and training time in seconds up to it, without validations and stops."""
        found, step, spent = [], 0, 0.0
        for event in self._of("train"):
            speed = event["images_per_second"]
            spent += (event["step"] - step) * self.settings["train.batch_size"] / speed
            step = event["step"]
            found.append((step, spent))
        return found

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) of a figure of the training lines, such as `loss` or `lr`."""
        points = [(event["step"], event.get(name)) for event in self._of("train")]
        return [(step, value) for step, value in points if value is not None]

    def scores(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of a score of the validations."""
        return [
            (event["step"], event["scores"][name])
            for event in self._of("validation")
            if name in event["scores"]
        ]

    def scores_over_time(self, name: str) -> list[tuple[float, float]]:
        """Return (minutes of training, value) of a score of the validations."""
        times = dict(self.seconds)
        reached = sorted(times)
        return [
            (times[max(known)] / 60, value)
            for step, value in self.scores(name)
            if (known := [item for item in reached if item <= step])
        ]

    @property
    def score_names(self) -> list[str]:
        """Names of all scores, in the order of the log."""
        validations = self._of("validation")
        return list(dict.fromkeys(name for event in validations for name in event["scores"]))

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of one line of the comparison; None where the run has none."""
        monitor = self.setting("train.monitor")
        scores = self.scores(monitor)
        best = max(scores, key=lambda point: point[1], default=(None, None))
        speeds = [event["images_per_second"] for event in self._of("train")]
        times = self.seconds
        return {
            "run": self.name,
            "model": self.settings.get("model.name"),
            "seed": self.setting(SEED),
            "steps": max((event["step"] for event in self.events), default=0),
            "finished": any(event["event"] == "end" for event in self.events),
            "monitor": monitor,
            "best": best[1],
            "best_step": best[0],
            "last": scores[-1][1] if scores else None,
            "images_per_second": statistics.median(speeds) if speeds else None,
            "training_minutes": times[-1][1] / 60 if times else None,
        }

    def _of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read run folders; their names are the parts of their paths in which they differ.

    Raises:
        DataError: A folder is no run folder, or one of its files is broken.
    """
    names = _short_names(folders)
    return [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read_run(folder: Path, name: str) -> RunRecord:
    for file in (CONFIG, LOG):
        if not (folder / file).is_file():
            raise DataError(
                f"holds no {file}", where=str(folder), fix="give folders that `rtseg train` wrote"
            )
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise DataError(
            f"cannot be read ({str(error).splitlines()[0]})",
            where=str(folder / CONFIG),
            fix="restore the file, or leave this run out",
        ) from None
    return RunRecord(name, folder, dict(_flat(loaded)), read_log(folder))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted key; lists are leaves."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, item in value.items():
        yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return as few last parts of each path as tell them all apart; equal paths get a number."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [
        name if names.count(name) == 1 else f"{name} ({names[:index].count(name) + 1})"
        for index, name in enumerate(names)
    ]


def differing_settings(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, by dotted key, with the value of each run.

    A setting that a run does not have is None there.
    """
    keys = dict.fromkeys(itertools.chain.from_iterable(run.settings for run in runs))
    values = {key: [run.setting(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(item != row[0] for item in row)}


def seed_groups(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return mean and spread of the last monitored score of runs that differ by their seed only.

    Returns:
        For each group of two or more runs: their names and seeds, the score's name, its mean, and
        its standard deviation as that of a sample.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        rest = sorted((key, repr(value)) for key, value in run.settings.items() if key != SEED)
        groups.setdefault(repr(rest), []).append(run)
    found = []
    for members in groups.values():
        monitor = members[0].setting("train.monitor")
        scores = [run.summary["last"] for run in members]
        known = [score for score in scores if score is not None and math.isfinite(score)]
        seeds = {run.setting(SEED) for run in members}
        if len(seeds) > 1 and len(known) == len(members):
            found.append(
                {
                    "runs": [run.name for run in members],
                    "seeds": [run.setting(SEED) for run in members],
                    "score": monitor,
                    "mean": statistics.mean(known),
                    "spread": statistics.stdev(known),
                }
            )
    return found
