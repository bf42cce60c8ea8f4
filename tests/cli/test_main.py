from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import typer

from rtseg.cli import common
from rtseg.cli import main as frame
from rtseg.cli.common import Shared, event_line, jsonable
from rtseg.cli.main import VERBS, main
from rtseg.errors import (
    CheckFailedError,
    CheckpointError,
    ConfigError,
    DataError,
    InterruptedRunError,
    MemoryFullError,
    MissingError,
    RtsegError,
)

Use = Callable[[Callable[..., Any]], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return what puts a function in the place of the verb `env`."""

    def put(function: Callable[..., Any]) -> None:
        monkeypatch.setattr(frame, "_load", lambda _target: function)

    return put


def failing(error: BaseException) -> Callable[..., Any]:
    def verb(*, shared: Shared) -> None:  # noqa: ARG001 (the contract of a verb)
        raise error

    return verb


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


# ---------------------------------------------------------------- help
def test_help_lists_every_verb_and_imports_no_heavy_package() -> None:
    code = """
import sys
from rtseg.cli.main import main
assert main(["--help"]) == 0
print("LOADED", *(name for name in ("torch", "numpy", "PIL", "pydantic") if name in sys.modules))
"""
    text = python(code)
    assert text.splitlines()[-1].split() == ["LOADED"]
    for name, verb in VERBS.items():
        assert f" {name} " in text
        assert verb.help in text


def test_help_of_no_verb_imports_torch() -> None:
    code = """
import sys
from rtseg.cli.main import VERBS, main
for words in [*([verb] for verb in VERBS), ["data", "check"], ["data", "list"], ["data", "stats"]]:
    assert main([*words, "--help"]) == 0, words
    assert "torch" not in sys.modules, words
print("fine")
"""
    assert python(code).splitlines()[-1] == "fine"


def test_no_argument_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: rtseg" in capsys.readouterr().out


def test_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    import rtseg

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rtseg {rtseg.__version__}\n"


def test_python_m_rtseg_is_the_command() -> None:
    command = [sys.executable, "-m", "rtseg", "evn"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: verb 'evn' is unknown; did you mean one of: env,")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_shared_options(verb: str) -> None:
    loaded = frame._load(VERBS[verb].target)
    functions = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    assert functions
    for function in functions:
        app = typer.Typer()
        app.command()(frame._with_shared(function))
        command = typer.main.get_command(app)
        options = {name for item in command.params for name in item.opts}
        assert {"--json", "--quiet", "--seed", "--device", "--overwrite", "--debug"} <= options
        assert function.__doc__, "the help of the verb"


# ---------------------------------------------------------------- exit codes
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RtsegError("went wrong"), 1, "went wrong"),
        (ConfigError("is odd", where="key", fix="even it"), 2, "key: is odd; even it"),
        (DataError("is broken", where="a.png", fix="copy it"), 3, "a.png: is broken; copy it"),
        (CheckpointError("is damaged"), 4, "is damaged"),
        (MissingError("is not there"), 5, "is not there"),
        (CheckFailedError("differs"), 6, "differs"),
        (MemoryFullError("is full"), 7, "is full"),
        (InterruptedRunError("stopped"), 130, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 7, "out of memory (no more was given); use a smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory."), 7, "out of memory (CUDA out of memory.)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7, "out of memory (Default"),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), 3, "x.png: no space left on"),
        (PermissionError(errno.EACCES, "Permission denied", "y"), 3, "y: permission denied; check"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "z"), 3, "z: not a directory; "),
        (OSError(errno.EIO, "Input/output error"), 1, "unexpected OSError: [Errno 5]"),
        (ZeroDivisionError("division\nby zero"), 1, "unexpected ZeroDivisionError: division by "),
        (AssertionError(), 1, "unexpected AssertionError; run again with --debug"),
    ],
)
def test_every_error_ends_in_one_line_and_its_code(
    use: Use, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    use(failing(error))
    assert main(["env"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert main(["env", "--json"]) == code
    document = json.loads(capsys.readouterr().out)["error"]
    assert document["exit_code"] == code
    assert f"error: {document['message']}\n" == captured.err


def test_the_json_error_has_the_three_parts(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use(failing(DataError("is broken", where="a.png", fix="copy it")))
    main(["env", "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "error": {
            "kind": "DataError", "message": "a.png: is broken; copy it", "exit_code": 3,
            "what": "is broken", "where": "a.png", "fix": "copy it",
        }
    }  # fmt: skip


def test_a_traceback_is_shown_with_debug_only(use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    use(failing(ZeroDivisionError("x")))
    main(["env"])
    assert "Traceback" not in capsys.readouterr().err
    assert main(["env", "--debug"]) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1].startswith("error: unexpected ZeroDivisionError: x")


def test_an_interrupt_from_the_keyboard_is_130(
    use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb(*, shared: Shared) -> None:  # noqa: ARG001 (the contract of a verb)
        signal.raise_signal(signal.SIGINT)

    use(verb)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore it
    try:
        assert main(["env"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3), (6, 6)])
def test_a_verb_may_return_its_exit_code(use: Use, returned: int | None, code: int) -> None:
    def verb(*, shared: Shared) -> int | None:  # noqa: ARG001 (the contract of a verb)
        return returned

    use(verb)
    assert main(["env"]) == code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predikt"], "verb 'predikt' is unknown; did you mean one of: predict"),
        (["--versoin"], "No such option"),
        (["env", "--jsn"], "No such option"),
        (["env", "--seed", "one"], "Invalid value for '--seed'"),
        (["env", "surplus"], "Got unexpected extra argument"),
        (["predict"], "Missing argument '"),
        (["data"], "Missing command."),
        (["data", "chekc"], "No such command 'chekc'"),
    ],
)
def test_wrong_usage_is_2_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_nearest_option_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "a", "b", "--ouput", "c"])
    assert "--output" in capsys.readouterr().err


# ---------------------------------------------------------------- what verbs get
def test_shared_options_reach_the_verb_beside_its_own(use: Use) -> None:
    seen: list[tuple[int, Shared]] = []

    def verb(count: int = 1, *, shared: Shared) -> None:
        seen.append((count, shared))

    use(verb)
    words = ["--json", "--quiet", "--seed", "7", "--device", "cuda:1", "--overwrite", "--debug"]
    assert main(["env", "--count", "5", *words]) == 0
    assert main(["env"]) == 0
    expected = Shared(json=True, quiet=True, seed=7, device="cuda:1", overwrite=True, debug=True)
    assert seen == [(5, expected), (1, Shared())]


def test_json_leaves_only_the_document_on_stdout(
    use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb(*, shared: Shared) -> None:
        shared.log("reading")
        shared.finish({"score": 0.25, "none": float("nan")}, "score 0.25")

    use(verb)
    main(["env", "--json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"score": 0.25, "none": None}
    assert captured.err == "reading\n"
    main(["env"])
    assert capsys.readouterr().out == "score 0.25\n"
    main(["env", "--quiet"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"event": "train", "step": 20, "total": 400, "epoch": 1, "loss": 1.23456},
            "step 20/400  epoch 1  loss 1.235",
        ),
        (
            {"event": "validation", "step": 40, "scores": {"miou": 0.5}, "seconds": 2.0},
            "validation  step 40  seconds 2  miou 0.5",
        ),
        ({"event": "fault", "step": 3, "message": "a.png: bad"}, "fault: a.png: bad"),
    ],
)
def test_events_are_shown_as_lines(event: dict[str, Any], line: str) -> None:
    assert event_line(event) == line


def test_json_values_are_plain() -> None:
    import numpy as np

    class Odd:
        def __str__(self) -> str:
            return "odd"

    value = {1: (np.float32(0.5), np.arange(2)), "inf": float("-inf"), "odd": Odd(), "no": None}
    assert jsonable(value) == {"1": [0.5, [0, 1]], "inf": None, "odd": "odd", "no": None}


def test_progress_off_a_terminal_is_one_line_per_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    with Shared().progress("images") as progress:
        for done in range(1, 26):
            now[0] += 1
            progress(done, 25)
    assert capsys.readouterr().err == "images  10/25\nimages  20/25\n"
    with Shared(quiet=True).progress("images") as progress:
        now[0] += 100
        progress(1, None)
    assert capsys.readouterr().err == ""
