"""`rtseg models`: the networks with their sizes, or everything about one."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import nn

_PAPER = re.compile(r'Paper:\s*"(.+?)"', re.DOTALL)
_DEVIATIONS = re.compile(r"^Deviations from the paper.*?:\n(.+?)(?:\n\n|\Z)", re.DOTALL | re.M)
_SIZE = re.compile(r"(\d+)x(\d+)")


def models(
    name: Annotated[
        str, typer.Argument(help="A network to explain, or a pattern such as 'lsa*'.")
    ] = "*",
    *,
    num_classes: Annotated[int, typer.Option(help="Classes to count with.")] = 11,
    size: Annotated[str, typer.Option(help="Height x width to count with.")] = "360x480",
    shared: Shared,
) -> None:
    """List the networks with tasks, parameters and multiply-adds, or explain one.

    Counts are computed, not stored: trainable parameters of the network in training, and the
    multiply-adds of its convolutions and matrix products for one image.
    """
    from rtseg.checkpoint import list_models

    counted_at = _parse_size(size)
    if num_classes < 1:
        raise ConfigError(f"is {num_classes}", where="--num-classes", fix="use 1 or more")
    names = list_models(name)
    if not names:
        close = ", ".join(nearest(name, list_models()))
        raise ConfigError(f"model {name!r} is unknown", fix=f"did you mean one of: {close}?")
    rows = [_count(item, num_classes, counted_at) for item in names]
    protocol = f"{num_classes} classes, {counted_at[0]}x{counted_at[1]}, 1 GMAC = 2 GFLOP"
    if name == names[0]:
        _explain(rows[0], protocol, shared)
        return
    cells = [
        [row["name"], " ".join(row["tasks"]), f"{row['parameters']:,}", f"{row['macs'] / 1e9:.3f}"]
        for row in rows
    ]
    columns = ["name", "tasks", "parameters", "GMAC"]
    shared.finish(
        {"protocol": protocol, "models": rows}, make_table(protocol, columns, cells, numbers=2)
    )


def _explain(row: dict[str, Any], protocol: str, shared: Shared) -> None:
    description = _module_docstring(row["name"])
    paper, deviations = _PAPER.search(description), _DEVIATIONS.search(description)
    switches = _switches(row["name"])
    document = {
        **row,
        "protocol": protocol,
        "paper": " ".join(paper[1].split()) if paper else None,
        "switches": switches,
        "deviations": deviations[1] if deviations else None,
        "description": description,
    }
    shared.finish(
        document,
        f"{row['name']} ({' '.join(row['tasks'])})",
        f"{row['parameters']:,} parameters, {row['macs']:,} multiply-adds ({protocol})",
        make_table(
            "",
            ["switch", "default", "type"],
            [[item["name"], item["default"], item["type"]] for item in switches],
        ),
        description,
    )


def _parse_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None or min(int(found[1]), int(found[2])) < 32:
        raise ConfigError(
            f"is {text!r}", where="--size", fix="write height x width, 32 or more, as 360x480"
        )
    return int(found[1]), int(found[2])


def _count(name: str, num_classes: int, size: tuple[int, int]) -> dict[str, Any]:
    import torch

    from rtseg.benchmark.complexity import count_macs, count_parameters
    from rtseg.models import MODELS

    with torch.device("meta"):  # shapes without values
        model = MODELS[name](num_classes)
    return {
        "name": name,
        "tasks": _tasks(model),
        "parameters": count_parameters(model),
        "macs": count_macs(model, size),
    }


def _tasks(model: nn.Module) -> list[str]:
    """Return the tasks that accept the output which the model's `forward` declares."""
    from rtseg.tasks import TASKS

    output = typing.get_type_hints(type(model).forward)["return"]
    return [name for name, task in TASKS.items() if task.output_type is output]


def _switches(name: str) -> list[dict[str, Any]]:
    from rtseg.models import MODELS

    parameters = inspect.signature(MODELS[name]).parameters.values()
    return [
        {"name": item.name, "default": item.default, "type": str(item.annotation)}
        for item in parameters
        if item.default is not inspect.Parameter.empty
    ]


def _module_docstring(name: str) -> str:
    from rtseg.models import MODELS

    builder: Any = MODELS[name]
    while hasattr(builder, "func"):  # a named variant
        builder = builder.func
    return inspect.getdoc(sys.modules[builder.__module__]) or ""
