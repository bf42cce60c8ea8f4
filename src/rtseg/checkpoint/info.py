"""What a checkpoint says about its network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rtseg.structures import ClassInfo

FORMAT = 1
"""Version of `config.json`; older ones stay readable for two minor releases."""


@dataclass(frozen=True)
class ModelInfo:
    """What `config.json` holds.

    name, options: key of `MODELS` and the switches; "" for a network of the user's own, which has
    to be passed to `load`.
    task: name of the task. classes: by id. preprocess: arguments of `Preprocess`. recipe: the
    resolved recipe.
    facts: what is known about the run: step, epoch, scores, seed, versions, git revision, hash of
    the recipe.
    """

    name: str
    options: Mapping[str, Any]
    task: str
    classes: tuple[ClassInfo, ...]
    preprocess: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"
