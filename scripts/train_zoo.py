"""Train the networks whose weights and scores come with the package, job after job.

    PYTHONPATH=src python scripts/train_zoo.py --data data --minutes 8

Given again, the command goes on where the last call stopped. `--minutes` bounds the training of one
call; saving, and the scoring of a job that is finished, come on top. docs/zoo.md says more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import zoo_files
from zoo_jobs import Job, choose, folder_of
from zoo_run import SUMMARY, Setting, work_on

from rtseg.errors import RtsegError
from rtseg.inference.predictor import choose_device
from rtseg.training.run_log import read_log

START_SECONDS = {"cuda": 60.0, "cpu": 0.0}
"""With less time left no job is begun: on a GPU its step has to be compiled first."""


def work(jobs: Sequence[Job], setting: Setting, *, deadline: float) -> bool:
    """Work on jobs one after the other until the deadline; a job that fails does not stop the next.

    Returns:
        Whether none has failed.
    """
    whole = True
    for job in jobs:
        done = (folder_of(setting.state, job.name) / SUMMARY).is_file()
        if done:
            continue
        if time.monotonic() + START_SECONDS[setting.device] > deadline:
            print(f"{job.name}: no time left in this call", flush=True)
            break
        print(f"{job.name}: {job.recipe} on {setting.device}", flush=True)
        try:
            summary = work_on(job, setting, deadline=deadline)
        except RtsegError as error:
            whole = False
            print(f"{job.name}: failed: {error}", flush=True)
            continue
        except Exception:  # a fault of one network must not cost the others their time
            whole = False
            traceback.print_exc()
            continue
        if summary is None:
            break
        print(f"{job.name}: done, {_describe(summary)}", flush=True)
    return whole


def _describe(summary: dict[str, Any]) -> str:
    """Return the first score of every scoring, and the speed of training."""
    parts = []
    for name, scores in summary["scores"].items():
        figure = next(key for key in scores if key != "seen_in_training")
        seen = " (seen in training)" if scores["seen_in_training"] else ""
        parts.append(f"{name} {figure} {100 * scores[figure]:.2f}{seen}")
    reduced = ["reduced schedule"] if summary["reduced"] else []
    return ", ".join([*parts, f"{summary['images_per_second']:.1f} images/s", *reduced])


def status(jobs: Sequence[Job], state: Path) -> list[str]:
    """Return one line per job: how far it is."""
    lines = []
    for job in jobs:
        path = folder_of(state, job.name) / SUMMARY
        events = read_log(state / job.name)
        if path.is_file():
            text = f"done, {_describe(json.loads(path.read_text(encoding='utf-8')))}"
        elif events:
            text = f"at step {events[-1]['step']}"
        else:
            text = "not begun"
        lines.append(f"{job.name:28}{text}")
    return lines


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder that holds camvid/")
    add("--state", type=Path, default=Path("runs/zoo"), help="folder of the runs")
    add("--minutes", type=float, default=8.0, help="training time of this call; 0 trains nothing")
    add("--jobs", default="", help="names, with commas between them (default: all, in order)")
    add("--reduced", action="store_true", help="short schedules for CPUs; results say so")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=int, help="of the CPU")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change every recipe")
    add("--unpack", type=Path, metavar="DIR", help="first read the state that --pack wrote there")
    add("--pack", type=Path, metavar="DIR", help="at the end write the state in parts of 15 MiB")
    add("--pack-limit", type=float, default=60.0, metavar="MIB", help="largest size of all parts")
    add("--ship", action="store_true", help="at the end copy finished weights into the package")
    add("--list", action="store_true", help="print the jobs and end")
    add("--status", action="store_true", help="print how far the jobs are and end")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 0, or 1 if a job failed."""
    given = parse(words)
    jobs = choose([name for name in given.jobs.split(",") if name])
    if given.list:
        print("\n".join(f"{job.name:28}{job.recipe:36}{job.ship or '-'}" for job in jobs))
        return 0
    if given.unpack is not None:
        print(f"unpacked: {', '.join(zoo_files.unpack(given.unpack, given.state))}")
    if given.status:
        print("\n".join(status(jobs, given.state)))
        return 0
    whole = True
    if given.minutes > 0:
        device = choose_device(given.device).type
        setting = Setting(
            given.data, given.state, given.reduced, tuple(given.set), device, given.threads
        )
        if given.threads is not None:
            torch.set_num_threads(given.threads)
        whole = work(jobs, setting, deadline=time.monotonic() + 60 * given.minutes)
    if given.pack is not None:
        limit = int(given.pack_limit * 2**20)
        left = zoo_files.pack(given.state, given.pack, jobs, limit=limit)
        if left:
            print(f"too large to pack, they stay in {given.state}: {', '.join(left)}")
    if given.ship:
        print(f"shipped: {', '.join(zoo_files.ship(given.state, jobs)) or 'nothing'}")
    return 0 if whole else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RtsegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
