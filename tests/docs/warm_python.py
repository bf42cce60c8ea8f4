"""A Python with torch already imported, for many short programs: each runs in a fork of it.

Importing torch and its companions takes seconds, most of what a block of documentation needs. One
process does it once and waits at a socket; `python` and `rtseg` in a folder `bin` pass it what they
were called with (arguments, folder, environment, standard files) and end with its exit code. The
package itself is imported by each program anew.

    python warm_python.py SOCKET      is the process that waits
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HEAVY = (
    "torch", "torchvision.transforms.v2.functional", "lightning.fabric", "torchmetrics",
    "omegaconf", "pydantic", "scipy.optimize", "typer", "rich.table", "PIL.Image",
)  # fmt: skip
CLIENT = """#!{python} -IS
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
call = {{"program": {program!r}, "words": sys.argv[1:], "cwd": os.getcwd()}}
body = json.dumps({{**call, "env": dict(os.environ)}}).encode()
socket.send_fds(link, [len(body).to_bytes(8, "big")], [0, 1, 2])
link.sendall(body)
answer = link.recv(1)
sys.exit(answer[0] if answer else 70)  # 70: it was ended by a signal
"""


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Start the process, and return a folder with its `python` and `rtseg` while it lives."""
    address, programs = folder / "socket", folder / "bin"
    programs.mkdir()
    for program in ("python", "rtseg"):
        text = CLIENT.format(python=sys.executable, address=str(address), program=program)
        (programs / program).write_text(text, encoding="utf-8")
        (programs / program).chmod(0o755)
    with subprocess.Popen(
        [sys.executable, __file__, str(address)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        try:
            yield programs
        finally:
            server.terminate()


def serve(address: str) -> None:
    """Import what is heavy, then run whatever comes, each in a fork."""
    for name in HEAVY:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that have ended need no waiting for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            link, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                run(link)
            link.close()


def run(link: socket.socket) -> None:
    """Do what a caller asks for, tell it the exit code, and end this process."""
    head, files, _, _ = socket.recv_fds(link, 8, 3)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size:
        body += link.recv(size - len(body))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    code = 1
    try:
        code = call(json.loads(body))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # whatever a program raises, it is told as Python does
        traceback.print_exc()
    atexit.register(link.sendall, bytes([code & 255]))
    sys.exit(code)


def call(request: dict[str, Any]) -> int:
    """Run `rtseg ...`, `python -c TEXT`, or `python -` with a text from standard input."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    program, words = request["program"], request["words"]
    main = sys.modules["__main__"] = ModuleType("__main__")  # reading processes look for its file
    if program == "rtseg":  # its script, as it is installed, so that it can start itself again
        main.__file__ = str(Path(sys.executable).with_name("rtseg"))
        sys.argv = [main.__file__, *words]
        text = Path(main.__file__).read_text(encoding="utf-8")
    elif words[0] == "-c":
        sys.argv, text = ["-c", *words[2:]], words[1]
    else:
        assert words == ["-"], f"python {words}: only -c TEXT and - are known here"
        sys.argv, text = words, sys.stdin.read()
    sys.path[0] = ""
    exec(compile(text, getattr(main, "__file__", "<string>"), "exec"), main.__dict__)
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
