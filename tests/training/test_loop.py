"""Training: exact resume, and every figure that a run writes, against hand-made references."""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg import checkpoint
from rtseg.data.loader import TrainBatches, opened, train_loader
from rtseg.data.transforms import Augment
from rtseg.errors import CheckpointError, ConfigError, DataError, InterruptedRunError, RtsegError
from rtseg.evaluation import Evaluation
from rtseg.structures import Batch, SemanticOutput
from rtseg.training import loop, run_log
from rtseg.training.optim import poly, sgd
from rtseg.training.run_log import RunLog, draw_curves, read_log
from training.toy import Pictures, Toy, run, toy_plan

TIMES = ("images_per_second", "data_share", "peak_memory_mb", "eta_seconds", "seconds")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("rtseg.training.run_log._tensorboard", lambda *_: None)
    monkeypatch.setattr("rtseg.training.run_log.draw_curves", lambda _: None)
    yield
    torch.set_num_threads(threads)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the log without what depends on the clock."""
    return [
        {key: value for key, value in event.items() if key not in TIMES}
        for event in read_log(folder)
        if event["event"] != "note"
    ]


def state_of(folder: Path) -> dict[str, Any]:
    return checkpoint.read_state(checkpoint.locate(folder / "last"))


def differing(first: Any, second: Any, path: str = "") -> list[str]:
    """Return the places at which two nested values differ in any bit."""
    if isinstance(first, Tensor):
        same = isinstance(second, Tensor) and first.dtype == second.dtype
        return [] if same and torch.equal(first, second) else [path]
    if isinstance(first, dict):
        if not isinstance(second, dict) or first.keys() != second.keys():
            return [path]
        return [bad for key in first for bad in differing(first[key], second[key], f"{path}.{key}")]
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [path]
        pairs = zip(first, second, strict=True)
        return [bad for i, (a, b) in enumerate(pairs) for bad in differing(a, b, f"{path}.{i}")]
    return [] if first == second else [path]


def assert_same_run(first: Path, second: Path) -> None:
    """Compare all that two runs left: states, weights and logs."""
    one, two = state_of(first), state_of(second)
    assert differing(one, two) == []
    for name in ("last", "best"):
        places = [folder / name for folder in (first, second)]
        assert places[0].exists() == places[1].exists()
        if places[0].exists():
            weights = [checkpoint.read_weights(place) for place in places]
            assert differing(*weights) == []
            infos = [checkpoint.read_info(place).facts for place in places]
            assert infos[0] == infos[1]
    assert lines(first) == lines(second)


class Stop(BaseException):
    """The process ends here."""


def run_until(step: int, folder: Path, **options: Any) -> None:
    """Train as if the process ended when the line of `step` was logged."""

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == step:
            raise Stop

    with pytest.raises(Stop):
        run(toy_plan(**options), folder, display=display)


PIXEL = np.zeros((1, 1, 3), np.uint8)


# ---------------------------------------------------------------- exact resume
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"ema_decay": 0.9},
    "average with a ramp": {"ema_decay": 0.9, "ema_ramp": 3.0},
    "accumulate": {"accumulate": 2},
    "clip": {"clip_norm": 0.1},
    "workers": {"workers": 2},
    "momentum": {"optimizer": functools.partial(sgd, lr=0.05)},
    "channels last": {"channels_last": True, "ema_decay": 0.5},
    "bf16": {"precision": "bf16"},
    "rare lines": {"log_every": 3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_goes_on_equals_one_that_never_stopped(tmp_path: Path, variant: str) -> None:
    """10 images in batches of 4 are 2 steps an epoch: step 5 lies in the middle of one."""
    options: dict[str, Any] = {"iterations": 8, "save_every": 1, **VARIANTS[variant]}
    options |= {"val_every": 3, "val": Pictures(3)}
    run(toy_plan(**options), tmp_path / "whole")
    run_until(6, tmp_path / "parts", **options)
    assert state_of(tmp_path / "parts")["step"] == 5
    torch.manual_seed(12345)  # a fresh process has another random state
    torch.rand(7)
    run(toy_plan(**options), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("stop", [1, 2, 3, 7])
def test_a_run_goes_on_from_any_step(tmp_path: Path, stop: int) -> None:
    options = {"iterations": 8, "save_every": 1, "ema_decay": 0.9}
    run(toy_plan(**options), tmp_path / "whole")
    run_until(stop + 1, tmp_path / "parts", **options)
    assert state_of(tmp_path / "parts")["step"] == stop
    run(toy_plan(**options), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_stopped_before_its_first_save_begins_again(tmp_path: Path) -> None:
    run(toy_plan(iterations=4), tmp_path / "whole")
    run_until(3, tmp_path / "parts", iterations=4)
    assert not (tmp_path / "parts" / "last").exists()
    run(toy_plan(iterations=4), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


RESUME = """
import json, sys
from pathlib import Path
import torch
from training.toy import Pictures, run, toy_plan
torch.set_num_threads(3)
torch.rand(5)
options = json.loads(sys.argv[2])
run(toy_plan(val=Pictures(3), **options), Path(sys.argv[1]), resume=True)
"""


def test_a_fresh_process_goes_on_exactly(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "iterations": 7, "save_every": 1, "val_every": 3, "ema_decay": 0.9, "workers": 2,
        "log_every": 2,
    }  # fmt: skip
    run(toy_plan(val=Pictures(3), **options), tmp_path / "whole")
    run_until(6, tmp_path / "parts", val=Pictures(3), **options)
    assert state_of(tmp_path / "parts")["step"] == 5
    subprocess.run(
        [sys.executable, "-c", RESUME, str(tmp_path / "parts"), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        timeout=120,
    )
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_that_is_resumed_changes_nothing(tmp_path: Path) -> None:
    options = {"iterations": 3, "val": Pictures(3)}
    scores = run(toy_plan(**options), tmp_path)
    before, log = state_of(tmp_path), lines(tmp_path)
    assert run(toy_plan(**options), tmp_path, resume=True) == scores
    assert differing(before, state_of(tmp_path)) == []
    assert lines(tmp_path) == log


def test_the_log_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    run_until(6, tmp_path, iterations=8, save_every=2, val=Pictures(2), val_every=4)
    assert [event["step"] for event in read_log(tmp_path) if event["event"] == "train"][-1] == 6
    run(toy_plan(iterations=8, save_every=2, val=Pictures(2), val_every=4), tmp_path, resume=True)
    events = read_log(tmp_path)
    assert [e["step"] for e in events if e["event"] == "train"] == list(range(1, 9))
    assert [e["step"] for e in events if e["event"] == "validation"] == [4, 8]
    assert [e["event"] for e in events].count("end") == 1
    rows = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "4", "8"]


def test_scores_of_steps_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    def display(event: dict[str, Any]) -> None:
        if event["event"] == "validation":
            raise Stop

    options = {"iterations": 4, "save_every": 1, "val_every": 2, "val": Pictures(2)}
    with pytest.raises(Stop):
        run(toy_plan(**options), tmp_path, display=display)
    assert (tmp_path / "metrics.csv").exists()
    run_until(2, tmp_path / "other", **options)
    loop.RunLog(tmp_path, display=lambda _: None).open(step=1)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_state_of_another_network_is_refused_with_its_file(tmp_path: Path) -> None:
    run(toy_plan(iterations=1), tmp_path)
    with pytest.raises(CheckpointError, match=r"train_state\.pt: does not fit this run"):
        run(toy_plan(iterations=2, model=Toy(width=5)), tmp_path, resume=True)


def test_a_state_without_an_average_does_not_fit_a_run_with_one(tmp_path: Path) -> None:
    run(toy_plan(iterations=1), tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        run(toy_plan(iterations=2, ema_decay=0.9), tmp_path, resume=True)


def test_a_state_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    run(toy_plan(iterations=1), tmp_path)
    path = tmp_path / "last" / "train_state.pt"
    state = torch.load(path, weights_only=True)
    state["random"]["cpu"] = state["random"]["cpu"].repeat(2, 1)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="2 processes, not 1"):
        run(toy_plan(iterations=2), tmp_path, resume=True)


def test_the_number_of_threads_is_part_of_the_state(tmp_path: Path) -> None:
    run(toy_plan(iterations=1, threads=2), tmp_path)
    torch.set_num_threads(1)
    run(toy_plan(iterations=2), tmp_path, resume=True)
    assert torch.get_num_threads() == 2


# ---------------------------------------------------------------- stopping
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_and_saves(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train" and event["step"] == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedRunError, match=r"stopped at step 3 of 6.*--resume") as caught:
        run(toy_plan(iterations=6), tmp_path / "parts", display=display)
    assert caught.value.exit_code == 130
    assert signal.getsignal(number) is before
    run(toy_plan(iterations=6), tmp_path / "parts", resume=True)
    run(toy_plan(iterations=6), tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(toy_plan(iterations=6), tmp_path, display=display)


class Exploding(Toy):
    """Give logits that are no numbers from the third call on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> SemanticOutput:
        self.calls += 1
        return SemanticOutput(super().forward(images).logits * (math.nan if self.calls > 2 else 1))


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(RtsegError, match=r"picture/\d.*not finite at step 2.*lower optimizer\.lr"):
        run(toy_plan(iterations=6, save_every=1, model=Exploding()), tmp_path)
    assert state_of(tmp_path)["step"] == 2
    assert all(value.isfinite().all() for value in state_of(tmp_path)["model"].values())


def test_unreadable_images_are_logged_once_and_too_many_end_the_run(tmp_path: Path) -> None:
    train = Pictures(10, bad=(1, 2))
    run(toy_plan(iterations=10, train=train, max_bad=0.2), tmp_path / "few")
    faults = [event["message"] for event in read_log(tmp_path / "few") if event["event"] == "fault"]
    assert sorted(faults) == ["picture/1: cannot be read", "picture/2: cannot be read"]
    assert state_of(tmp_path / "few")["bad_files"] == sorted(faults)
    with pytest.raises(DataError, match=r"2 of 10 training images.*max_bad \(0\.1\).*picture/1"):
        run(toy_plan(iterations=10, train=train, max_bad=0.1), tmp_path / "many")


def test_a_run_goes_on_once_its_images_are_repaired(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        run(toy_plan(iterations=6, train=Pictures(10, bad=range(5))), tmp_path)
    run(toy_plan(iterations=6), tmp_path, resume=True)
    assert state_of(tmp_path)["step"] == 6


# ---------------------------------------------------------------- best and last
def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the validations of a run score what is given, one after the other."""
    left = iter(scores)

    def evaluate(*_: Any, **__: Any) -> Evaluation:
        return Evaluation({"miou": next(left)}, [], None, 1, 0.0)

    monkeypatch.setattr(loop, "evaluate", evaluate)


def test_best_holds_the_first_of_the_highest_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.5, 0.5, 0.4, 0.2])
    scores = run(toy_plan(iterations=5, val_every=1, val=Pictures(1)), tmp_path)
    best, last = (checkpoint.read_info(tmp_path / name).facts for name in ("best", "last"))
    assert (best["step"], best["scores"]) == (2, {"miou": 0.5})
    assert (last["step"], last["scores"]) == (5, {"miou": 0.2})
    assert scores == {"miou": 0.2}
    assert state_of(tmp_path)["best"] == [0.5, 2, 3]
    with pytest.raises(CheckpointError, match="has no training state"):
        checkpoint.read_state(tmp_path / "best")


def test_a_checkpoint_does_not_claim_the_scores_of_another_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.2])
    run_until(4, tmp_path, iterations=5, val_every=2, save_every=3, val=Pictures(1))
    facts = checkpoint.read_info(tmp_path / "last").facts
    assert (facts["step"], facts["scores"]) == (3, {})
    assert "Scores: not measured." in (tmp_path / "last" / "README.md").read_text(encoding="utf-8")


def test_a_test_split_is_scored_but_chooses_nothing(tmp_path: Path) -> None:
    scores = run(toy_plan(iterations=2, val_every=1, val=Pictures(2), select=False), tmp_path)
    assert 0 <= scores["miou"] <= 1
    assert not (tmp_path / "best").exists()
    assert (tmp_path / "last").exists()


def test_without_a_validation_set_there_are_no_scores_and_no_best(tmp_path: Path) -> None:
    assert run(toy_plan(iterations=2), tmp_path) == {}
    assert not (tmp_path / "best").exists()
    assert not (tmp_path / "metrics.csv").exists()


def test_patience_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.1, 0.5, 0.4, 0.5, 0.9])
    plan = toy_plan(iterations=20, val_every=2, early_stop=2, val=Pictures(1))
    run(plan, tmp_path)
    assert state_of(tmp_path)["step"] == 8
    assert read_log(tmp_path)[-1]["event"] == "end"


def test_a_run_out_of_patience_does_not_go_on_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, 0.4, 0.9, 0.9])
    options = {"iterations": 20, "val_every": 2, "early_stop": 1, "val": Pictures(1)}
    run(toy_plan(**options), tmp_path)
    run(toy_plan(**options), tmp_path, resume=True)
    assert state_of(tmp_path)["step"] == 4


def test_an_unknown_monitor_is_refused_before_the_start() -> None:
    toy_plan(iterations=1, val=Pictures(1)).check()
    with pytest.raises(ConfigError, match=r"train\.monitor: 'mio' is no score.*miou"):
        toy_plan(iterations=1, val=Pictures(1), monitor="mio").check()


def test_the_averaged_weights_are_what_is_scored_and_saved(tmp_path: Path) -> None:
    plan = toy_plan(iterations=6, ema_decay=0.9, val=Pictures(3))
    scores = run(plan, tmp_path)
    state = state_of(tmp_path)
    saved = checkpoint.read_weights(tmp_path / "last")
    averaged = {key.removeprefix("module."): value for key, value in state["ema"].items()}
    averaged.pop("n_averaged")
    assert differing(saved, averaged) == []
    assert not torch.equal(saved["last.weight"], state["model"]["last.weight"])
    model = checkpoint.load(tmp_path / "last", model=Toy()).model
    loader = loop.eval_loader(Pictures(3), preprocess=plan.data.preprocess, target=plan.task.target)
    assert loop.evaluate(model, plan.task, opened(loader)).scores == scores


# ---------------------------------------------------------------- one step
def recorded(plan: Any, folder: Path) -> list[dict[str, Tensor]]:
    """Train and return the weights after each step."""
    weights: list[dict[str, Tensor]] = []

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            weights.append(copy.deepcopy(plan.model.state_dict()))

    run(plan, folder, display=display)
    return weights


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    weights = recorded(toy_plan(iterations=4, ema_decay=0.22), tmp_path)
    saved = checkpoint.read_weights(tmp_path / "last")
    for key in ("last.weight", "norm.running_mean", "norm.running_var"):
        expected = weights[0][key]  # the first step is copied
        for step, rate in ((1, 2 / 11), (2, 0.22), (3, 0.22)):  # 3/12 and 4/13 are above the decay
            expected = rate * expected + (1 - rate) * weights[step][key]
        assert torch.allclose(saved[key], expected, rtol=0, atol=1e-7), key
    assert saved["norm.num_batches_tracked"] == 4


@pytest.mark.parametrize("ramp", [2000.0, 1.5])
def test_the_average_with_a_ramp_follows_its_formula(tmp_path: Path, ramp: float) -> None:
    plan = toy_plan(iterations=4, ema_decay=0.9999, ema_ramp=ramp)
    expected = copy.deepcopy(plan.model.state_dict())  # the start counts
    weights = recorded(plan, tmp_path)
    for number, now in enumerate(weights, start=1):
        rate = 0.9999 * (1 - math.exp(-number / ramp))
        if number == 1 and ramp == 2000:
            assert rate == pytest.approx(4.998e-4, rel=1e-4)
        for key, value in now.items():
            averages = value.is_floating_point()
            expected[key] = rate * expected[key] + (1 - rate) * value if averages else value
    saved = checkpoint.read_weights(tmp_path / "last")
    for key, value in expected.items():
        assert torch.allclose(saved[key], value, rtol=1e-6, atol=1e-7), key
    assert not torch.equal(saved["norm.running_mean"], weights[3]["norm.running_mean"])
    assert saved["norm.num_batches_tracked"] == 4


def test_the_learning_rate_in_the_log_is_that_of_the_schedule(tmp_path: Path) -> None:
    run(toy_plan(iterations=6), tmp_path)
    rates = [event["lr"] for event in read_log(tmp_path) if event["event"] == "train"]
    assert rates == [0.01 * poly(6)(step) for step in range(6)]


def test_steps_equal_a_loop_written_out_by_hand(tmp_path: Path) -> None:
    options = {"iterations": 5, "optimizer": functools.partial(sgd, lr=0.1), "batch_size": 4}
    model = Toy(dropout=0.0)
    plan = toy_plan(model=copy.deepcopy(model), **options)
    weights = recorded(toy_plan(model=model, **options), tmp_path)
    optimizer = torch.optim.SGD(plan.model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step, batch in zip(range(5), batches_of(plan), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 5) ** 0.9
        loss = plan.task.training_step(plan.model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert differing(plan.model.state_dict(), weights[step]) == []
    logged = [event["loss"] for event in read_log(tmp_path) if event["event"] == "train"]
    assert logged == losses


def batches_of(plan: Any) -> Iterator[Batch]:
    order = TrainBatches(len(plan.data.train), batch_size=4, seed=0)
    loader = train_loader(
        plan.data.train,
        order,
        augment=plan.data.augment,
        preprocess=plan.data.preprocess,
        target=plan.task.target,
        workers=0,
    )
    yield from opened(loader)


def test_two_parts_of_a_batch_equal_the_whole(tmp_path: Path) -> None:
    """All pixels are labelled and nothing is normalized over the batch, so the sums agree."""
    finals = []
    for parts in (1, 2, 4):
        torch.manual_seed(0)
        plan = toy_plan(
            model=Toy(dropout=0.0, norm=False), iterations=4, accumulate=parts,
            optimizer=functools.partial(sgd, lr=0.1),
        )  # fmt: skip
        run(plan, tmp_path / str(parts))
        finals.append(plan.model.state_dict())
    for other in finals[1:]:
        for name, value in finals[0].items():
            assert torch.allclose(value, other[name], rtol=1e-5, atol=1e-7)
    losses = [[e["loss"] for e in lines(tmp_path / p) if e["event"] == "train"] for p in "124"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_clipping_limits_the_norm_of_the_gradient(tmp_path: Path) -> None:
    def first_move(clip: float | None) -> float:
        torch.manual_seed(0)
        model = Toy(dropout=0.0)
        before = copy.deepcopy(model.state_dict())
        plan = toy_plan(
            model=model, iterations=1, clip_norm=clip,
            optimizer=functools.partial(sgd, lr=1.0, momentum=0.0),
        )  # fmt: skip
        run(plan, tmp_path / str(clip))
        moves = [value - before[name] for name, value in model.named_parameters()]
        return float(torch.cat([move.detach().flatten() for move in moves]).norm())

    free = first_move(None)
    assert first_move(free / 10) == pytest.approx(free / 10, rel=1e-4)
    assert first_move(free * 10) == pytest.approx(free, rel=1e-4)


def test_channels_last_changes_nothing_but_rounding(tmp_path: Path) -> None:
    losses = []
    for layout in (False, True):
        torch.manual_seed(0)
        plan = toy_plan(model=Toy(dropout=0.0), iterations=5, channels_last=layout)
        run(plan, tmp_path / str(layout))
        losses.append([e["loss"] for e in lines(tmp_path / str(layout)) if e["event"] == "train"])
        weight = plan.model.first.weight  # type: ignore[union-attr]
        assert weight.is_contiguous(memory_format=torch.channels_last) is layout  # type: ignore[operator]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_lines_of_the_log_are_means_over_their_steps(tmp_path: Path) -> None:
    run(toy_plan(iterations=7), tmp_path / "each")
    run(toy_plan(iterations=7, log_every=3), tmp_path / "third")
    each = [event["loss"] for event in lines(tmp_path / "each") if event["event"] == "train"]
    third = {e["step"]: e["loss"] for e in lines(tmp_path / "third") if e["event"] == "train"}
    assert third == pytest.approx({3: sum(each[:3]) / 3, 6: sum(each[3:6]) / 3, 7: each[6]})


def test_a_run_of_epochs_has_as_many_steps_as_whole_batches(tmp_path: Path) -> None:
    run(toy_plan(epochs=3, val=Pictures(1)), tmp_path)  # 10 images, batches of 4
    events = read_log(tmp_path)
    assert [e["step"] for e in events if e["event"] == "validation"] == [2, 4, 6]
    assert events[-1]["epoch"] == 3.0


def test_all_seeds_are_different_runs(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(0)
        run(toy_plan(model=Toy(), iterations=2, seed=seed), tmp_path / name)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert lines(tmp_path / "a")[0]["loss"] != lines(tmp_path / "c")[0]["loss"]


def test_training_lowers_the_loss_of_a_task_that_can_be_learnt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plan = toy_plan(model=Pointwise(), iterations=60, schedule="constant", augment=Augment())
    run(plan, tmp_path)
    losses = [event["loss"] for event in read_log(tmp_path) if event["event"] == "train"]
    assert losses[-1] < 0.6 * losses[0]


class Pointwise(nn.Module):
    """See each pixel alone; enough to tell the thirds of a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, images: Tensor) -> SemanticOutput:
        return SemanticOutput(self.layers(images))


# ---------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "train"), ({"epochs": 1, "iterations": 1}, "train"), ({"epochs": 0}, "train.epochs"),
        ({"iterations": 1, "batch_size": 0}, "train.batch_size"),
        ({"iterations": 1, "ema_decay": 1.0}, "train.ema_decay"),
        ({"iterations": 1, "ema_ramp": 2000.0}, "train.ema_ramp"),
        ({"iterations": 1, "ema_decay": 0.9, "ema_ramp": 0.0}, "train.ema_ramp"),
        ({"iterations": 1, "seed": -1}, "train"), ({"iterations": 1, "clip_norm": 0.0}, "train"),
        ({"iterations": 1, "device": "gpu"}, "train.device"),
        ({"iterations": 1, "save_every": 0}, "train.save_every"),
        ({"iterations": 1, "workers": -1}, "data"), ({"iterations": 1, "max_bad": 2.0}, "data"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        toy_plan(**options)
    assert caught.value.where == where
    assert caught.value.fix


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 11}, {"accumulate": 3}, {"devices": 3},
        {"optimizer": functools.partial(sgd, lr=0.1, backbone_multiplier=0.1)},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_a_plan_that_could_not_start_is_refused_by_its_check(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        toy_plan(**{"iterations": 1, **options}).check()


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"batch_size": 2}, False), ({"batch_size": 1}, True), ({"batch_size": 4}, False),
        ({"batch_size": 4, "accumulate": 2}, False), ({"batch_size": 4, "accumulate": 4}, True),
        ({"batch_size": 4, "devices": 4}, True), ({"batch_size": 8, "num_nodes": 4}, False),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("who", ["model", "task"])
def test_batches_too_small_for_the_norms_are_refused(
    options: dict[str, Any], refused: bool, who: str
) -> None:
    plan = toy_plan(iterations=1, **options)
    plan.check()
    getattr(plan, who).smallest_batch = 2
    if not refused:
        plan.check()
        return
    with pytest.raises(ConfigError, match="batch norms of this network need 2 at once") as caught:
        plan.check()
    assert caught.value.where == "train.batch_size"
    enough = int(re.findall(r"\d+", caught.value.fix)[0])
    again = toy_plan(iterations=1, train=Pictures(20), **{**options, "batch_size": enough})
    getattr(again, who).smallest_batch = 2
    again.check()


# ---------------------------------------------------------------- scores of any task
def test_scores_that_come_and_go_have_a_column_and_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(
        run_log.visualize, "curves", lambda series, **_: drawn.append(list(series)) or PIXEL
    )
    log = RunLog(tmp_path, display=lambda _: None)
    found: list[dict[str, float]] = [
        {"pq": 0.1, "sq": 0.2},
        {"pq": 0.3, "rq": 0.4, "pq_stuff": 1.0},
    ]
    for step, scores in enumerate(found, start=1):
        log.add("validation", step=step, epoch=0.5 * step, scores=scores)
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").split()
    assert lines == ["step,epoch,pq,sq,rq,pq_stuff", "1,0.5,0.1,0.2,,", "2,1.0,0.3,,0.4,1.0"]
    draw_curves(tmp_path)
    log.add("validation", step=3, epoch=1.5, scores={"mean_accuracy": 0.1, "miou": 0.2, "x": 0.3})
    draw_curves(tmp_path)
    assert drawn == [["pq", "sq", "rq"], ["miou", "mean_accuracy"]]


def test_a_validation_without_the_monitored_score_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([{}, {"miou": 0.5}, {}, {"miou": 0.4}])

    def evaluated(*_: Any, **__: Any) -> Evaluation:
        return Evaluation(next(found), [], None, 1, 0.0)

    monkeypatch.setattr(loop, "evaluate", evaluated)
    run(toy_plan(iterations=4, val_every=1, val=Pictures(1)), tmp_path)
    assert checkpoint.read_info(tmp_path / "best").facts["step"] == 2
    assert state_of(tmp_path)["best"] == [0.5, 2, 2]
