from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from programs import load_program
from rtseg.cli.main import VERBS

ROOT = Path(__file__).parents[2]


def script() -> Any:
    return load_program("scripts/cli_reference.py")


@pytest.mark.skipif(
    tuple(int(part) for part in importlib.metadata.version("typer").split(".")[:2]) < (0, 27),
    reason="older versions of typer word and order the help differently",
)
def test_reference_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == script().render(), "out of date: run `make docs` and commit docs/cli.md"


def test_reference_names_every_verb_and_its_options() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for verb in VERBS:
        assert f"\n## rtseg {verb}" in text
    for option in ("`--resume`", "`--split`", "`--minutes`", "`--json`"):
        assert f"| {option} |" in text
