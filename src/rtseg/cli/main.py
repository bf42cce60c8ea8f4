"""The command `rtseg`: a table of verbs, loaded when they are used, and the error boundary.

A verb is added by its file and one line in `VERBS`; what its function looks like stands at the top
of `common.py`. A verb with sub-verbs (`data list`) names a mapping from sub-verb to function.
Only the verb that is called is imported, so `rtseg --help` loads neither torch nor NumPy.

Exit codes: 0 done; 1 unexpected error; 2 usage or configuration; 3 data; 4 checkpoint; 5 something
optional is missing; 6 a check failed; 7 out of memory; 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

import typer

from rtseg.cli.common import Shared, print_json
from rtseg.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    MemoryFullError,
    RtsegError,
    nearest,
)

Function = Callable[..., int | None]


class Verb(NamedTuple):
    """Where a verb's function is (`module:name`), and its line in `rtseg --help`."""

    target: str
    help: str


VERBS: dict[str, Verb] = {
    "demo": Verb("rtseg.cli.demo:demo", "Train, score and show the embedded example."),
    "train": Verb("rtseg.cli.train:train", "Train a recipe into a run folder, or resume a run."),
    "val": Verb("rtseg.cli.val:val", "Score a checkpoint on a data set."),
    "compare": Verb("rtseg.cli.compare:compare", "Show runs side by side on one page."),
    "predict": Verb("rtseg.cli.predict:predict", "Segment images, folders or lists of images."),
    "benchmark": Verb("rtseg.cli.benchmark:benchmark", "Measure, compare and draw speeds."),
    "export": Verb("rtseg.cli.export:export", "Write a network as a file for other engines."),
    "data": Verb("rtseg.cli.data:data", "Find, check, draw, convert and cache data sets."),
    "models": Verb("rtseg.cli.models:models", "List the networks, or explain one."),
    "env": Verb("rtseg.cli.env:env", "Show versions and hardware, for bug reports."),
}
# What the state of a disk or folder causes, not the program.
_STORAGE = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception leaves this function.

    Args:
        arguments: What follows `rtseg`; None for the arguments of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
            return _run(words or ["--help"])
    except SystemExit as error:  # typer, when the reader of a pipe has gone
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # the boundary: whatever happens ends in one line and a code
        return _report(error, words)


def _run(words: list[str]) -> int:
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        close = ", ".join(nearest(verb, VERBS))
        raise ConfigError(f"verb {verb!r} is unknown", fix=f"did you mean one of: {close}?")
    command = typer.main.get_command(_app(verb))
    code = command.main(args=words, prog_name="rtseg", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _app(chosen: str | None) -> typer.Typer:
    """Build the command with the real function of one verb; of the others only the help line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_options)
    for name, verb in VERBS.items():
        loaded = _load(verb.target) if name == chosen else _placeholder
        if isinstance(loaded, Mapping):
            group = typer.Typer(help=verb.help)
            group.callback()(_placeholder)
            for sub, function in loaded.items():
                group.command(sub)(_with_shared(function))
            app.add_typer(group, name=name)
        elif name == chosen:
            app.command(name)(_with_shared(loaded))
        else:
            app.command(name, help=verb.help)(loaded)
    return app


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _placeholder() -> None:
    """Stand in for a verb that is not called."""


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version  # 50 ms that no verb need wait for

        print(f"rtseg {version('rtseg')}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Real-time segmentation of street scenes: train, score, predict.

    `rtseg VERB --help` explains a verb.
    """


def _with_shared(function: Function) -> Function:
    """Replace the parameter `shared` of a verb by the options that every verb has."""
    signature = inspect.signature(function, eval_str=True)
    shared = inspect.signature(Shared, eval_str=True).parameters.values()
    own = [item for item in signature.parameters.values() if item.name != "shared"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [item.replace(kind=keyword) for item in [*own, *shared]]
    names = [field.name for field in fields(Shared)]

    @functools.wraps(function)
    def run(**values: Any) -> int | None:
        options = Shared(**{name: values.pop(name) for name in names})
        try:
            return function(**values, shared=options)
        except KeyboardInterrupt:  # typer would end without a word
            raise InterruptedRunError("interrupted") from None

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _show_warning(usual: Callable[..., None], message: Warning | str, *given: Any) -> None:
    """Print what users of weights have to know as one line, and other warnings as usual."""
    if type(message).__name__ == "WeightsNotice":  # by name: its package is slow to import
        print(f"note: {message}", file=sys.stderr, flush=True)
    else:
        usual(message, *given)


# ---------------------------------------------------------------- errors
class Failure(NamedTuple):
    """An error as the user sees it; `kind` names its class."""

    kind: str
    message: str
    exit_code: int
    what: str = ""
    where: str = ""
    fix: str = ""


def explain(error: BaseException) -> Failure:
    """Choose the sentence and the exit code of any exception."""
    known = _as_rtseg_error(error)
    if known is not None:
        return Failure(
            type(known).__name__, _one_line(str(known)), known.exit_code,
            known.what, known.where, known.fix,
        )  # fmt: skip
    name = type(error).__name__
    if _is_usage_error(error):
        message = _one_line(error.format_message())  # type: ignore[attr-defined]
        return Failure("UsageError", f"{message} See --help.", 2, message, fix="see --help")
    text = _one_line(str(error))
    fix = "run again with --debug for the traceback, and report it with the output of `rtseg env`"
    return Failure(name, f"unexpected {name}{': ' if text else ''}{text}; {fix}", 1)


def _as_rtseg_error(error: BaseException) -> RtsegError | None:
    if isinstance(error, RtsegError):
        return error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return InterruptedRunError("interrupted")
    if _is_memory_error(error):
        return MemoryFullError(
            f"out of memory ({_one_line(str(error))[:120] or 'no more was given'})",
            fix="use a smaller batch or image size, close other programs, or another --device",
        )
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return DataError(
            (error.strerror or str(error)).lower(),
            where=str(error.filename or ""),
            fix="check free space and permissions, or choose another folder",
        )
    return None


def _is_memory_error(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_usage_error(error: BaseException) -> bool:
    # By name: the class lives in click or inside typer, depending on typer's version.
    return any(cls.__name__ == "ClickException" for cls in type(error).__mro__)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _report(error: BaseException, words: Sequence[str]) -> int:
    """Print one line, the traceback with `--debug`, the document with `--json`; return the code."""
    failure = explain(error)
    if "--debug" in words:
        traceback.print_exception(error)
    print(f"error: {failure.message}", file=sys.stderr, flush=True)
    if "--json" in words:
        print_json({"error": failure._asdict()})
    return failure.exit_code
