"""Every code block of README.md and docs/ runs, in order, in one empty folder per page.

A fence says `no-run` for what needs a GPU, a big data set or the checkout, and `slow` if the page
takes longer than the default run can afford.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.warm_python import warm_python

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"bash", "python"}
DATA_LANGUAGES = {"", "yaml", "json", "text"}
MARKS = {"no-run", "slow"}
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


class Block(NamedTuple):
    """A fenced block: its language, the marks of its fence, its text and its line."""

    language: str
    marks: frozenset[str]
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(match[1], frozenset(match[2].split()), match[3], text.count("\n", 0, match.start()))
        for match in FENCE.finditer(text)
    ]


def runnable(page: Path) -> list[Block]:
    found = blocks(page.read_text(encoding="utf-8"))
    return [block for block in found if block.language in LANGUAGES and "no-run" not in block.marks]


def pages() -> list[object]:
    found = []
    for page in PAGES:
        chosen = runnable(page)
        if chosen:
            slow = any("slow" in block.marks for block in chosen)
            marks = [pytest.mark.slow] if slow else []
            found.append(pytest.param(page, marks=marks, id=str(page.relative_to(ROOT))))
    return found


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """Return a folder with `python` and `rtseg` that start without waiting for torch."""
    with tempfile.TemporaryDirectory() as folder, warm_python(Path(folder)) as found:
        yield found


def run(block: Block, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    command = (
        ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "bash"
        else [str(programs / "python"), "-c", block.text]
    )
    places = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    path = os.pathsep.join(places)
    hidden = {"RTSEG_DATA", "RTSEG_DATASETS"}  # a reader of the page has neither
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    environment = {**kept, "PATH": path, "XDG_CACHE_HOME": str(folder / ".cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("page", pages())
def test_code_blocks_run(page: Path, tmp_path: Path, programs: Path) -> None:
    for block in runnable(page):
        done = run(block, tmp_path, programs)
        assert done.returncode == 0, f"{page.name}:{block.line}\n{done.stdout}\n{done.stderr}"


def test_the_pages_have_code_and_every_fence_is_understood() -> None:
    found = [(page, block) for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))]
    assert sum(block.language in LANGUAGES for _, block in found) >= 20
    assert len(pages()) >= 6
    for page, block in found:
        place = f"{page.name}:{block.line}"
        assert block.language in LANGUAGES | DATA_LANGUAGES, place
        assert block.marks <= MARKS, place


def test_links_between_pages_lead_somewhere() -> None:
    links = [
        (page, link)
        for page in PAGES
        for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if "://" not in link
    ]
    assert len(links) >= 10
    for page, link in links:
        assert (page.parent / link).exists(), f"{page.name}: {link}"


FAILING = """```bash
false
true
```
```python slow
raise SystemExit(3)
```
```python
1 / 0
```
```python
import os
os.kill(os.getpid(), 9)
```
```bash
rtseg predict nothing nowhere.png
```
```bash
python - <<'PY'
import sys
print(sys.argv, __name__, "torch" in sys.modules, "rtseg" in sys.modules)
sys.exit("no")
PY
```
"""


def test_failing_blocks_are_noticed(tmp_path: Path, programs: Path) -> None:
    found = blocks(FAILING)
    assert [block.marks for block in found] == [set(), {"slow"}, *[set()] * 4]
    done = [run(block, tmp_path, programs) for block in found]
    assert [item.returncode for item in done] == [1, 3, 1, 70, 3, 1]
    assert "ZeroDivisionError: division by zero" in done[2].stderr
    assert done[4].stderr.startswith("error: nowhere.png")
    assert done[5].stdout == "['-'] __main__ True False\n"
