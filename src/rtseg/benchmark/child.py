"""One engine per process: what parent and child say to each other, in lines of JSON.

The child reads its job, prepares it, warms it up and says so; then it measures one round for every
line that it gets, until there are no more. So several children can take turns, and an engine that
crashes takes nothing along but itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rtseg import errors
from rtseg.benchmark.latency import Protocol, time_calls, warm_up
from rtseg.errors import MemoryFullError, RtsegError


class Prepared(NamedTuple):
    """What a child measures.

    call: does the work once, and returns when it is done on the device.
    facts: what the report says about the engine, ready for JSON.
    finish: called after the last round; its facts are added.
    """

    call: Callable[[], object]
    facts: dict[str, Any]
    finish: Callable[[], dict[str, Any]] = dict


# ---------------------------------------------------------------- the child
def serve(prepare: Callable[[dict[str, Any]], Prepared]) -> None:
    """Be the child: prepare the job on stdin, answer on stdout, and end with stdin."""
    # Engines print what they like; it goes to stderr, and the answers have their own file.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        job = json.loads(sys.stdin.readline())
        began = time.perf_counter()
        prepared = prepare(job)
        setup = time.perf_counter() - began
        warm = warm_up(prepared.call, Protocol(*job["protocol"]))
        say(
            answers,
            **prepared.facts,
            setup_s=setup,
            first_call_ms=warm[0] * 1000,
            warmup_iterations=len(warm),
        )
        for line in sys.stdin:
            iterations, seconds = json.loads(line)
            timed = time_calls(prepared.call, iterations=iterations, seconds=seconds)
            say(answers, **timed._asdict(), **prepared.finish(), peak_memory_mib=peak_memory())
    except Exception as error:  # whatever an engine raises is told to the parent
        say(answers, error=describe(error))


def say(answers: Any, **facts: Any) -> None:
    """Write one line of JSON."""
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


def describe(error: Exception) -> dict[str, str]:
    """Return an error as class name of `rtseg.errors` and the parts of its sentence."""
    if isinstance(error, RtsegError):
        kind, what, where, fix = type(error).__name__, error.what, error.where, error.fix
        return {"kind": kind, "what": what, "where": where, "fix": fix}
    name, text = type(error).__name__, " ".join(str(error).split())[:300]
    memory = isinstance(error, MemoryError) or "memory" in text.lower() or "OutOfMemory" in name
    if memory:
        fix = "use a smaller batch or size"
        return {"kind": "MemoryFullError", "what": f"out of memory ({text})", "fix": fix}
    return {"kind": "RtsegError", "what": f"failed ({name}: {text})"}


def peak_memory() -> float:
    """Return the most memory in MiB that this process has held: on CUDA the device's, else RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    status = Path("/proc/self/status")
    if status.is_file():  # of this process alone; getrusage also knows that of its parent
        lines = status.read_text(encoding="utf-8").splitlines()
        kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        if kib:
            return kib[0] / 1024
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# ---------------------------------------------------------------- the parent
class Child:
    """A process that measures one job.

    Args:
        command: Starts a process that calls `serve`.
        job: JSON-ready; `protocol` holds the fields of a `Protocol`, `threads` a number or None.
        label: What errors call it.
    """

    def __init__(
        self, command: Sequence[str], job: Mapping[str, Any], *, label: str = "the engine"
    ) -> None:
        self.label = label
        self._words = tempfile.TemporaryFile(  # noqa: SIM115 (close closes it)
            "w+", encoding="utf-8", errors="replace"
        )
        environment = dict(os.environ)
        if job.get("threads"):
            environment["OMP_NUM_THREADS"] = str(job["threads"])
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words,
            text=True, env=environment,
        )  # fmt: skip
        self._job = dict(job)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> dict[str, Any]:
        """Hand over the job and wait until it is warm; return the facts of the engine.

        Raises:
            RtsegError: What the child raised, or that it ended without an answer.
        """
        return self.ask(self._job)

    def measure(self, iterations: int, seconds: float) -> dict[str, Any]:
        """Measure one round; return `seconds` of the calls, `processor_seconds` and peak memory.

        Raises:
            RtsegError: As for `start`.
        """
        return self.ask([iterations, seconds])

    def ask(self, question: Any) -> dict[str, Any]:
        """Send one line and return the answer.

        Raises:
            RtsegError: What the child raised, or that it ended without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            parts = answer["error"]
            raised: RtsegError = getattr(errors, parts.pop("kind"))(parts.pop("what"), **parts)
            raise raised
        return answer

    def close(self) -> None:
        """End the process, at once if it does not end by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _death(self) -> RtsegError:
        """Return the sentence about a process that ended without an answer."""
        code = self._process.wait()
        self._words.seek(0)
        lines = [line.strip() for line in self._words if line.strip()]
        last = f"; its last words: {lines[-1][:200]}" if lines else ""
        if code == -signal.SIGKILL:
            return MemoryFullError(
                f"{self.label} was killed, which is what a full memory does",
                fix="use a smaller batch or size",
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return RtsegError(f"{self.label} ended without a result ({how}{last})")
