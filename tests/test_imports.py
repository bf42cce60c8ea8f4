"""Who may import whom. Imports inside functions and for type checking count as well."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtseg.models import MODELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rtseg"

# A room is a file or a folder of the package; every room may also import `errors` and itself.
TABLE = {
    "errors": "",
    "visualize": "",
    "config": "",
    "structures": "visualize",
    "ops": "structures",
    "nn": "ops",
    "quantization": "nn ops structures",
    "models": "nn ops structures",
    "losses": "ops structures",
    "metrics": "structures",
    "data": "config visualize structures",
    "tasks": "losses metrics ops structures",
    "checkpoint": "config models quantization structures",
    "runtimes": "checkpoint quantization models nn ops structures",
    "export": (
        "evaluation runtimes checkpoint config quantization tasks data models nn ops structures"
    ),
    "evaluation": "runtimes checkpoint config tasks data ops visualize structures",
    "inference": "export runtimes checkpoint config tasks data visualize structures",
    "training": (
        "evaluation checkpoint config tasks losses data quantization models nn ops visualize "
        "structures"
    ),
    "recipe": ("training evaluation checkpoint config models tasks data quantization structures"),
    "benchmark": (
        "inference export runtimes evaluation checkpoint config tasks data models nn ops "
        "visualize structures"
    ),
}
# The top of the house may import every room above, and of itself what stands here.
TOPS = {"__init__": "api", "api": "", "cli": "api", "__main__": "cli"}
DISTRIBUTIONS = {"pillow": "PIL"}  # where the name to import is another one
EXTRAS = ("train", "teachers", "onnx", "openvino")
BROUGHT_ALONG = {"yaml"}  # by omegaconf, whose YAML errors are PyYAML's
USED_BY_TORCH = {"tensorboard", "onnx", "onnxscript"}  # through torch.utils, torch.onnx
USED_IF_THERE = {"tensorrt"}  # of a GPU machine; no extra installs it


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST, *, package: str = "rtseg") -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports, wherever it does so.

    package: dotted name of the package that the module lies in, to resolve relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def imports_of(path: Path) -> list[tuple[int, str]]:
    package = ".".join(("rtseg", *path.relative_to(PACKAGE).parts[:-1]))
    return list(imported(ast.parse(path.read_text(encoding="utf-8")), package=package))


def room_imports(path: Path) -> list[tuple[int, str]]:
    """Return line and room of the package's own imports; a bare `rtseg` is room `__init__`."""
    found = []
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "rtseg":
            room = parts[1] if len(parts) > 1 else "__init__"
            known = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
            found.append((line, room if known else "__init__"))
    return found


def test_every_import_follows_the_table() -> None:
    paths = modules()
    assert len(paths) > 40, "the package was not found"
    wrong = []
    for path in paths:
        room = room_of(path)
        assert room in TABLE or room in TOPS, f"room {room!r} is not in the table"
        below = [*TABLE, TOPS[room]] if room in TOPS else TABLE[room].split()
        for line, other in room_imports(path):
            if other not in {room, "errors", *below}:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {other}")
    assert wrong == []


def test_rooms_do_not_import_each_other_in_circles() -> None:
    arrows: dict[str, set[str]] = {}
    for path in modules():
        others = {other for _, other in room_imports(path)} - {room_of(path)}
        arrows.setdefault(room_of(path), set()).update(others)
    assert sum(len(others) for others in arrows.values()) > 20
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError


def test_imports_are_found_in_every_disguise() -> None:
    text = """
import rtseg.data.files as files
from rtseg import visualize, errors
from . import loop
from ..tasks.semantic import SemanticTask
def late():
    from rtseg.nn.conv import NormAct
    importlib.import_module("rtseg.models")
if TYPE_CHECKING:
    from rtseg.ops import pool
"""
    found = {name for _, name in imported(ast.parse(text), package="rtseg.training")}
    assert found == {
        "rtseg.data.files", "rtseg.visualize", "rtseg.errors", "rtseg.training.loop",
        "rtseg.tasks.semantic.SemanticTask", "rtseg.nn.conv.NormAct", "rtseg.models",
        "rtseg.ops.pool",
    }  # fmt: skip


def test_every_file_of_models_has_a_name_in_the_table() -> None:
    files = {path.stem for path in (PACKAGE / "models").glob("*.py")} - {"__init__"}
    builders = [
        builder.func if isinstance(builder, functools.partial) else builder
        for builder in MODELS.values()
    ]
    assert files
    # What would make the file of a network too long may stand beside it.
    files -= {f"{name}_{part}" for name in files for part in ("blocks", "deploy")}
    assert files == {builder.__module__.rsplit(".", 1)[-1] for builder in builders}


# ---------------------------------------------------------------- packages of others
def requirements(section: str) -> dict[str, str]:
    """Return the oldest version of each package of `core` or an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (
        project["dependencies"] if section == "core" else project["optional-dependencies"][section]
    )
    pairs = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for line in lines]
    assert all(pairs), f"lower bounds only: {lines}"
    return {pair[1]: pair[2] for pair in pairs if pair}


def import_name(package: str) -> str:
    return DISTRIBUTIONS.get(package, package.replace("-", "_"))


def outside_imports(path: Path) -> set[str]:
    names = {name.split(".")[0] for _, name in imports_of(path)}
    return names - set(sys.stdlib_module_names) - {"rtseg"}


def test_the_code_imports_what_is_declared_and_nothing_else() -> None:
    used = set().union(*(outside_imports(path) for path in modules()))
    sections = ("core", *EXTRAS)
    declared = {import_name(package) for name in sections for package in requirements(name)}
    assert used - BROUGHT_ALONG - USED_IF_THERE == declared - USED_BY_TORCH


def test_extras_are_imported_inside_functions_only() -> None:
    extras = {import_name(package) for name in EXTRAS for package in requirements(name)}
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        inside = {
            node
            for function in ast.walk(tree)
            if isinstance(function, functions)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in inside:
                module = ast.Module([node], [])
                names = {name.split(".")[0] for _, name in imported(module)}
                assert not names & extras, f"{path}:{node.lineno}"


@pytest.mark.parametrize("section", ["core", *EXTRAS, "dev"])
def test_oldest_versions_are_those_of_the_lower_bounds(section: str) -> None:
    text = (ROOT / "constraints" / "oldest.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([\d.]+)$", text, flags=re.MULTILINE))
    bounds = requirements(section)
    shortened = {name: pins[name][: len(bound)] for name, bound in bounds.items()}
    assert shortened == bounds
    rest = {name: re.sub(r"[.0]", "", pins[name][len(bound) :]) for name, bound in bounds.items()}
    assert set(rest.values()) == {""}, "a pin is newer than its bound"
    sections = ("core", *EXTRAS, "dev")
    together = {package for name in sections for package in requirements(name)}
    assert set(pins) == together
    tested = (ROOT / "constraints" / "tested.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^([\w.-]+)==", tested, flags=re.MULTILINE)) == together
