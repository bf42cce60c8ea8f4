"""Sizes that keep the code readable, measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rtseg"
FILE_LINES, MODEL_FILE_LINES = 400, 600
FUNCTION_LINES, FUNCTION_LINES_P90 = 60, 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 40, "the package was not found"
    return found


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def length(function: Function) -> int:
    """Count lines from `def` to the end, without decorators and docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def prints(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "builtins.print"):
            yield node.lineno


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_is_short_enough_and_prints_only_in_the_command_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    limit = MODEL_FILE_LINES if path.parent.name == "models" else FILE_LINES
    assert len(text.splitlines()) <= limit
    tree = parse(path)
    long = {item.name: length(item) for item in functions(tree) if length(item) > FUNCTION_LINES}
    assert long == {}
    if path.relative_to(PACKAGE).parts[0] != "cli":
        assert list(prints(tree)) == []


def test_nine_of_ten_functions_are_at_most_40_lines() -> None:
    lengths = sorted(length(item) for path in files() for item in functions(parse(path)))
    assert len(lengths) > 300
    assert lengths[int(0.9 * len(lengths))] <= FUNCTION_LINES_P90


def test_tests_mirror_the_package() -> None:
    rooms = {
        path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()
    }
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert rooms - tested == set()


def test_length_leaves_out_docstring_and_decorators() -> None:
    source = '''
@decorated
def example(x):
    """Say one thing.

    And another.
    """
    y = x  # counted
    print(y)
    return y
'''
    tree = ast.parse(source)
    assert [length(item) for item in functions(tree)] == [4]
    assert list(prints(tree)) == [9]
