"""Read recipes: files, names, ablation rows and overrides."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from rtseg.errors import ConfigError, DataError, nearest
from rtseg.training.optim import BATCH_SCALING

SECTIONS = ("model", "data", "task", "train", "optimizer", "schedule")
OPTIONAL_SECTIONS = ("binarize", "distill", "quantize")
"""Sections that a recipe may leave out, or switch off by `null`."""
DATA_KEYS = (
    "train",
    "val",
    "augment",
    "augment_on",
    "preprocess",
    "mask_resize",
    "score_at",
    "max_bad",
    "workers",
)
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: its sections, where it came from, and what was changed on reading it.

    run: folder of the run that it was read from, to go on with it.
    """

    sections: dict[str, Any]
    source: str
    notes: tuple[str, ...] = ()
    run: Path | None = None

    @property
    def sha256(self) -> str:
        """Hash of the resolved sections."""
        text = json.dumps(self.sections, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the resolved recipe as a file that trains the same run."""
        return f"# resolved from {self.source}\n" + OmegaConf.to_yaml(
            OmegaConf.create(self.sections)
        )


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with the package."""
    return Path(str(resources.files("rtseg") / "recipes"))


def list_recipes() -> list[str]:
    """Return the names of all recipes, ablation rows included (`model/dataset@row`)."""
    root = recipe_folder()
    names = [
        str(path.relative_to(root).with_suffix(""))
        for path in root.rglob("*.yaml")
        if path.name != "ablations.yaml"
    ]
    for path in root.rglob("ablations.yaml"):
        rows = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(rows, dict)
        names += [f"{row['recipe']}@{name!s}" for name, row in rows.items()]
    return sorted(names)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by file or name and apply overrides.

    Args:
        source: Path of a YAML file, or a name such as `lsa_binet/camvid` or
            `lsa_binet/camvid@no_rcad`.
        overrides: `key.sub=value` strings; they win. `key={...}` replaces the whole section.

    Raises:
        ConfigError: Unknown recipe, unreadable YAML, or a section that is unknown or missing.
    """
    base, row = _find(str(source))
    try:
        plain = _override(OmegaConf.load(base), row)
        config = _override(plain, overrides)
        before = _plain(plain)
        sections = _plain(config)
    except (OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        message = " ".join(lines) if isinstance(error, YAMLError) else lines[0]
        fix = "correct the YAML or the override"
        raise ConfigError(f"cannot be read ({message})", where=str(base), fix=fix) from None
    _check_sections(sections, str(source))
    chosen = any(item.partition("=")[0] in ("optimizer", "optimizer.lr") for item in overrides)
    notes = () if chosen else _scale_learning_rate(before, sections)
    return Recipe(sections, str(source), notes)


def _override(config: Any, changes: Sequence[str]) -> Any:
    """Return a copy with each `key.sub=value` set; a mapping replaces the old one as a whole."""
    changed = copy.deepcopy(config)
    for change in changes:
        key, separator, _ = change.partition("=")
        if not separator:
            raise ValueError(f"override {change!r} has no '='")
        value = OmegaConf.select(OmegaConf.from_dotlist([change]), key)
        OmegaConf.update(changed, key, value, merge=False, force_add=True)
    return changed


def _plain(config: Any) -> dict[str, Any]:
    if not isinstance(config, DictConfig):
        raise ValueError("a recipe is a mapping of sections")
    value = OmegaConf.to_container(config, resolve=True)
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


def _find(source: str) -> tuple[Path, list[str]]:
    """Return the file of a recipe and the overrides of its ablation row."""
    name, _, row = source.partition("@")
    path = Path(name)
    if not path.is_file():
        path = recipe_folder() / f"{name}.yaml"
    if not path.is_file():
        close = ", ".join(nearest(name, list_recipes()))
        raise ConfigError(f"recipe {name!r} is unknown", fix=f"give a YAML file or one of: {close}")
    return path, _ablation(path, name, row) if row else []


def _ablation(path: Path, name: str, row: str) -> list[str]:
    table = path.with_name("ablations.yaml")
    rows = OmegaConf.to_container(OmegaConf.load(table)) if table.is_file() else {}
    assert isinstance(rows, dict)
    mine = {str(key): item for key, item in rows.items() if item["recipe"] == name}
    if row not in mine:
        close = ", ".join(nearest(row, mine)) or "none"
        raise ConfigError(f"{name} has no row {row!r}", where=str(table), fix=f"rows: {close}")
    overrides: list[str] = mine[row]["overrides"]
    return overrides


def _check_sections(sections: Mapping[str, Any], source: str) -> None:
    known = (*SECTIONS, *OPTIONAL_SECTIONS)
    unknown = [key for key in sections if key not in known]
    if unknown:
        hint = nearest(unknown[0], known, count=1)[0]
        raise ConfigError(
            f"section {unknown[0]!r} is unknown", where=source, fix=f"did you mean {hint!r}?"
        )
    missing = [key for key in SECTIONS if not isinstance(sections.get(key), dict)]
    if missing:
        raise ConfigError(
            f"section {missing[0]!r} is missing", where=source, fix="a recipe is complete: add it"
        )
    for key in sections["data"]:
        if key not in DATA_KEYS:
            hint = nearest(key, DATA_KEYS, count=1)[0]
            raise ConfigError(f"data.{key} is unknown", where=source, fix=f"did you mean {hint!r}?")
    if "train" not in sections["data"]:
        raise ConfigError("data.train is missing", where=source, fix="name a data set to train on")


def _scale_learning_rate(before: Mapping[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """Let the learning rate follow an overridden batch size; wrong values are reported later."""
    try:
        old, new = before["train"]["batch_size"], after["train"]["batch_size"]
        rate = after["optimizer"]["lr"]
        exponent = BATCH_SCALING[after["optimizer"]["name"]]
        factor = max(0.0, new / old) ** exponent
    except (KeyError, TypeError, ZeroDivisionError):
        return ()
    if factor in (0, 1):
        return ()
    after["optimizer"]["lr"] = rate * factor
    rule = "linear" if exponent == 1 else "square-root"
    return (
        f"batch size {old} -> {new}: learning rate {rate:g} -> {rate * factor:g} ({rule} rule; "
        "set optimizer.lr to choose your own)",
    )


def resume_recipe(folder: Path) -> Recipe:
    """Read the recipe of a run folder.

    Raises:
        RtsegError: The folder holds no run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise DataError(f"has no {CONFIG_FILE}", where=str(folder), fix="give the folder of a run")
    return dataclasses.replace(read_recipe(path), run=folder)
