from __future__ import annotations

from pathlib import Path
from typing import Any

from programs import load_program
from rtseg.recipe import list_recipes

ROOT = Path(__file__).parents[2]


def script() -> Any:
    return load_program("scripts/recipe_list.py")


def test_the_list_holds_every_recipe_and_is_up_to_date() -> None:
    text = (ROOT / "docs" / "recipe_list.md").read_text(encoding="utf-8")
    assert text == script().render(), "out of date: run `make docs` and commit docs/recipe_list.md"
    assert [name for name in list_recipes() if f"| `{name}` |" not in text] == []
