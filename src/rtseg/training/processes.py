"""The processes of a run: started here, by torchrun or by SLURM; none of them outlives another.

Where no launcher has started them, the first process of a node starts the others with its own
command. From then on each watches the other end: a process that was killed, or that failed alone,
would leave the rest waiting for its share of the next sum.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from torch import distributed

from rtseg.errors import ConfigError, RtsegError

GRACE_SECONDS = 10.0
"""decision: how long a process may take to notice by itself that another one has ended."""
POLL_SECONDS = 0.5
STARTED_BY = "RTSEG_STARTED_BY"
"""Environment variable: id of the process that started this one."""

_started: list[subprocess.Popen[bytes]] = []


def launched() -> tuple[int, int] | None:
    """Return processes per node and nodes as torchrun or srun has started them; None without."""
    if distributed.is_torchelastic_launched():
        here, total = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        return here, total // here
    tasks, job = int(os.environ.get("SLURM_NTASKS", "1")), os.environ.get("SLURM_JOB_NAME")
    if tasks == 1 or job in ("bash", "interactive"):
        return None
    nodes = int(os.environ.get("SLURM_NNODES", "1"))
    return tasks // nodes, nodes


@contextlib.contextmanager
def together(here: int, nodes: int, *, folder: Path) -> Iterator[None]:
    """Run the block in all processes of a run; if one of them ends early, all do.

    Args:
        here: Processes of this node.
        nodes: Number of nodes.
        folder: Run folder, for the message.

    Raises:
        ConfigError: There is no command with which another process could be started, or nobody
            says where the other nodes are.
        RtsegError: Another process has ended.
    """
    if here * nodes > 1 and launched() is None and "LOCAL_RANK" not in os.environ:
        _start_others(here, nodes)
    done = threading.Event()
    if _started or STARTED_BY in os.environ:
        threading.Thread(target=_watch, args=(folder, done), daemon=True).start()
    try:
        yield
    except BaseException as error:
        done.set()
        who = _who_ended(seconds=2.0) if _is_of_an_exchange(error) else ""
        _end_others()
        if _is_of_an_exchange(error):
            raise _lost(who or "another process of the run ended", folder) from None
        raise
    finally:
        done.set()


def _start_others(here: int, nodes: int) -> None:
    """Start the other processes of this node, with the command of this one.

    Their results on stdout would be those of this process once more.
    """
    missing = [
        name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ
    ]
    if nodes > 1 and missing:
        raise ConfigError(
            f"is {nodes}, but the environment does not say {' and '.join(missing)}",
            where="train.num_nodes",
            fix="start with torchrun or srun (see docs/scaling.md), or set it to 1",
        )
    program = sys.modules["__main__"].__spec__
    if program is not None:
        command = [sys.executable, "-m", program.name, *sys.argv[1:]]
    elif Path(sys.argv[0]).is_file():
        command = [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
    else:
        raise ConfigError(
            f"is {here}, but there is no script or command to start other processes with",
            where="train.devices",
            fix="train from the command line or from a file, or set train.devices=1",
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    os.environ.setdefault("NODE_RANK", "0")
    os.environ.update(WORLD_SIZE=str(here * nodes), LOCAL_RANK="0")
    for rank in range(1, here):
        own = {**os.environ, "LOCAL_RANK": str(rank), STARTED_BY: str(os.getpid())}
        _started.append(subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL))


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _watch(folder: Path, done: threading.Event) -> None:
    """End this process when another one has ended and it does not notice by itself."""
    while not done.wait(POLL_SECONDS):
        who = _who_ended()
        if who and not done.wait(GRACE_SECONDS):
            _end_at_once(_lost(who, folder))


def _who_ended(*, seconds: float = 0.0) -> str:
    """Say which process has failed, looking for so many seconds; "" if none has."""
    deadline = time.monotonic() + seconds
    while True:
        for rank, process in enumerate(_started, start=1):
            code = process.poll()
            if code:
                how = (
                    f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                )
                return f"process {rank} of {len(_started) + 1} (counted from 0) {how}"
        if STARTED_BY in os.environ and os.getppid() != int(os.environ[STARTED_BY]):
            return "the first process of the run ended"
        if time.monotonic() >= deadline:
            return ""
        time.sleep(POLL_SECONDS / 5)


def _lost(who: str, folder: Path) -> RtsegError:
    return RtsegError(
        f"{who}, and the others cannot go on without it",
        where=str(folder),
        fix=f"see its message above, if it left one, and run `rtseg train --resume {folder}`",
    )


def _is_of_an_exchange(error: BaseException) -> bool:
    """Return whether processes failed to exchange data; gloo raises what says so in its text."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def _end_others() -> None:
    """Give the processes that this one has started time to end, then kill them."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in _started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        process.kill()


def _end_at_once(error: RtsegError) -> NoReturn:
    """Leave a process that hangs in an exchange, where no exception can reach it."""
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    for process in _started:
        process.kill()
    os._exit(error.exit_code)
