"""`rtseg models`: the networks with their sizes, or everything about one."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtseg.cli.common import Shared, make_table
from rtseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import nn

    from rtseg.benchmark.complexity import Complexity
    from rtseg.benchmark.published import Figure, Published

_PAPER = re.compile(r'Paper:\s*"(.+?)"', re.DOTALL)
_SECTIONS = {
    "deviations": re.compile(r"^Deviations from the paper.*?:\n(.+?)(?:\n\n|\Z)", re.DOTALL | re.M),
    "contradictions": re.compile(
        r"^Where the paper contradicts itself:\n(.+?)(?:\n\n|\Z)", re.DOTALL | re.M
    ),
}
_SIZE = re.compile(r"(\d+)x(\d+)")
Place = tuple[tuple[int, int], int | None]
"""Input size (H, W) and number of classes."""


def models(
    name: Annotated[
        str, typer.Argument(help="A network to explain, or a pattern such as 'lsa*'.")
    ] = "*",
    *,
    num_classes: Annotated[
        int | None, typer.Option(help="Classes to count with; default: the paper's.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Height x width to count with; default: the paper's.")
    ] = None,
    shared: Shared,
) -> None:
    """List the networks with tasks, parameters and multiply-adds, or explain one.

    Counts are computed, not stored: parameters that evaluation needs, and the multiply-adds of
    convolutions and matrix products for one image. Beside them stands what the paper prints, with
    our count by the paper's own rule and by how many percent it lies above the printed figure.
    """
    from rtseg.checkpoint import list_models

    weights = _shipped()
    chosen = None if size is None else _parse_size(size)
    if num_classes is not None and num_classes < 1:
        raise ConfigError(f"is {num_classes}", where="--num-classes", fix="use 1 or more")
    names = list_models(name)
    if not names:
        close = ", ".join(nearest(name, list_models()))
        raise ConfigError(f"model {name!r} is unknown", fix=f"did you mean one of: {close}?")
    if name == names[0]:
        row = _count(name, chosen, num_classes, main_only=False)
        _explain({**row, "shipped": _of([name], weights)}, shared)
        return
    rows = [_count(item, chosen, num_classes, main_only=True) for item in names]
    table = make_table("", _HEADS, [_cells(row) for row in rows], numbers=6)
    table.columns[0].no_wrap = True  # narrow terminals fold the tasks
    weights = _of(names, weights)
    shared.finish(
        {"protocol": "1 GMAC = 2 GFLOP", "models": rows, "shipped": weights},
        table,
        *_weight_lines(weights),
        "count and paper: by the paper's own rule, with the deviation; `rtseg models NAME` has all",
    )


# ---------------------------------------------------------------- shipped weights
def _shipped() -> list[dict[str, Any]]:
    """Return what is known about the weights that come with the package, without reading them."""
    from rtseg.checkpoint import list_shipped, read_info, shipped

    rows = []
    for name in list_shipped():
        info = read_info(shipped.zoo_folder() / name)
        facts = {key: info.facts.get(key) for key in ("scores", "scored_on", "license", "notice")}
        rows.append({"name": name, "model": info.name, "task": info.task, **facts})
    return rows


def _of(names: Sequence[str], weights: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in weights if item["model"] in names]


def _weight_lines(weights: Sequence[dict[str, Any]]) -> list[Any]:
    """Return a table of shipped weights, if there are any."""
    if not weights:
        return []
    rows = [[item["name"], item["task"], _best_score(item), item["license"]] for item in weights]
    return [make_table("", ("shipped weights", "task", "score", "license"), rows)]


def _best_score(item: dict[str, Any]) -> str:
    scores = item["scores"] or {}
    name = next((key for key in ("miou", "score", "pq") if key in scores), None)
    return "not measured" if name is None else f"{name} {scores[name]:.4f} ({item['scored_on']})"


# ---------------------------------------------------------------- counting
def _count(
    name: str, size: tuple[int, int] | None, num_classes: int | None, *, main_only: bool
) -> dict[str, Any]:
    """Count a network, at the paper's size and number of classes unless others are given."""
    from rtseg.benchmark.complexity import count_parameters
    from rtseg.benchmark.published import ELSEWHERE, PUBLISHED
    from rtseg.checkpoint.networks import class_count

    published = PUBLISHED.get(name, ELSEWHERE)
    own = size is not None or num_classes is not None
    classes = class_count(name, num_classes or published.num_classes or 0)
    place = (size or published.input_size, classes)
    measured = cache(partial(_measured, name))
    model, counts = measured(place)
    return {
        "name": name,
        "tasks": _tasks(model),
        "num_classes": classes,
        "input_size": list(place[0]),
        "parameters": counts.parameters,
        "training_parameters": count_parameters(model),
        "macs": counts.macs,
        "published": [] if own else _compare(published, measured, main_only=main_only),
    }


def _measured(name: str, place: Place) -> tuple[Any, Complexity]:
    """Build a network without data and count it at a size and with a number of classes."""
    import torch

    from rtseg.benchmark.complexity import measure
    from rtseg.models import MODELS

    size, classes = place
    with torch.device("meta"):  # shapes without values
        model = MODELS[name]() if classes is None else MODELS[name](classes)
    return model, measure(model, size)


def _compare(
    published: Published, measured: Callable[[Place], tuple[Any, Complexity]], *, main_only: bool
) -> list[dict[str, Any]]:
    """Count again what the paper prints, each figure as its rule says."""
    figures: list[Figure] = list(published.figures)
    if main_only:
        mains = (published.main(parameters=True), published.main(parameters=False))
        figures = [item for item in mains if item is not None]
    rows = []
    for figure in figures:
        counted = figure.counted(*measured((figure.input_size, figure.num_classes)))
        rows.append(
            {
                "rule": figure.rule,
                "counted": counted,
                "printed": figure.printed,
                "deviation_percent": round(figure.deviation(counted), 2),
                "input_size": list(figure.input_size),
                "num_classes": figure.num_classes,
                "source": figure.source,
                "note": figure.note,
            }
        )
    return rows


def _tasks(model: nn.Module) -> list[str]:
    """Return the tasks that accept the output which the model's `forward` declares."""
    from rtseg.tasks import TASKS

    output = typing.get_type_hints(type(model).forward)["return"]
    return [name for name, task in TASKS.items() if task.output_type is output]


# ---------------------------------------------------------------- the table
_HEADS = ("name", "tasks", "size", "parameters", "paper", "GMAC", "count", "paper")


def _cells(row: dict[str, Any]) -> list[str]:
    figures = {item["rule"] == "parameters": item for item in reversed(row["published"])}
    weights, cost = figures.get(True), figures.get(False)
    return [
        row["name"],
        " ".join(row["tasks"]),
        _at(row),
        f"{row['parameters']:,}",
        _printed(weights),
        f"{row['macs'] / 1e9:.3f}",
        "" if cost is None else f"{cost['counted'] / 1e9:.3f}",
        _printed(cost),
    ]


def _printed(figure: dict[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['printed']} {figure['deviation_percent']:+.1f}%"


def _at(row: dict[str, Any]) -> str:
    classes = "" if row["num_classes"] is None else f"/{row['num_classes']}"
    return "x".join(map(str, row["input_size"])) + classes


# ---------------------------------------------------------------- one network
def _explain(row: dict[str, Any], shared: Shared) -> None:
    description = _module_docstring(row["name"])
    paper = _PAPER.search(description)
    found = {key: pattern.search(description) for key, pattern in _SECTIONS.items()}
    switches, recipes = _switches(row["name"]), _recipes(row["name"])
    protocol = f"{_at(row)}, 1 GMAC = 2 GFLOP"
    document = {
        **row,
        "protocol": protocol,
        "paper": " ".join(paper[1].split()) if paper else None,
        "switches": switches,
        "recipes": recipes,
        **{key: match[1] if match else None for key, match in found.items()},
        "description": description,
    }
    extra = row["training_parameters"] - row["parameters"]
    shared.finish(
        document,
        f"{row['name']} ({' '.join(row['tasks'])})",
        f"{row['parameters']:,} parameters, {row['macs']:,} multiply-adds ({protocol})"
        + (f"; training has {extra:,} parameters more" if extra else ""),
        *_figures(row["published"]),
        make_table(
            "",
            ["switch", "default", "type"],
            [[item["name"], item["default"], item["type"]] for item in switches],
        ),
        "Recipes: " + (", ".join(recipes) or "none"),
        *_weight_lines(row["shipped"]),
        "",
        description,
    )


def _figures(figures: list[dict[str, Any]]) -> list[Any]:
    """Return a table of the paper's figures, and what each way of counting means."""
    from rtseg.benchmark.published import RULES

    if not figures:
        return []
    rows = [
        [
            item["source"], item["rule"], _at(item), item["note"], f"{item['counted']:,.0f}",
            item["printed"], f"{item['deviation_percent']:+.2f}%",
        ]
        for item in figures
    ]  # fmt: skip
    heads = ("paper", "rule", "size", "note", "count", "printed", "deviation")
    rules = dict.fromkeys(item["rule"] for item in figures)
    meanings = [f"{rule}: {RULES[rule].meaning}" for rule in rules]
    return [make_table("", heads, rows, numbers=3), *meanings]


def _recipes(name: str) -> list[str]:
    """Return the recipes and ablation rows that train a network."""
    from omegaconf import OmegaConf

    from rtseg.recipe import recipe_folder

    root = recipe_folder()
    tables = set(root.rglob("ablations.yaml"))
    trained = {
        str(path.relative_to(root).with_suffix("")): OmegaConf.load(path).model.name
        for path in set(root.rglob("*.yaml")) - tables
    }
    for table in tables:
        rows: Any = OmegaConf.to_container(OmegaConf.load(table))
        for row, entry in rows.items():
            changed = OmegaConf.select(OmegaConf.from_dotlist(entry["overrides"]), "model.name")
            trained[f"{entry['recipe']}@{row}"] = changed or trained[entry["recipe"]]
    return sorted(recipe for recipe, model in trained.items() if model == name)


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


def _parse_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None or min(int(found[1]), int(found[2])) < 32:
        raise ConfigError(
            f"is {text!r}", where="--size", fix="write height x width, 32 or more, as 360x480"
        )
    return int(found[1]), int(found[2])
