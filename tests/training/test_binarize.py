"""Phased binarisation in the loop: what is binary when, and what each step and validation does."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg import checkpoint
from rtseg.errors import ConfigError
from rtseg.nn.binary import binary_layers, binary_penalty
from rtseg.structures import SemanticOutput
from rtseg.training import loop
from rtseg.training.binarize import PhasedTask
from rtseg.training.norms import measure_norms
from rtseg.training.optim import adam, sgd
from rtseg.training.phases import Phases
from rtseg.training.run_log import RunLog
from rtseg.training.session import start
from training.phased import FIVE, THREE, Small, events, plan_of
from training.test_loop import quiet, state_of
from training.toy import Pictures, run, toy_plan

__all__ = ["quiet"]  # the fixture that keeps runs in memory and on one thread


# ---------------------------------------------------------------- what is binary when
def test_layers_become_binary_at_their_steps_and_the_log_says_so(tmp_path: Path) -> None:
    plan = plan_of()
    seen: list[list[bool]] = []

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            seen.append([layer.binarized for layer in binary_layers(plan.model).values()])

    run(plan, tmp_path, display=display)
    # b and c work at 1/4, b has more weights; a follows. Two groups: b and c, then a.
    assert seen == [[False] * 3] * 2 + [[False, True, True]] * 2 + [[True] * 3] * 4
    first, second = events(tmp_path, "binarize")
    assert (first["step"], first["weights_of"], first["binary_weights"]) == (3, ["b", "c"], 2)
    assert (second["step"], second["weights_of"], second["binary_weights"]) == (5, ["a"], 3)
    assert first["layers"] == 3
    assert "inputs_of" not in first
    with_flips = ["sign_flips" in event for event in events(tmp_path, "train")]
    assert with_flips == [False] * 2 + [True] * 6


def test_inputs_become_binary_after_all_weights(tmp_path: Path) -> None:
    plan = plan_of(FIVE)
    seen: list[tuple[int, int]] = []

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            layers = binary_layers(plan.model).values()
            weights = sum(layer.binarized for layer in layers)
            seen.append((weights, sum(layer.act_bits == 1 for layer in layers)))

    run(plan, tmp_path, display=display)
    # 8 steps of 7 parts: the phases begin at 0, 1, 2, 3 and 6; the second group of inputs at 5.
    assert seen == [(0, 0), (2, 0), (3, 0), (3, 1), (3, 1), (3, 2), (3, 2), (3, 2)]
    assert [e["inputs_of"] for e in events(tmp_path, "binarize") if "inputs_of" in e] == [
        ["b"], ["a"],
    ]  # fmt: skip


def test_thresholds_begin_with_the_means_of_the_batch_that_is_trained_on(tmp_path: Path) -> None:
    plan = plan_of(Phases((0, 0, 1, 0, 1), groups=1), optimizer=functools.partial(sgd, lr=0.0))
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    with contextlib.closing(loop.batches(session)) as source:
        parts = [next(source) for _ in range(5)]
    for part in parts[:4]:
        loop.train_step(session, [part])
    model = plan.model
    assert isinstance(model, Small)
    real = copy.deepcopy(model).eval()  # as it was when the inputs were measured
    loop.train_step(session, parts[4:])
    x = F.relu(real.norms[0](real.first(parts[4].images)))
    assert model.a.tau is not None
    assert model.b.tau is not None
    torch.testing.assert_close(model.a.tau.data, x.mean((0, 2, 3)))
    x = F.relu(real.norms[1](real.a(x)))
    torch.testing.assert_close(model.b.tau.data, x.mean((0, 2, 3)))
    assert (model.a.act_bits, model.b.act_bits, model.c.act_bits) == (1, 1, 32)


def test_layers_that_are_binary_already_stay_so(tmp_path: Path) -> None:
    model = Small()
    model.b.binarize()
    model.b.log_alpha.data.fill_(0.25)
    alphas: list[float] = []

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            alphas.append(float(model.b.log_alpha.detach().mean()))

    run(plan_of(model=model, optimizer=functools.partial(sgd, lr=0.0)), tmp_path, display=display)
    assert alphas == [0.25] * 8
    assert [event["weights_of"] for event in events(tmp_path, "binarize")] == [["c"], ["a"]]


# ---------------------------------------------------------------- one step
def test_what_the_optimizer_knows_of_a_switched_layer_is_forgotten(tmp_path: Path) -> None:
    plan = plan_of(save_every=1)
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    model = plan.model
    assert isinstance(model, Small)
    with contextlib.closing(loop.batches(session)) as source:
        for _ in range(2):
            loop.train_step(session, [next(source)])
        before = {
            name: {key: value.clone() for key, value in session.optimizer.state[p].items()}
            for name, p in model.named_parameters()
        }
        session.hooks.before_step(session)
    switched = {"b.weight", "b.log_alpha", "c.weight", "c.log_alpha"}
    for name, parameter in model.named_parameters():
        for key, value in session.optimizer.state[parameter].items():
            if name in switched:
                assert not value.any(), (name, key)
            else:
                assert torch.equal(value, before[name][key]), (name, key)
    assert before["b.weight"]["exp_avg_sq"].all()
    alpha = model.b.weight.abs().mean((1, 2, 3))
    torch.testing.assert_close(model.b.log_alpha.exp(), alpha)


def test_what_the_optimizer_knows_of_thresholds_is_forgotten_too(tmp_path: Path) -> None:
    plan = plan_of(FIVE)
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    model = plan.model
    assert isinstance(model, Small)
    steps = {}
    with contextlib.closing(loop.batches(session)) as source:
        for _ in range(3):
            loop.train_step(session, [next(source)])
        session.hooks.before_step(session)
    for name in "ab":
        tau = model.get_submodule(name).get_parameter("tau")
        steps[name] = float(session.optimizer.state[tau]["step"])
    assert steps == {"a": 3.0, "b": 0.0}  # the inputs of b are binary from here on


def test_latent_weights_stay_within_one_once_they_are_binary(tmp_path: Path) -> None:
    plan = plan_of(ema_decay=0.5, optimizer=functools.partial(adam, lr=0.8))
    largest: list[tuple[float, float]] = []

    def display(event: dict[str, Any]) -> None:
        if event["event"] == "train":
            layers = binary_layers(plan.model)
            largest.append(tuple(float(layers[name].weight.detach().abs().max()) for name in "ab"))

    run(plan, tmp_path, display=display)
    assert all(b > 1 for _, b in largest[:2])
    assert [b for _, b in largest[2:]] == [1.0] * 6
    assert all(a > 1 for a, _ in largest[:4])  # real weights may be as large as they like
    assert [a for a, _ in largest[4:]] == [1.0] * 4
    assert state_of(tmp_path)["ema"]["module.a.weight"].abs().max() > 1  # from its real past


def test_clamped_weights_are_what_is_averaged(tmp_path: Path) -> None:
    phases = Phases((0, 0, 1))
    plan = plan_of(phases, ema_decay=0.05, optimizer=functools.partial(adam, lr=0.8))
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    assert session.ema is not None
    own, averaged = (binary_layers(net)["a"].weight for net in (plan.model, session.ema.module))
    with contextlib.closing(loop.batches(session)) as source:
        for _ in range(3):
            before = averaged.detach().clone()
            loop.train_step(session, [next(source)])
    torch.testing.assert_close(averaged, before.lerp(own, 0.95))


def test_the_share_of_changed_signs_is_that_of_the_weights_themselves(tmp_path: Path) -> None:
    plan = plan_of(log_every=2, optimizer=functools.partial(adam, lr=0.1))
    signs: list[Tensor] = []

    def keep(session: Any, *, original: Any) -> None:
        original(session)
        layers = [layer for layer in binary_layers(plan.model).values() if layer.binarized]
        if layers:
            signs.append(torch.cat([layer.weight.detach().flatten() >= 0 for layer in layers]))

    def hooks(total: int) -> Any:
        made = plan.hooks(total)
        return dataclasses.replace(
            made,
            before_step=functools.partial(keep, original=made.before_step),
            after_step=functools.partial(keep, original=made.after_step),
        )

    run(dataclasses.replace(plan, hooks=hooks), tmp_path)
    shares = [
        float((before != after).float().mean())
        for before, after in zip(signs[::2], signs[1::2], strict=True)
    ]
    assert len(shares) == 6
    assert len(set(shares)) > 3
    expected = [sum(pair) / 2 for pair in zip(shares[::2], shares[1::2], strict=True)]
    found = [event["sign_flips"] for event in events(tmp_path, "train")[1:]]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_penalty_is_part_of_the_loss_as_soon_as_weights_are_binary(
    tmp_path: Path, reduction: Any
) -> None:
    phases = dataclasses.replace(THREE, penalty=0.4, reduction=reduction)
    plan = plan_of(phases, optimizer=functools.partial(sgd, lr=0.0))
    run(plan, tmp_path)
    layers = binary_layers(plan.model)
    some = float(binary_penalty([layers["b"], layers["c"]], reduction=reduction))
    full = float(binary_penalty(layers.values(), reduction=reduction))
    # Steps 2 and 3 count two layers, later ones three; the factor rises from step 2 to step 6.
    expected = [0.0 * some, 0.1 * some, 0.2 * full, 0.3 * full, 0.4 * full, 0.4 * full]
    lines = events(tmp_path, "train")
    assert ["binary" in line["terms"] for line in lines] == [False] * 2 + [True] * 6
    assert [line["terms"]["binary"] for line in lines[2:]] == pytest.approx(expected)
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line["terms"].values()))


def test_without_a_penalty_the_loss_is_that_of_the_task(tmp_path: Path) -> None:
    run(plan_of(dataclasses.replace(THREE, penalty=0.0)), tmp_path)
    assert all(list(line["terms"]) == ["loss"] for line in events(tmp_path, "train"))


# ---------------------------------------------------------------- the average
def test_the_average_is_scored_and_saved_in_the_phase_of_the_network(tmp_path: Path) -> None:
    plan = plan_of(ema_decay=0.8)
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    assert session.ema is not None
    averaged = binary_layers(session.ema.module)
    with contextlib.closing(loop.batches(session)) as source:
        for step in range(8):
            session.hooks.before_step(session)
            for name, layer in binary_layers(plan.model).items():
                assert averaged[name].binarized == layer.binarized, (step, name)
            if step == 2:  # its factors are the best ones for its own weights
                alpha = averaged["b"].weight.abs().mean((1, 2, 3))
                torch.testing.assert_close(averaged["b"].log_alpha.exp(), alpha)
                own = binary_layers(plan.model)["b"].log_alpha
                assert not torch.allclose(averaged["b"].log_alpha, own)
            loop.train_step(session, [next(source)])
    loop.save(session, "last")
    weights = checkpoint.read_weights(tmp_path / "last")
    assert weights["a._extra_state"].tolist() == [1, 32]
    assert torch.equal(weights["a.weight"], averaged["a"].weight)


def test_the_average_takes_over_binary_inputs(tmp_path: Path) -> None:
    run(plan_of(FIVE, ema_decay=0.8), tmp_path)
    weights = checkpoint.read_weights(tmp_path / "last")
    assert [weights[f"{name}._extra_state"].tolist() for name in "abc"] == [
        [1, 1], [1, 1], [1, 32],
    ]  # fmt: skip
    assert weights["a.tau"].abs().max() > 0


# ---------------------------------------------------------------- validation
def test_only_a_network_of_the_last_phase_may_be_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])

    def evaluated(*_: Any, **__: Any) -> Any:
        return dataclasses.make_dataclass("Found", ["scores", "seconds"])(
            {"miou": next(falling)}, 0.0
        )

    monkeypatch.setattr(loop, "evaluate", evaluated)
    run(plan_of(val=Pictures(1), val_every=1, early_stop=3), tmp_path)
    # The last phase begins with step 6, so that 7 steps are the first with a step of it.
    assert checkpoint.read_info(tmp_path / "best").facts["step"] == 7
    assert state_of(tmp_path)["best"] == [0.3, 7, 1]  # falling scores before it are no patience
    assert len(events(tmp_path, "validation")) == 8


@pytest.mark.parametrize("parts", [1, 2])
def test_norms_are_measured_on_the_batches_that_come_next(tmp_path: Path, parts: int) -> None:
    plan = plan_of(ema_decay=0.5, accumulate=parts)
    session = start(plan, tmp_path, RunLog(None, display=lambda _: None))
    network = session.scored
    assert isinstance(network, Small)
    assert network is not plan.model
    own = copy.deepcopy(plan.model.state_dict())
    measure_norms(session, 2)
    with contextlib.closing(loop.batches(session)) as source:
        outputs = [network.first(next(source).images) for _ in range(2 * parts)]
    norm = network.norms[0]
    assert isinstance(norm, nn.BatchNorm2d)
    means = torch.stack([x.mean((0, 2, 3)) for x in outputs])
    variances = torch.stack([x.var((0, 2, 3)) for x in outputs])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert norm.momentum == 0.1
    assert all(torch.equal(value, own[name]) for name, value in plan.model.state_dict().items())


def test_norms_are_measured_before_validations_that_follow_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "rtseg.training.binarize.measure_norms",
        lambda session, count: measured.append((session.step, count)),
    )
    run(plan_of(val=Pictures(1), val_every=1), tmp_path / "each")
    assert measured == [(3, 1), (5, 1)]
    measured.clear()
    run(plan_of(val=Pictures(1), val_every=4), tmp_path / "fourth")
    assert measured == [(4, 1), (8, 1)]
    measured.clear()
    never = dataclasses.replace(THREE, recalibrate=0)
    run(plan_of(never, val=Pictures(1), val_every=1), tmp_path / "never")
    assert measured == []


# ---------------------------------------------------------------- the task
class Counting(nn.Module):
    """A task with a parameter of its own around another."""

    smallest_batch = 3

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.task, self.extra = task, nn.Parameter(torch.ones(()))
        self.needs, self.output_type = task.needs, task.output_type

    def training_step(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {**self.task.training_step(model, batch), "extra": self.extra.square()}


def test_a_task_with_parameters_is_trained_and_saved_inside(tmp_path: Path) -> None:
    plan = toy_plan(model=Small(), iterations=2, optimizer=functools.partial(sgd, lr=0.1))
    inner: Any = Counting(plan.task)
    inner.target = plan.task.target
    task = PhasedTask(inner, plan.model, THREE)
    assert (task.needs, task.output_type, task.smallest_batch) == (("semantic",), SemanticOutput, 3)
    run(dataclasses.replace(plan, task=task, hooks=task.hooks), tmp_path)
    assert float(inner.extra) < 1
    assert torch.equal(state_of(tmp_path)["task"]["task.extra"], inner.extra)


def test_five_phases_need_layers_that_can_have_binary_inputs() -> None:
    with pytest.raises(ConfigError, match="no layer of this network can have binary inputs"):
        plan_of(FIVE, model=Small(act_bits=32))
    plan_of(THREE, model=Small(act_bits=32))
