"""What is to be told of runs and has not been: at most three moments a run, however long a transport takes.

Counts are of a run as a whole, so a moment that waits is simply replaced by the next of its kind: nothing piles up and
no count is lost. A START that could not be delivered is kept, and goes before whatever is told next of its run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Condition
from typing import TYPE_CHECKING

from headrace.selfserve.lineage.events import Counts, Moment, RunState
from headrace.sinks.watch import Unwatched

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed

__all__ = ["MOST_OWED", "RUNNING_EACH_S", "Outbox", "Parcel"]

# Backends keep every event. OpenLineage's own integration for Flink tells of a running job as often.
RUNNING_EACH_S = 60.0
# More runs than this wait only if sinks end and begin again and again while nothing is delivered.
MOST_OWED = 1_000


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be told of a run now, in order: its id, its product, its moments."""

    run_id: str
    product: Product
    moments: tuple[Moment, ...]


@dataclass(slots=True, eq=False)
class _Run:
    run_id: str
    product: Product
    start: Moment | None
    running: Moment | None = None
    end: Moment | None = None
    counts: Counts = field(default_factory=Counts)
    over: bool = False
    told_s: float | None = None

    def moments(self) -> tuple[Moment, ...]:
        return tuple(moment for moment in (self.start, self.running, self.end) if moment is not None)

    def take(self) -> Parcel:
        parcel = Parcel(self.run_id, self.product, self.moments())
        self.start = self.running = self.end = None
        return parcel


class Outbox(Unwatched):
    """A watcher that keeps what is to be told, for one thread that takes it. Safe for several threads.

    A run begins when a product's sink first runs, and ends with it; a sink that goes on after a fault begins another.
    A sink that ends on a fault before it has run has had a run; one that was stopped before has not.

    Args:
        now: the time, UTC.
        clock_s: a clock that never goes back, in seconds.
        new_id: makes the id of a run.

    Attributes:
        lost: how many moments were given up, because too many waited.
    """

    def __init__(self, now: Callable[[], datetime], clock_s: Callable[[], float], new_id: Callable[[], str]) -> None:
        self.lost = 0
        self._now = now
        self._clock_s = clock_s
        self._new_id = new_id
        self._changed = Condition()
        self._latest: dict[str, _Run] = {}
        self._due: deque[_Run] = deque()
        self._closed = False

    def running(self, product: Product) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.running`."""
        with self._changed:
            latest = self._latest.get(str(product.name))
            if latest is None or latest.over:
                self._begin(product)

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:  # noqa: ARG002 - as a watcher is told
        """See :meth:`headrace.sinks.watch.Watcher.landed`."""
        with self._changed:
            run = self._latest.get(str(product.name)) or self._begin(product)
            if run.over:
                return
            run.counts = Counts(
                rows=run.counts.rows + landed.rows,
                letters=run.counts.letters + landed.letters,
                read_bytes=run.counts.read_bytes + landed.read_bytes,
                written_bytes=run.counts.written_bytes + landed.size_bytes,
                snapshot_id=landed.snapshot_id,
            )
            now_s = self._clock_s()
            if run.told_s is None or now_s - run.told_s >= RUNNING_EACH_S:
                run.told_s = now_s
                run.running = Moment(RunState.RUNNING, self._now(), run.counts)
                self._owe(run)

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.ended`."""
        with self._changed:
            run = self._latest.get(str(product.name))
            if run is None and fault is not None:
                run = self._begin(product)
            if run is None or run.over:
                return
            run.over = True
            # The end says all that a moment before it would.
            run.running = None
            state = RunState.COMPLETE if fault is None else RunState.FAIL
            run.end = Moment(state, self._now(), run.counts, None if fault is None else _text(fault))
            self._owe(run)

    def take(self) -> Parcel | None:
        """Wait for what is to be told and take it; None once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._closed)
            return self._due.popleft().take() if self._due else None

    def keep(self, parcel: Parcel) -> bool:
        """Take back a START that could not be delivered; False if its run has told its end, so that nothing follows."""
        with self._changed:
            runs = (self._latest[str(parcel.product.name)], *self._due)
            run = next((each for each in runs if each.run_id == parcel.run_id), None)
            if run is None or (run.over and run.end is None):
                return False
            run.start = parcel.moments[0]
            return True

    def close(self) -> None:
        """Let `take` end when all is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def owed(self) -> int:
        """Return how many moments wait."""
        with self._changed:
            waiting = {run.run_id: run for run in (*self._due, *self._latest.values())}
            return sum(len(run.moments()) for run in waiting.values())

    def _begin(self, product: Product) -> _Run:
        run = _Run(self._new_id(), product, Moment(RunState.START, self._now(), Counts()))
        self._latest[str(product.name)] = run
        self._owe(run)
        return run

    def _owe(self, run: _Run) -> None:
        if run not in self._due:
            self._due.append(run)
        if len(self._due) > MOST_OWED:
            self.lost += len(self._due.popleft().take().moments)
        self._changed.notify_all()


def _text(fault: HeadraceError) -> str:
    return f"{fault.where}: {fault.what}" if fault.where else fault.what
