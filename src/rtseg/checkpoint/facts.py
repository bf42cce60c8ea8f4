"""What a result depends on beside its recipe, and the model card made from it."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.checkpoint.info import ModelInfo


def versions() -> dict[str, str]:
    """Return the versions of everything that a result depends on."""
    packages = ("rtseg", "torch", "torchvision", "numpy", "pillow", "lightning", "torchmetrics")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str | None:
    """Return the commit of the checkout that this file belongs to, or None outside of one."""
    here = Path(__file__)
    ask = functools.partial(
        subprocess.run, cwd=here.parent, capture_output=True, text=True, timeout=5, check=True
    )
    try:
        # An installed package may lie inside of a repository that knows nothing about it.
        ask(["git", "ls-files", "--error-unmatch", here.name])
        revision: str = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return revision


def environment() -> dict[str, Any]:
    """Return versions, device and thread count: what a result depends on beside the recipe."""
    cuda = torch.cuda.is_available()
    return {
        "versions": versions(),
        "git_revision": git_revision(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


_TERMS = ("training", "weights", "license", "notice")
"""Facts that only weights for others have."""


def model_card(info: ModelInfo, weights: Mapping[str, Tensor]) -> str:
    """Write the model card; a figure that was not measured is called so."""
    count = sum(value.numel() for name, value in weights.items() if not _is_buffer(name))
    scores = info.facts.get("scores") or {}
    rows = [f"| {name} | {value:.4f} |" for name, value in sorted(scores.items())]
    table = ["| score | value |", "|---|---|", *rows] if rows else ["Scores: not measured."]
    data = info.recipe.get("data", {})
    lines = [
        f"# {info.name or 'network'} ({info.task}, {len(info.classes)} classes)",
        "",
        f"- Parameters: {count:,}",
        f"- Switches: {dict(info.options) or 'defaults'}",
        f"- Classes: {', '.join(item.name for item in info.classes)}",
        f"- Preprocessing: {json.dumps(dict(info.preprocess), sort_keys=True)}",
        f"- Training data: {json.dumps(data.get('train', 'not recorded'))}",
        f"- Step: {info.facts.get('step', 'not recorded')}",
        f"- Seed: {info.facts.get('seed', 'not recorded')}",
        f"- Recipe SHA-256: {info.facts.get('recipe_sha256', 'not recorded')}",
        *(f"- {key.capitalize()}: {info.facts[key]}" for key in _TERMS if key in info.facts),
        "",
        f"## Scores ({info.facts.get('scored_on', 'no validation set')})",
        "",
        *table,
        "",
        "Latency: not measured.",
    ]
    return "\n".join(lines) + "\n"


def _is_buffer(name: str) -> bool:
    buffers = ("running_mean", "running_var", "num_batches_tracked", "_extra_state")
    return name.rsplit(".", 1)[-1] in buffers
