"""One session of a product's sink: from joining the consumer group to leaving it. The loop decides, helpers compute.

Two threads: this one reads; the pipeline's one decodes, writes and commits, in the order in which it was asked. So
while one batch lands the next one is read, and at most two batches are in memory.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Bug, Unavailable
from headrace.sinks.batch import Batch
from headrace.sinks.glance import Glance
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.release import Release
from headrace.sinks.stops import gap, topic_made_anew
from headrace.sinks.watermark import Watermark
from headrace.sinks.work import Work
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event
    from types import TracebackType

    from headrace.sinks.catchup import Targets
    from headrace.sinks.landing import Landed
    from headrace.sinks.work import Works
    from headrace.streams.reader import Polled, Reader, Rebalance

# How long one poll waits: short, so that a batch lands when it is due and a stop is obeyed at once.
POLL_S = 0.1
# On revoke the open batch lands within this, or is dropped whole: the group waits for it.
REVOKE_S = 5.0
# On stop the last commit may take this long.
STOP_S = 10.0
# How often a sink that waits for others' partitions looks into the table.
LOOK_S = 0.5
# How often it is said that the broker is out of reach, while it is.
TELL_S = 10.0
# How often it is told how far the session's partitions are.
REACH_S = 1.0


class Session:
    """Reads a product's partitions into its table until told to stop, or until what was there at the start is landed.

    Args:
        works: what it works with.
        open_reader: opens a reader that tells this session of rebalances.

    Raises, from :meth:`run`:
        Stale: another worker has moved the table: a new session starts from the ledger again.
        Unavailable: the reader broke, or nothing is known of the table: a new session, a little later.
        ProductStopped: only an operator can decide how to go on.
    """

    def __init__(self, works: Works, open_reader: Callable[[Rebalance], Reader]) -> None:
        self._works = works
        self._base: Ledger | None = None
        self._ledger: Ledger | None = None
        self._batch = Batch({})
        self._landing: Future[tuple[Landed, float]] | None = None
        self._work = Work(works)
        self._watermark = Watermark()
        self._reached: float | None = None
        self._abandon = works.abandon
        self._look_s = 0.0
        self._tell_s = 0.0
        self._reach_s = 0.0
        self._paused = False
        self._release = Release(works.product, works.desk.catalog, works.patience)
        self._limits = works.limits
        self._grace_s = REVOKE_S
        self._pipeline = Pipeline(f"land-{works.product.name}")
        self._upkeep = works.upkeep(self._pipeline.submit)
        self._glance = Glance(works.desk, self._pipeline.submit)
        self._reader = open_reader(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abandon.set()
        self._upkeep.close()
        self._batch = Batch({})
        # The reader is left first: its revocation finds nothing to land, and others take over sooner.
        self._reader.close()
        self._pipeline.close(self._grace_s)
        if self._reached is not None:
            # The next session may have other partitions, or none.
            self._works.reached(None)
        if error is None or isinstance(error, Unavailable):
            self._last_word()

    def run(self, stop: Event, targets: Targets | None = None) -> None:
        """Read and land until ``stop`` is set, then land once more; or until the table holds the targets.

        Raises:
            Unavailable: also if the last batch did not land within 10 s of the stop; it is read again next time.
        """
        while not stop.is_set():
            self._take(self._reader.poll(POLL_S))
            self._collect()
            self._tell_watermark()
            self._look_whether_it_moved()
            self._upkeep.polled(self._batch.positions.keys())
            if self._release.came():
                self._resume()
            if targets is not None and self._caught_up(targets):
                return
            if self._due(targets):
                self._land_or_pause()
        self._drain(STOP_S)
        self._grace_s = 0.0
        if self._batch or self._landing is not None:
            raise Unavailable(
                "stopped before the last batch was committed",
                where=f"topic {self._works.product.topic}",
                hint="nothing is lost: it is read again at the next start",
            )

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Start new partitions where the table's ledger says. See :class:`headrace.streams.reader.Rebalance`.

        Raises:
            ProductStopped: the topic was made anew, or Kafka has deleted what the table does not hold yet.
            Unavailable: Kafka, catalog or storage does not answer.
        """
        product = self._works.product
        topic = self._works.admin.topic(product.topic)
        lows = {partition: marks.low for partition, marks in self._works.admin.watermarks(topic).items()}
        if not lows.keys() >= set(partitions):
            raise Unavailable(
                "partitions are assigned that the broker asked does not know yet",
                where=f"topic {product.topic}",
                hint="it is asked again",
            )
        table = load_table(self._works.desk.catalog, product)
        ledger = read_ledger(table, product, self._works.desk.branch) or Ledger.begin(topic.id, lows)
        if ledger.topic_id != topic.id:
            raise topic_made_anew(product, ledger.topic_id, topic.id)
        for partition, first, low in gaps(ledger, {partition: lows[partition] for partition in partitions}):
            raise gap(product, partition, first, low)
        if self._works.desk.on_main and self._release.needed(table):
            # What is not read cannot be dropped by a rebalance: workers of a held product leave each other in peace.
            self._pause()
        self._base = self._ledger = ledger
        positions = {partition: ledger.next(partition) for partition in partitions}
        self._batch.positions.update(positions)
        return positions

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Land the open batch within 5 s, or drop it whole.

        Raises:
            Unavailable: it was dropped: the session must start anew from the ledger.
        """
        if not lost and not self._abandon.is_set():
            self._drain(REVOKE_S)
        if self._batch or self._landing is not None:
            raise Unavailable(
                "partitions were taken away before their batch had landed: it was dropped",
                where=f"topic {self._works.product.topic}",
                hint="whoever has them now reads it again, from the table's ledger",
            )
        for partition in partitions:
            self._batch.positions.pop(partition, None)
        self._watermark.revoked(partitions)

    def _take(self, polled: Polled) -> None:
        now_s = time.monotonic()
        for frame in polled.frames:
            self._batch.add(frame, self._pipeline.submit(partial(self._work.decode, frame)), now_s)
        for partition, position in polled.ends.items():
            self._batch.end_of_partition(partition, position, now_s)
        self._watermark.ended(polled.ends)
        if polled.trouble is None:
            if self._ledger is not None and not self._paused:
                self._watermark.looked(self._batch.positions, self._ledger, time.time())
        elif now_s >= self._tell_s:
            self._tell_s = now_s + TELL_S
            self._works.patience.report(polled.trouble)

    def _tell_watermark(self) -> None:
        now_s = time.monotonic()
        reached = self._watermark.of(self._batch.positions)
        if now_s < self._reach_s or reached == self._reached:
            return
        self._reach_s, self._reached = now_s + REACH_S, reached
        self._works.reached(reached)

    def _look_whether_it_moved(self) -> None:
        if not self._batch and self._landing is None and self._base is not None:
            self._glance.at(self._batch.positions, self._base)

    def _pause(self) -> None:
        self._paused = True
        self._reader.pause()

    def _resume(self) -> None:
        self._paused = False
        self._reader.resume()

    def _due(self, targets: Targets | None) -> bool:
        if self._batch.due(self._limits, time.monotonic()):
            return True
        # Nobody waits for more: what was there at the start has been read.
        return bool(self._batch) and targets is not None and targets.read(self._batch.positions)

    def _land_or_pause(self) -> None:
        if self._landing is not None:
            self._pause()
            return
        batch, self._batch = self._batch, self._batch.next()
        base = self._base
        if base is None:
            raise Bug("a batch was read before a ledger was")
        self._landing = self._pipeline.submit(partial(self._land, batch, base, time.monotonic()))
        if not self._release.awaited:
            self._resume()

    def _land(self, batch: Batch, base: Ledger, since_s: float) -> tuple[Landed, float]:
        # Timed where it lands: the outcome is taken after the next poll.
        return self._work.land(batch, base), time.monotonic() - since_s

    def _collect(self) -> None:
        """Take the outcome of the batch that is landing, if it is known; raise what it raised."""
        if self._landing is None or not self._landing.done():
            return
        landed = self._outcome(self._landing)
        self._reader.announce({partition: landed.ledger.next(partition) for partition in landed.ledger.added})

    def _last_word(self) -> None:
        """Take the outcome of the landing that the session did not wait for: it may have landed, or been refused.

        That it was refused says more than that its partitions were taken away.
        """
        if self._landing is not None and self._landing.done() and not self._landing.cancelled():
            with suppress(Unavailable):
                self._outcome(self._landing)

    def _outcome(self, landing: Future[tuple[Landed, float]]) -> Landed:
        self._landing = None
        landed, seconds = landing.result()
        self._ledger = landed.ledger
        self._limits = self._works.limits.after(landed.files, landed.size_bytes)
        self._watermark.landed(landed.newest)
        self._works.landed(landed, seconds)
        self._upkeep.landed(landed, self._batch.positions.keys())
        return landed

    def _drain(self, timeout_s: float) -> None:
        """Land what is open, waiting at most so long; for a release, not at all."""
        deadline_s = time.monotonic() + timeout_s
        while self._landing is not None or self._batch:
            if self._landing is None:
                self._land_or_pause()
            while self._landing is not None and not wait([self._landing], POLL_S).done:
                if time.monotonic() >= deadline_s or self._work.unreleased:
                    return
            self._collect()

    def _caught_up(self, targets: Targets) -> bool:
        """Tell whether the table holds the targets; other workers' partitions count too."""
        if targets.held_by(self._ledger):
            return True
        now_s = time.monotonic()
        if self._batch or self._landing is not None or now_s < self._look_s:
            return False
        self._look_s = now_s + LOOK_S
        product = self._works.product
        desk = self._works.desk
        ledger = read_ledger(load_table(desk.catalog, product), product, desk.branch)
        # Without partitions nobody has asked yet: positions in another topic of the name say nothing of these targets.
        if ledger is not None and (topic_id := desk.topic_id()) != ledger.topic_id:
            raise topic_made_anew(product, ledger.topic_id, topic_id)
        self._ledger = ledger
        return targets.held_by(ledger)
