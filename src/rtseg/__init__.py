"""Real-time image segmentation of street scenes.

The names below are loaded when they are first used, so that `import rtseg` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtseg.api import evaluate, load, train
    from rtseg.benchmark.runs import benchmark
    from rtseg.checkpoint import create_model, list_models
    from rtseg.errors import RtsegError
    from rtseg.export import export
    from rtseg.inference.predictor import Predictor
    from rtseg.recipe import list_recipes
    from rtseg.structures import SemanticResult

__all__ = [
    "Predictor",
    "RtsegError",
    "SemanticResult",
    "benchmark",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "list_recipes",
    "load",
    "train",
]

_PLACES = {
    "Predictor": "rtseg.inference.predictor",
    "RtsegError": "rtseg.errors",
    "SemanticResult": "rtseg.structures",
    "benchmark": "rtseg.benchmark.runs",
    "create_model": "rtseg.checkpoint",
    "evaluate": "rtseg.api",
    "export": "rtseg.export",
    "list_models": "rtseg.checkpoint",
    "list_recipes": "rtseg.recipe",
    "load": "rtseg.api",
    "train": "rtseg.api",
}


class _Package(ModuleType):
    """This module, where a function keeps its name although a package has the same: `rtseg.export`.

    Importing the package `rtseg.export` would put it in the place of the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _PLACES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # 50 ms that `import rtseg` need not take

        return version("rtseg")
    if name not in _PLACES:
        raise AttributeError(f"module 'rtseg' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
