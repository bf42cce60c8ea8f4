"""Write docs/recipe_list.md, the recipes and ablation rows with their published scores, from them.

Usage: python scripts/recipe_list.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rtseg.recipe import list_recipes, recipe_folder

TARGET = Path(__file__).parents[1] / "docs" / "recipe_list.md"
HEAD = """# List of recipes

Written by `make docs` from the recipes; do not edit. `rtseg train NAME` trains one, `NAME@ROW` a
row of an ablation. Published scores are in percent and not ours; what we measured stands in
[results](results/README.md).
"""
PLACE = re.compile(r"^# Paper:\s*(.+?)\n# Command:", flags=re.DOTALL)
EXPECTED = re.compile(r"^# Expected:\s*(.+?)\n(?!#  )", flags=re.DOTALL | re.MULTILINE)


def render() -> str:
    """Return the text of the list."""
    parts = [HEAD]
    for folder in sorted(path.name for path in recipe_folder().iterdir() if path.is_dir()):
        names = [name for name in list_recipes() if name.split("/")[0] == folder]
        rows = [*_files(names), *_rows(folder)]
        assert len(rows) == len(names), folder
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"## {folder}\n\n| recipe | from | expected |\n|---|---|---|\n{table}\n")
    return "\n".join(parts)


def _files(names: list[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        if "@" not in name:
            text = (recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8")
            yield f"`{name}`", _sentence(PLACE, text), _sentence(EXPECTED, text)


def _sentence(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    assert found is not None, text[:200]
    return " ".join(found[1].replace("\n#", " ").split())


def _rows(folder: str) -> Iterator[tuple[str, str, str]]:
    path = recipe_folder() / folder / "ablations.yaml"
    if not path.is_file():
        return
    rows: Any = OmegaConf.to_container(OmegaConf.load(path))
    for name, row in rows.items():
        yield f"`{row['recipe']}@{name}`", row["source"], _scores(row["published"])


def _scores(published: Mapping[str, float]) -> str:
    if not published:
        return "published without a number"
    return "published " + ", ".join(f"{name} {value}" for name, value in published.items())


def main() -> None:
    """Write the file."""
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
