"""Phased binarisation: the weights of a network become binary while it trains.

Which layers are binary follows from the step (phases.py); the layers keep their own switches in the
weights file (nn/binary.py). So nothing has to be remembered, and a run that goes on at any step
does what it would have done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rtseg.errors import ConfigError
from rtseg.nn.binary import (
    BinaryConv2d,
    binarize_inputs,
    binary_layers,
    binary_penalty,
    clamp_weights,
)
from rtseg.structures import Batch, ImageMeta, Sample
from rtseg.tasks import Task
from rtseg.training.hooks import Hooks
from rtseg.training.loop import batches
from rtseg.training.norms import measure_norms
from rtseg.training.phases import Phases, Timetable, layer_order, timetable
from rtseg.training.session import Session


class PhasedTask(nn.Module):
    """A task whose network becomes binary; it adds the penalty of binary weights to the loss.

    Args:
        task: Any task.
        model: The network that will be trained; it is looked at, not kept.
        phases: Section `binarize`.

    Raises:
        ConfigError: The network has no binary layers, or none whose inputs could become binary.
    """

    factor: Tensor

    def __init__(self, task: Task, model: nn.Module, phases: Phases) -> None:
        super().__init__()
        self.task, self.phases = task, phases
        self.needs, self.output_type = task.needs, task.output_type
        self.smallest_batch = int(getattr(task, "smallest_batch", 1))
        self.order = layer_order(model, phases.order)
        layers = binary_layers(model)
        self.with_thresholds = [name for name in self.order if layers[name].tau is not None]
        if phases.with_inputs and not self.with_thresholds:
            raise ConfigError(
                "five phases, but no layer of this network can have binary inputs",
                where="binarize.lengths",
                fix="set model.act_bits=1, or give three lengths",
            )
        self.table: Timetable | None = None
        self.register_buffer("factor", torch.zeros(()), persistent=False)
        self._signs: dict[str, Tensor] = {}

    # ------------------------------------------------------------ the task
    def target(self, samples: Sequence[Sample]) -> Any:
        """Stack the labels as the task does."""
        return self.task.target(samples)

    def training_step(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the task, and `binary`, the penalty, once layers are binary."""
        terms = self.task.training_step(model, batch)
        layers = _binary(model).values()
        if self.phases.penalty and layers:
            terms["binary"] = self.factor * binary_penalty(layers, reduction=self.phases.reduction)
        return terms

    def divisors(self, target: Any) -> dict[str, Tensor]:
        """Return by what the terms of the task are divided."""
        return self.task.divisors(target)

    def new_metric(self) -> Any:
        """Return the metric of the task."""
        return self.task.new_metric()

    def postprocess(
        self, output: Any, meta: Sequence[ImageMeta], *, confidence: bool = False
    ) -> list[Any]:
        """Return the results of the task."""
        return self.task.postprocess(output, meta, confidence=confidence)

    # ------------------------------------------------------------ the phases
    def hooks(self, total: int) -> Hooks:
        """Return what has to be called in a run of `total` steps."""
        self.table = timetable(self.phases, total, weights=self.order, inputs=self.with_thresholds)
        return Hooks(
            self._before_step, self._after_step, self._before_validation, self._may_be_best
        )

    def get_extra_state(self) -> dict[str, dict[str, int]]:
        """Return the timetable, with which a run that goes on has to agree."""
        assert self.table is not None
        return {"weights": dict(self.table.weights), "inputs": dict(self.table.inputs)}

    def set_extra_state(self, state: dict[str, dict[str, int]]) -> None:
        """Compare the timetable of a saved run.

        Raises:
            ValueError: A layer would become binary at another step.
        """
        for kind, own in self.get_extra_state().items():
            for name in {**state[kind], **own}:
                then, now = state[kind].get(name, "no"), own.get(name, "no")
                if then != now:
                    raise ValueError(
                        f"the {kind} of {name} become binary at step {now} of this recipe, "
                        f"at step {then} of the run"
                    )

    def _before_step(self, session: Session) -> None:
        """Make binary what is due, and note the signs that the step may change."""
        assert self.table is not None
        layers = binary_layers(session.plan.model)
        due = {
            kind: [name for name, step in steps.items() if step <= session.step]
            for kind, steps in (("weights", self.table.weights), ("inputs", self.table.inputs))
        }
        weights = [name for name in due["weights"] if not layers[name].binarized]
        inputs = [name for name in due["inputs"] if layers[name].act_bits != 1]
        if weights:
            _switch_weights(session, weights)
        if inputs:
            _switch_inputs(session, inputs)
        if weights or inputs:
            self._announce(session, weights, inputs)
        self.factor.fill_(self.phases.penalty * self.table.penalty_share(session.step))
        self._signs = {
            name: layer.weight.detach() >= 0 for name, layer in layers.items() if layer.binarized
        }

    def _announce(self, session: Session, weights: list[str], inputs: list[str]) -> None:
        """Write to the log what is binary from this step on."""
        layers = binary_layers(session.plan.model).values()
        figures: dict[str, Any] = {
            "binary_weights": sum(layer.binarized for layer in layers),
            "binary_inputs": sum(layer.act_bits == 1 for layer in layers),
            "layers": len(layers),
        }
        changed = {"weights_of": weights, "inputs_of": inputs}
        figures |= {name: names for name, names in changed.items() if names}
        session.log.add("binarize", step=session.step + 1, epoch=session.epoch, **figures)
        if session.plan.options.compile:
            # Every switch is a new program; beyond a few of them the compiler would give up.
            torch.compiler.reset()

    def _after_step(self, session: Session) -> None:
        """Clamp binary weights, and count the share of them that changed its sign."""
        if not self._signs:
            return
        layers = binary_layers(session.plan.model)
        clamp_weights(layers.values())
        changed = [
            (before != (layers[name].weight.detach() >= 0)).sum()
            for name, before in self._signs.items()
        ]
        weights = sum(before.numel() for before in self._signs.values())
        share = int(torch.stack(changed).sum()) / weights
        session.figures["sign_flips"] = session.figures.get("sign_flips", 0.0) + share

    def _before_validation(self, session: Session) -> None:
        assert self.table is not None
        changed = self.table.switches(session.scored_step, session.step)
        if changed and self.phases.recalibrate:
            measure_norms(session, self.phases.recalibrate)

    def _may_be_best(self, step: int) -> bool:
        """Return whether the last of so many steps was one of the last phase."""
        assert self.table is not None
        return step > self.table.final


def _binary(model: nn.Module) -> dict[str, BinaryConv2d]:
    """Return the layers of a network whose weights are binary, by name."""
    return {name: layer for name, layer in binary_layers(model).items() if layer.binarized}


def _networks(session: Session) -> list[nn.Module]:
    """Return the network and, if there is one, its average, which is scored in the same phase."""
    return [session.plan.model, *([] if session.ema is None else [session.ema.module])]


def _switch_weights(session: Session, names: Sequence[str]) -> None:
    """Make the weights of layers binary, each network with the best factors for its own."""
    for network in _networks(session):
        layers = binary_layers(network)
        for name in names:
            layers[name].binarize()
    layers = binary_layers(session.plan.model)
    for name in names:
        _forget(session.optimizer, (layers[name].weight, layers[name].log_alpha))


def _switch_inputs(session: Session, names: Sequence[str]) -> None:
    """Make the inputs of layers binary, with thresholds measured on the batch of this step."""
    layers = binary_layers(session.plan.model)
    chosen = [layers[name] for name in names]
    fabric = session.fabric
    with contextlib.closing(batches(session)) as source, fabric.autocast():
        binarize_inputs(session.plan.model, next(source).images.to(fabric.device), chosen)
    averaged = {} if session.ema is None else binary_layers(session.ema.module)
    for name, layer in zip(names, chosen, strict=True):
        assert layer.tau is not None
        layer.tau.data.copy_(fabric.all_reduce(layer.tau.data, reduce_op="mean"))
        if averaged:
            averaged[name].binarize_inputs(layer.tau.detach())
        _forget(session.optimizer, (layer.tau,))


@torch.no_grad()
def _forget(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Zero what an optimizer knows of parameters, the number of their steps too.

    decision: With its old number of steps, Adam's first update after the switch would be three
    times as large as the learning rate.
    """
    for parameter in parameters:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor):
                value.zero_()
