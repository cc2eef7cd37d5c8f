"""Server processes: starting them apart from the terminal, knowing them again, ending them within a bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from headrace.selfserve.stack.records import Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from headrace.selfserve.stack.records import State

# What a server gets between SIGTERM and SIGKILL. Kafka closes its logs in 1-2 s; a busy disk may need ten times that.
STOP_TIMEOUT_S = 30.0
LOOK_INTERVAL_S = 0.02
LOG_LINES = 20
LOG_END_BYTES = 64 * 1024
SUPERVISOR = "headrace.selfserve.stack.supervisor"

# Children of this process. Held because a Popen that is collected while its process runs warns and does not reap it,
# and because a supervisor's pipe is to stay open as long as this process lives.
_children: list[subprocess.Popen[bytes]] = []


def this_process() -> Process:
    """Return the identity of the calling process."""
    me = psutil.Process()
    return Process(me.pid, me.create_time())


def is_alive(process: Process) -> bool:
    """Return whether this very process runs. One that ended and waits to be reaped by its parent does not."""
    return _find(process) is not None


def start(command: Sequence[str], *, folder: Path, log: Path) -> Process:
    """Start a server in a session of its own: a Ctrl-C in the terminal does not reach it, and it outlives its starter.

    It gets a bare environment: no secret of the caller ends up in a server, and no variable of the caller changes it.
    One earlier log is kept beside the new one, as ``<log>.1``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    _reap()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(child)
    return Process(child.pid, psutil.Process(child.pid).create_time())


def server_environment() -> dict[str, str]:
    """Return the environment variables of a server: enough for Java to find its temporary folder and read any path."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}


def state_argument(state: Path) -> str:
    """Return the Java argument by which every server of a stack is known."""
    return f"-Dheadrace.state={state}"


def owner_argument(state: Path, owner: Process) -> str:
    """Return the Java argument by which the servers of a stack that end with ``owner`` are known."""
    return f"-Dheadrace.ends-with={owner.pid}:{owner.started_at!r}:{state}"


def supervise(stack: str, state: State, owner: Process) -> None:
    """Start the supervisor that ends the servers of ``owner``, this process, when it ends.

    ``stack`` is the kind of stack (``embedded`` or ``compose``), which decides how they are ended.

    It is to be started before the servers, so that there is no moment at which they could be left behind.
    """
    command = [sys.executable, "-P", "-m", SUPERVISOR, stack, str(state.folder), str(owner.pid), repr(owner.started_at)]
    if any(child.args == command and child.poll() is None for child in _children):
        return
    log = state.log("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # Its standard input is a pipe that this process holds and never writes to: it closes when this process ends,
        # whatever ends it. The session of its own keeps a Ctrl-C from ending it before the servers.
        supervisor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(supervisor)


def end(processes: Iterable[Process], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End processes with SIGTERM, and after ``timeout_s`` seconds with SIGKILL. Returns when none runs.

    A process that has ended already is skipped; another one that has got its pid is never touched.
    """
    left = list(processes)
    for signalled in (psutil.Process.terminate, psutil.Process.kill):
        for found in filter(None, map(_find, left)):
            with suppress(psutil.NoSuchProcess):
                signalled(found)
        deadline = time.monotonic() + timeout_s
        while (left := [process for process in left if is_alive(process)]) and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL_S)
    _reap()


def find_by_argument(argument: str) -> list[Process]:
    """Return this user's processes that were started with exactly this argument.

    It finds servers whose record was lost: their starter was killed before it could write, or the folder was deleted.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and argument in process.cmdline():
                found.append(Process(process.pid, process.create_time()))
        except psutil.Error:
            continue
    return found


def last_lines(log: Path, count: int = LOG_LINES) -> str:
    """Return the end of a log for an error message; a missing log is said to be so."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
            text = file.read(LOG_END_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return "(there is no log)"
    return "\n".join(text.splitlines()[-count:]) or "(the log is empty)"


def _find(process: Process) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        if not process.is_same(Process(found.pid, found.create_time())):
            return None
        # A killed Java is a zombie already while its other threads still hold its ports and its data's lock.
        has_ended = found.status() == psutil.STATUS_ZOMBIE and found.num_threads() <= 1
    except psutil.Error:
        return None
    return None if has_ended else found


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
