"""The keeper: a session's upkeep in a thread of its own, which neither blocks a landing nor breaks a session.

It is asked after each commit, and once a minute while none lands. It works only in the session that has the topic's
first partition: so of several workers of a product one does it. Two may, for a moment around a rebalance; then one's
commit is refused, and nothing is harmed.

Its thread is not told to be nice to others: one that the scheduler passes over while it holds the interpreter's lock
would stop the landing. It is short instead: tasks rest longer than they work, and Arrow works without that lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import structlog

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import HeadraceError, Held
from headrace.sinks.hold import hold_of
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.places import places_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future
    from threading import Event

    from pyiceberg.catalog import Catalog

    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed
    from headrace.sinks.upkeep.task import Task

# Topics' partitions are numbered from here.
_FIRST_PARTITION = 0
# A task that failed rests so long, then twice as long, and so on up to the other.
FIRST_REST_S = 10.0
LONGEST_REST_S = 600.0
# How often a table is looked after to which the session commits nothing: what waits there has hours of time.
IDLE_S = 60.0
# A session's end does not wait for a file that is being written: it is given up.
CLOSE_S = 0.2

# How often a keeper that waits for its turn looks whether its session has ended.
_POLL_S = 0.1
# Of all products of a process one is kept at a time: so a worker of many has one file's rows in memory, and no more.
_TURN = Lock()

_LOG = structlog.get_logger("headrace.upkeep")


@dataclass(slots=True)
class _Faults:
    """A task's failures in a row."""

    count: int = 0
    again_s: float = float("-inf")

    def failed(self, now_s: float) -> None:
        self.count += 1
        self.again_s = now_s + min(FIRST_REST_S * 2 ** (self.count - 1), LONGEST_REST_S)

    def resting(self, now_s: float) -> bool:
        return now_s < self.again_s


@dataclass(slots=True)
class Keeper:
    """Does a product's upkeep while a session lands. See :class:`headrace.sinks.upkeep.part.Upkeep`.

    Attributes:
        product: the product.
        catalog: the catalog of its domain.
        tasks: what there is to do, in this order.
        ended: is set when the session ends; the tasks look at it.
        clock: seconds that never go back.
    """

    product: Product
    catalog: Catalog
    tasks: tuple[Task, ...]
    ended: Event
    clock: Callable[[], float] = time.monotonic
    _pipeline: Pipeline = field(init=False)
    _working: Future[None] | None = field(default=None, init=False)
    _idle_since_s: float = field(init=False)
    _faults: dict[str, _Faults] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._pipeline = Pipeline(f"keep-{self.product.name}")
        self._faults = {task.name: _Faults() for task in self.tasks}
        self._idle_since_s = self.clock()

    def landed(self, landed: Landed, partitions: Collection[int]) -> None:  # noqa: ARG002 - what landed does not matter
        """Do what is due, unless there is work under way. Returns at once."""
        self._ask(partitions)

    def polled(self, partitions: Collection[int]) -> None:
        """Do what is due, if it was not asked for a while. Returns at once."""
        if self.clock() - self._idle_since_s >= IDLE_S:
            self._ask(partitions)

    def _ask(self, partitions: Collection[int]) -> None:
        if _FIRST_PARTITION not in partitions or (self._working is not None and not self._working.done()):
            return
        self._idle_since_s = now_s = self.clock()
        due = [task for task in self.tasks if not self._faults[task.name].resting(now_s) and task.due(now_s)]
        if due:
            self._working = self._pipeline.submit(lambda: self._work(due))

    def close(self) -> None:
        """End. What is under way is given up at its next step; a commit that was sent may still land."""
        self.ended.set()
        self._pipeline.close(CLOSE_S)

    def _work(self, due: list[Task]) -> None:
        while not _TURN.acquire(timeout=_POLL_S):
            if self.ended.is_set():
                return
        try:
            for task in due:
                if self.ended.is_set():
                    return
                self._do(task)
        finally:
            _TURN.release()

    def _do(self, task: Task) -> None:
        faults = self._faults[task.name]
        try:
            table = load_table(self.catalog, self.product)
            if hold_of(table) is None:
                task.run(table)
                faults.count = 0
        except Held:
            return
        except Exception as error:  # noqa: BLE001 - upkeep breaks no session
            faults.failed(self.clock())
            if not self.ended.is_set():
                self._tell(task, error)

    def _tell(self, task: Task, error: Exception) -> None:
        log = _LOG.bind(product=str(self.product.name), task=task.name)
        if isinstance(error, HeadraceError):
            log.warning("upkeep failed", what=error.what, where=error.where, next=error.hint)
            return
        # A message may hold a value: only the kind of the error and the code's places are logged.
        log.error("upkeep failed by a bug of headrace", kind=type(error).__name__, places=places_of(error))
