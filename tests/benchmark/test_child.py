from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rtseg.benchmark.child import Child, describe
from rtseg.errors import ConfigError, MemoryFullError, MissingError, RtsegError

START = """
import os, sys
from rtseg.benchmark.child import Prepared, serve
from rtseg.errors import MissingError
def prepare(job):
    {body}
serve(prepare)
"""
JOB: dict[str, Any] = {"protocol": [2, None, 1, 0.0], "threads": 1}


def child(tmp_path: Path, body: str, **job: Any) -> Child:
    script = tmp_path / "child.py"
    script.write_text(START.format(body=body.replace("\n", "\n    ")), encoding="utf-8")
    return Child([sys.executable, str(script)], {**JOB, **job}, label="the tiny engine")


def test_a_child_warms_up_and_measures_as_often_as_it_is_asked(tmp_path: Path) -> None:
    body = """
print("engines talk a lot")
os.write(1, b"even past Python\\n")
calls = []
return Prepared(lambda: calls.append(0), {"threads": os.environ["OMP_NUM_THREADS"]},
    lambda: {"calls": len(calls)})
"""
    with child(tmp_path, body) as running:
        facts = running.start()
        assert facts["threads"] == "1"
        assert facts["warmup_iterations"] == 2
        assert facts["setup_s"] > 0
        first, second = running.measure(5, 0.0), running.measure(3, 0.0)
    assert (len(first["seconds"]), len(second["seconds"])) == (5, 3)
    assert (first["calls"], second["calls"]) == (7, 10)
    assert 5 < first["peak_memory_mib"] < 3000


def test_an_error_of_the_package_arrives_as_it_was_raised(tmp_path: Path) -> None:
    body = 'raise MissingError("is not installed", where="engine", fix="install it")'
    with (
        child(tmp_path, body) as running,
        pytest.raises(MissingError, match=r"^engine: is not installed; install it$"),
    ):
        running.start()


def test_any_other_error_becomes_one_sentence(tmp_path: Path) -> None:
    with (
        child(tmp_path, 'raise ValueError("two\\nlines")') as running,
        pytest.raises(RtsegError, match=r"^failed \(ValueError: two lines\)$"),
    ):
        running.start()


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), 11)", r"signal SIGSEGV; its last words: about to end\)$"),
        ("os._exit(7)", r"exit code 7; its last words: about to end\)$"),
    ],
)
def test_a_crash_is_told_in_one_sentence(tmp_path: Path, end: str, told: str) -> None:
    body = f'print("about to end", file=sys.stderr, flush=True)\n{end}'
    with child(tmp_path, body) as running, pytest.raises(RtsegError, match=told) as caught:
        running.start()
    assert str(caught.value).startswith("the tiny engine ended without a result")
    assert "\n" not in str(caught.value)


def test_a_crash_while_measuring_is_told_too(tmp_path: Path) -> None:
    body = """
calls = []
def call():
    calls.append(0)
    if len(calls) == 4:
        os._exit(9)
return Prepared(call, {})
"""
    with child(tmp_path, body) as running:
        running.start()
        with pytest.raises(RtsegError, match="exit code 9"):
            running.measure(5, 0.0)
        with pytest.raises(RtsegError, match="exit code 9"):
            running.measure(5, 0.0)  # asked again although it is gone


def test_a_killed_child_was_probably_out_of_memory(tmp_path: Path) -> None:
    with (
        child(tmp_path, "os.kill(os.getpid(), 9)") as running,
        pytest.raises(MemoryFullError, match="the tiny engine was killed"),
    ):
        running.start()


def test_what_a_full_memory_raises_is_recognized() -> None:
    assert describe(MemoryError("no room"))["kind"] == "MemoryFullError"
    assert describe(RuntimeError("DefaultCPUAllocator: can't allocate memory"))["kind"] == (
        "MemoryFullError"
    )
    assert describe(ConfigError("is 3", where="batch")) == {
        "kind": "ConfigError", "what": "is 3", "where": "batch", "fix": "",
    }  # fmt: skip
