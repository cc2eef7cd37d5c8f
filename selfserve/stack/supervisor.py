"""The process that ends servers when the one that asked for them ends: ``… supervisor KIND STATE PID STARTED_AT``.

Its standard input is a pipe held by that owner. The kernel closes it when the owner ends, by SIGKILL too, on every
platform. Only servers whose record names this owner are ended: if they were stopped and started again by somebody else
in the meantime, they are that one's.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headrace.selfserve.stack import processes
from headrace.selfserve.stack.records import Process, State

if TYPE_CHECKING:
    from collections.abc import Callable

# A child that the owner forked holds a copy of the pipe, so the owner's own life is looked at as well.
LOOK_INTERVAL_S = 0.5
# A command that holds the lock meanwhile is starting or stopping these servers; it may not block their end for ever.
LOCK_TIMEOUT_S = 60.0


def main(state: State, owner: Process, end: Callable[[State, Process], None]) -> None:
    """Wait for the owner's end, then call ``end`` under the stack's lock."""
    wait_for_end(owner)
    lock = FileLock(state.lock)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        print(f"the lock is held for over {LOCK_TIMEOUT_S:.0f} s: ending the servers without it")  # noqa: T201 - its log
    try:
        end(state, owner)
    finally:
        lock.release()


def wait_for_end(owner: Process) -> None:
    """Return when standard input is closed or the owner does not run any more."""
    while processes.is_alive(owner):
        readable, _, _ = select.select([sys.stdin], [], [], LOOK_INTERVAL_S)
        if readable and not os.read(sys.stdin.fileno(), 1):
            return


def end_servers_of(state: State, owner: Process) -> None:
    """End every server process that is to end with ``owner``, recorded or not, and note that it is stopped."""
    owned = {name: record for name, record in state.records().items() if owner.is_same(record.ends_with)}
    unrecorded = processes.find_by_argument(processes.owner_argument(state.folder, owner))
    if owned:
        state.remove_endpoints()
    processes.end([*(record.process for record in owned.values() if record.process), *unrecorded])
    for name, record in owned.items():
        state.write_record(name, record.stopped())


def end_of(kind: str) -> Callable[[State, Process], None]:
    """Return what ends the servers of a kind of stack; all that it needs is loaded now, whatever happens until then."""
    if kind == "embedded":
        return end_servers_of
    # Here alone, because the embedded stack's supervisor is to stay small.
    from headrace.selfserve.stack.compose import stop_containers_of  # noqa: PLC0415

    return stop_containers_of


if __name__ == "__main__":
    kind, folder, pid, started_at = sys.argv[1:]
    main(State(Path(folder)), Process(int(pid), float(started_at)), end_of(kind))
