"""Every task is rebuilt from what a checkpoint keeps of its recipe."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from torchmetrics import Metric

from rtseg.errors import ConfigError
from rtseg.losses.cross_entropy import ohem_cross_entropy
from rtseg.structures import ClassInfo
from rtseg.tasks import TASKS, rebuild
from training.toy import CLASSES


def test_options_of_the_recipe_are_kept_and_weights_of_the_loss_left_out() -> None:
    section = {
        "name": "semantic",
        "loss": "ohem",
        "class_weights": "inverse_log",
        "inverse_log_offset": 1.1,
    }
    task: Any = rebuild("semantic", CLASSES, section)
    assert task.loss is ohem_cross_entropy
    assert task.weight is None
    assert task.classes == CLASSES


def test_an_empty_section_means_the_defaults() -> None:
    task: Any = rebuild("semantic", list(CLASSES), {})
    assert task.loss is TASKS["semantic"](CLASSES).loss


def test_unknown_tasks_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match="task 'semantik' is unknown; did you mean one of: seman"):
        rebuild("semantik", CLASSES, {})
    with pytest.raises(ConfigError, match=r"other options .*losss.*update rtseg"):
        rebuild("semantic", CLASSES, {"losss": "ce"})


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_keeps_the_protocol(name: str) -> None:
    first, second, *options = inspect.signature(TASKS[name]).parameters.values()
    assert (first.name, second.name, second.default) == ("classes", "class_weights", None)
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert all(option.default is not option.empty for option in options)
    task = rebuild(name, [*CLASSES, ClassInfo("thing", (1, 1, 1), thing=True)], {})
    assert task.needs
    assert issubclass(task.output_type, tuple)
    metric = task.new_metric()
    assert isinstance(metric, Metric)
    scores = metric.compute()
    assert all(isinstance(value, int | float) and value == value for value in scores.values())
    assert all("name" in row for row in metric.per_class())
    for matrix, names in metric.matrices().values():
        assert matrix.shape == (len(names), len(names))
