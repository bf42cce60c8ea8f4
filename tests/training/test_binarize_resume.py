"""Phased binarisation: a run that stops anywhere goes on exactly, and only as it began."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rtseg.errors import CheckpointError
from rtseg.training.optim import sgd
from rtseg.training.options import Plan
from rtseg.training.phases import Phases
from training.phased import FIVE, THREE, plan_of
from training.test_loop import assert_same_run, quiet
from training.toy import Pictures, run

__all__ = ["quiet"]  # the fixture that keeps runs in memory and on one thread

VARIANTS: dict[str, dict[str, Any]] = {
    "average": {"ema_decay": 0.8},
    "momentum": {"optimizer": functools.partial(sgd, lr=0.05)},
    "rare lines": {"log_every": 3, "ema_decay": 0.8, "ema_ramp": 4.0},
    "accumulate": {"accumulate": 2},
    "bf16": {"precision": "bf16", "channels_last": True},
}


@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "average")) for name in VARIANTS],
)
@pytest.mark.parametrize("phases", [THREE, FIVE], ids=["three phases", "five phases"])
def test_a_run_goes_on_exactly_from_every_step_of_every_phase(
    tmp_path: Path, phases: Phases, variant: str
) -> None:
    """THREE switches before steps 2 and 4 and ends its phases at 2 and 6; FIVE at 1, 2, 3, 6."""

    def make() -> Plan:
        fixed = {"save_every": 1, "val": Pictures(2), "val_every": 3, "log_every": 1}
        return plan_of(phases, **{**fixed, **VARIANTS[variant]})

    whole = tmp_path / "whole"

    def keep(event: dict[str, Any]) -> None:
        """Copy what a process leaves that ends when a line is logged, before the step is saved."""
        if event["event"] == "train" and event["step"] > 1:
            shutil.copytree(whole, tmp_path / f"stopped{event['step'] - 1}")

    run(make(), whole, display=keep)
    stopped = sorted(tmp_path.glob("stopped*"))
    assert len(stopped) == (7 if VARIANTS[variant].get("log_every", 1) == 1 else 3)
    for folder in stopped:
        torch.manual_seed(12345)  # a fresh process has another random state
        run(make(), folder, resume=True)
        assert_same_run(whole, folder)


def test_a_run_with_another_table_does_not_go_on(tmp_path: Path) -> None:
    run(plan_of(), tmp_path)
    other = dataclasses.replace(THREE, groups=1)
    with pytest.raises(CheckpointError, match=r"weights of a become binary at step 2 .* 4 of the"):
        run(plan_of(other), tmp_path, resume=True)
    reversed_order = dataclasses.replace(THREE, order="shallow_first")
    with pytest.raises(CheckpointError, match="become binary at step"):
        run(plan_of(reversed_order), tmp_path, resume=True)
    with_inputs = Phases((2, 4, 1, 0, 1), groups=2)
    with pytest.raises(CheckpointError, match=r"inputs of b become binary at step 7 .* step no"):
        run(plan_of(with_inputs), tmp_path, resume=True)
