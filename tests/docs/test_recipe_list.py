from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from rtseg.recipe import list_recipes

ROOT = Path(__file__).parents[2]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("recipe_list", ROOT / "scripts/recipe_list.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_holds_every_recipe_and_is_up_to_date() -> None:
    text = (ROOT / "docs" / "recipe_list.md").read_text(encoding="utf-8")
    assert text == script().render(), "out of date: run `make docs` and commit docs/recipe_list.md"
    assert [name for name in list_recipes() if f"| `{name}` |" not in text] == []
