"""Call a function in a process of its own: `python -m rtseg.export.alone`.

What an engine does to that process, a crash included, then leaves this one alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from rtseg.errors import RtsegError

QUIET = {"NNCF_CI": "1"}
"""Environment of the process: NNCF sends no statistics about its use anywhere."""


class AloneError(Exception):
    """The function raised or crashed; the text says which."""


def call_alone(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function of a module in a new process.

    Args:
        function: It returns nothing; what comes of it are files.
        *arguments: Anything that can be pickled.

    Raises:
        RtsegError: The function raised it.
        AloneError: The function raised anything else, or crashed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "rtseg.export.alone"],
        input=pickle.dumps((function, arguments)),
        capture_output=True,
        env={**os.environ, **QUIET},
        check=False,
    )
    if done.returncode < 0:
        raise AloneError(f"crashed (signal {-done.returncode})")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise AloneError(f"failed ({lines[-1][:200]})")
    if done.stdout:
        error: RtsegError = pickle.loads(done.stdout)
        raise error


def main() -> None:
    """Call what stands in the standard input, and write an error of rtseg to the output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what engines print
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        function(*arguments)
    except RtsegError as error:
        output.write(pickle.dumps(error))
    output.close()


if __name__ == "__main__":
    main()
