"""Sinks in processes of their own, which tests stop, freeze and kill. They are forked from one that has all imported.

A worker that is started as a program needs seconds for its imports; one that is forked begins at once, so that a test
can afford to kill many.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults import worker
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = [worker.__name__]
_CONTEXT.set_forkserver_preload(_PRELOADED)
# A process's end is told once: two threads that ask at the same moment would take it from each other.
_ASKING = threading.Lock()


def preload(module: str) -> None:
    """Have one more module imported before processes are forked. There is one server, and it knows one list of them."""
    _PRELOADED.append(module)
    _CONTEXT.set_forkserver_preload(_PRELOADED)


@dataclass
class Process:
    """A product's sink in a process of its own, with its log in a file.

    Attributes:
        log: its log.
        landed: the rows of each commit that it has told of.
    """

    log: Path
    _process: ForkServerProcess
    _told: Connection
    landed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.landed.append(self._told.recv())

    @property
    def status(self) -> int | None:
        """Its exit status, minus the signal's number if one killed it; None while it runs."""
        with _ASKING:
            return self._process.exitcode

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.status is None

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the process's end and return its exit status."""
        assert eventually(lambda: not self.runs, within_s=timeout_s), f"it does not end: {self.text()}"
        self._reader.join(PATIENCE_S)
        status = self.status
        assert status is not None
        return status

    def lands(self) -> bool:
        """Wait for the process's first commit; False if it ends without one or takes too long."""
        eventually(lambda: bool(self.landed) or not self.runs)
        return bool(self.landed)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it still runs."""
        pid = self._process.pid
        assert pid is not None
        # Its parent is the server that forks: an ended one is gone at once, and its number may be given again.
        if self.runs:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        with _ASKING:
            if self._process.exitcode is None:
                self._process.kill()
        self.wait()

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(encoding="utf-8")

    def logged(self, text: str) -> bool:
        """Tell whether the log holds a text."""
        return text in self.text()


def started(mesh: Mesh, product: str, log: Path, **options: Any) -> Process:
    """Start a sink in a process of its own, and return once it hears SIGTERM: told earlier, it would be killed.

    ``tests/faults/worker.py`` tells the options.
    """
    told, tell = _CONTEXT.Pipe(duplex=False)
    given = worker.Options(root=mesh.root, environment=mesh.environment.name, product=product, log=log, **options)
    process = _CONTEXT.Process(target=worker.main, args=[given, tell], daemon=True)
    log.touch()
    with _ASKING:
        process.start()
    tell.close()
    assert told.poll(PATIENCE_S), "the process does not begin"
    told.recv()
    return Process(log, process, told)


@contextmanager
def process(mesh: Mesh, product: str, log: Path, **options: Any) -> Iterator[Process]:
    """Run a sink in a process of its own while the block lasts; then kill it if it still runs."""
    begun = started(mesh, product, log, **options)
    try:
        yield begun
    finally:
        begun.kill()
