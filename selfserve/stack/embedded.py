"""The embedded stack: Kafka and the registry as processes of this machine, their data in the environment's folder.

``kafka/`` and ``registry/`` hold data, ``logs/`` the logs, ``servers.json`` ports and processes. Every step may be cut
off by a kill: the next ``up`` or ``down`` finds the processes by their record or, where that was not written, by their
command line.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.selfserve.stack import Endpoints, ServerStatus, processes
from headrace.selfserve.stack.artefacts import default_store
from headrace.selfserve.stack.kafka import CLIENT_PORT, Kafka
from headrace.selfserve.stack.launcher import Launcher, await_answer
from headrace.selfserve.stack.locks import disk_errors, held
from headrace.selfserve.stack.ports import HOST
from headrace.selfserve.stack.records import State
from headrace.selfserve.stack.registry import PORT, Registry, url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headrace.selfserve.stack import Progress
    from headrace.selfserve.stack.artefacts import Store
    from headrace.selfserve.stack.records import Process
    from headrace.selfserve.stack.server import Server

# Another start may hold the lock while it fetches its programs over a slow line.
LOCK_TIMEOUT_S = 1800.0


class EmbeddedStack:
    """Kafka and the registry of one environment.

    Args:
        state: the environment's folder.
        store: where the programs come from.
    """

    def __init__(self, state: Path, store: Store) -> None:
        self._state = State(state)
        self._store = store
        self._kafka = Kafka()
        self._registry = Registry()

    def up(self, *, die_with_parent: bool = False, progress: Progress) -> Endpoints:
        """Start what does not run, and return when both servers answer. See ``Stack.up``."""
        with self._locked(progress):
            self._end_leftovers(progress)
            running = [server for server in self._servers if self._runs(server)]
            missing = [server for server in self._servers if server not in running]
            for server in running:
                progress(f"{server.name} runs already{self._lifetime(server)}")
                await_answer(self._state, server)
            if missing:
                self._start(missing, progress, die_with_parent=die_with_parent)
            endpoints = Endpoints(
                f"{HOST}:{self._state.record(self._kafka.name).ports[CLIENT_PORT]}",
                url(self._state.record(self._registry.name).ports[PORT]),
            )
            self._state.write_endpoints(endpoints)
        return endpoints

    def down(self, progress: Progress) -> None:
        """Stop both servers and keep their data. See ``Stack.down``."""
        if not self._state.folder.exists():
            progress("nothing runs")
            return
        with self._locked(progress):
            self._state.remove_endpoints()
            self._end_leftovers(progress)
            running = [server.name for server in self._servers if self._runs(server)]
            begun = time.monotonic()
            if running:
                progress(f"stopping {' and '.join(running)}")
            self._stop(self._servers)
            progress(f"stopped in {time.monotonic() - begun:.1f} s" if running else "nothing runs")

    def status(self) -> tuple[ServerStatus, ...]:
        """Return what the records and this machine's processes say. See ``Stack.status``."""
        return tuple(self._status(server) for server in self._servers)

    @property
    def _servers(self) -> tuple[Server, ...]:
        return (self._kafka, self._registry)

    def _start(self, missing: Sequence[Server], progress: Progress, *, die_with_parent: bool) -> None:
        self._state.remove_endpoints()
        programs = self._store.fetch(progress)
        owner = processes.this_process() if die_with_parent else None
        if owner:
            processes.supervise("embedded", self._state, owner)
        launcher = Launcher(self._state, programs, owner, progress)
        try:
            for server in missing:
                launcher.start(server)
            for server in missing:
                launcher.finish(server)
        except BaseException:
            # At a Ctrl-C too: a start that failed leaves nothing behind, not even a process that has no record yet.
            self._stop(missing)
            processes.end(self._leftovers())
            raise

    def _stop(self, servers: Sequence[Server]) -> None:
        records = {server.name: self._state.record(server.name) for server in servers}
        processes.end(record.process for record in records.values() if record.process)
        for name, record in records.items():
            if record.process:
                self._state.write_record(name, record.stopped())

    def _end_leftovers(self, progress: Progress) -> None:
        leftovers = self._leftovers()
        if leftovers:
            progress(f"ending {len(leftovers)} server processes that an earlier command left behind")
            processes.end(leftovers)

    def _leftovers(self) -> list[Process]:
        """Return running servers that have no record, and those whose owner ended together with its supervisor."""
        recorded = [record for record in self._state.records().values() if record.process]
        orphans = [r.process for r in recorded if r.process and r.ends_with and not processes.is_alive(r.ends_with)]
        strays = [
            stray
            for stray in processes.find_by_argument(processes.state_argument(self._state.folder))
            if not any(stray.is_same(record.process) for record in recorded)
        ]
        return [process for process in [*orphans, *strays] if processes.is_alive(process)]

    def _status(self, server: Server) -> ServerStatus:
        record = self._state.record(server.name)
        address = f"{HOST}:{record.ports[server.port_names[0]]}" if record.ports else ""
        log = str(self._state.log(server.name))
        if record.process is None:
            return ServerStatus(server.name, "stopped", None, address, log)
        if processes.is_alive(record.process):
            return ServerStatus(server.name, "running", record.process.pid, address, log)
        return ServerStatus(server.name, "crashed", None, address, log)

    def _runs(self, server: Server) -> bool:
        process = self._state.record(server.name).process
        return process is not None and processes.is_alive(process)

    def _lifetime(self, server: Server) -> str:
        owner = self._state.record(server.name).ends_with
        return f", and ends with process {owner.pid}" if owner else ""

    @contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        holder = "another headrace starts or stops this stack"
        with disk_errors(), held(self._state.lock, LOCK_TIMEOUT_S, holder, progress):
            yield


def embedded_stack(state: Path) -> EmbeddedStack:
    """Return the embedded stack of an environment's state folder, with the programs of this user's cache."""
    return EmbeddedStack(state, default_store())
