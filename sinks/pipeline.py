"""A pipeline: one daemon thread that does what it is given, in order.

``ThreadPoolExecutor`` would do but for one thing: its threads are joined when the process ends, however long a request
to a catalog takes. A stop is bounded here, and a landing that is cut off is what the protocol is made for.
"""

from __future__ import annotations

from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class Pipeline:
    """Does jobs one after the other in a thread of its own, which ends with :meth:`close` or with the process."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Queue a job and return its future."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        return future

    def close(self, timeout_s: float) -> None:
        """Cancel what has not begun, and wait at most so long for what has."""
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job[0].cancel()
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (queued := self._jobs.get()) is not None:
            future, job = queued
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - carried to whoever asks for the result
                future.set_exception(error)
