"""Write docs/cli.md, the reference of the command line, from the code.

Usage: python scripts/cli_reference.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from rtseg.cli.main import VERBS, _app

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# Command line

Written by `make docs` from the code; do not edit. Exit codes: [README](../README.md).
"""
SHARED = ("--json", "--quiet", "--seed", "--device", "--overwrite", "--debug")


def render() -> str:
    """Return the text of the reference."""
    parts = [HEAD]
    shared: list[Any] = []
    for name in VERBS:
        for title, command in _commands(name):
            own = [item for item in command.params if item.opts[0] not in SHARED]
            shared = [item for item in command.params if item.opts[0] in SHARED]
            parts.append(f"## {title}\n\n{_escape(inspect.cleandoc(command.help or ''))}\n")
            parts += [_table(own)] if own else []
    parts.append("## Options of every verb\n")
    parts.append(_table(shared))
    return "\n".join(parts)


def _commands(verb: str) -> Iterator[tuple[str, Any]]:
    """Yield the title and the command of a verb, or of each of its sub-verbs."""
    group: Any = typer.main.get_command(_app(verb))
    command = group.commands[verb]
    if hasattr(command, "commands"):
        for name, sub in command.commands.items():
            yield f"rtseg {verb} {name}", sub
    else:
        yield f"rtseg {verb}", command


def _table(parameters: list[Any]) -> str:
    rows = ["| argument or option | default | meaning |", "|---|---|---|"]
    for item in parameters:
        names = [*item.opts, *item.secondary_opts]
        name = (
            item.name.upper()
            if item.param_type_name == "argument"
            else ", ".join(f"`{option}`" for option in names)
        )
        meaning = _escape(getattr(item, "help", "") or "").replace("|", "\\|")
        rows.append(f"| {name} | {_default(item)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _escape(text: str) -> str:
    """Keep `<name>` from being read as HTML."""
    return text.replace("<", "\\<")


def _default(item: Any) -> str:
    if item.required:
        return "required"
    if item.default is None or item.default is False or item.default == []:
        return ""
    return f"`{str(item.default).lower() if item.default is True else item.default}`"


def main() -> None:
    """Write the file."""
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
