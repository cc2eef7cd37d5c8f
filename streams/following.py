"""Following a product: from the table's rows and the topic's messages to portions, across rebalances and outages."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from headrace.schemas.errors import Bug, Unavailable, UserError
from headrace.streams.admin import Admin
from headrace.streams.ahead import Telling
from headrace.streams.assigned import AssignedReader
from headrace.streams.beginnings import Beginnings
from headrace.streams.portions import Portion
from headrace.streams.reader import KafkaReader, PollMissed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.streams.beginnings import Course
    from headrace.streams.pinned import Pinned

# How long one poll waits: short, so that Ctrl-C is obeyed at once.
POLL_S = 0.1
# Positions are committed this often, and the membership is kept alive this often while events are handed out.
COMMIT_S = 1.0
ALIVE_S = 1.0
# How often a member whose own partitions are read asks how far the others are.
LOOK_S = 0.5
# How often it is said that the broker is out of reach, while it is.
TELL_S = 10.0
# The first and the longest wait for what does not answer.
WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
# A commit is repeated for so long while the group is rebalanced.
_COMMIT_PATIENCE_S = 10.0

_LOG = structlog.get_logger("headrace.subscriber")


class Following:
    """Follows a product's partitions, one portion after the other. A generator of portions, and what keeps it going.

    Positions are the group's offsets, wherever an event was served from. Those that were handled are committed about
    once a second, when partitions are given up, and on `leave`. What does not answer is waited for.

    Args:
        course: what is followed, and how.
        pinned: reads frames and rows.

    Attributes:
        current: the portion yielded last; None once its partition is somebody else's.
    """

    def __init__(self, course: Course, pinned: Pinned) -> None:
        self._course = course
        self._pinned = pinned
        self._kafka = course.mesh.environment.kafka_config()
        self._admin = Admin(self._kafka)
        self._beginnings = Beginnings(course, self._admin, pinned)
        self._log = _LOG.bind(product=str(course.product.name), group=course.group)
        self._reader: KafkaReader | AssignedReader | None = None
        self._queue: deque[Portion] = deque()
        self._tellings: deque[Telling] = deque()
        self._owned: set[int] = set()
        self._handled: dict[int, int] = {}
        self._announced: dict[int, int] = {}
        self._ends: Mapping[int, int] | None = None
        self._broken: Unavailable | None = None
        self._polled_s = self._committed_s = self._look_s = self._tell_s = 0.0
        self._wait_s = WAIT_S
        self.current: Portion | None = None

    def portions(self) -> Iterator[Portion]:
        """Yield portions for ever, or until what was there at the start has been yielded.

        Raises:
            UserError: polls were too far apart, a position is gone, or the group is in use in another way.
            SettingsError: the broker refuses the credentials.
            ProductStopped: the table follows another topic, or its ledger contradicts it.
            SchemaError: a registered version cannot be carried.
        """
        while True:
            try:
                yield from self._session()
            except PollMissed:
                raise self._too_slow() from None
            except Unavailable as error:
                self._say(error)
                if self._course.autocommit:
                    with suppress(Unavailable):
                        self._commit(self._positions())
                self._close()
                time.sleep(self._wait_s)
                self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
            else:
                return

    def handled(self, portion: Portion, position: int) -> None:
        """Note that everything of a portion before this offset was handled."""
        partition = portion.partition
        if partition in self._owned:
            self._handled[partition] = max(position, self._handled.get(partition, 0))

    def keep_alive(self) -> None:
        """Stay a member and commit what was handled, if it is time. Brings nothing new; ``current`` may be None after.

        Raises:
            UserError: polls were too far apart.
            SettingsError: the broker refuses the credentials.
        """
        with suppress(Unavailable), self._surviving():
            self._stay()

    def commit(self) -> None:
        """Commit what was handled, and wait for it.

        Raises:
            Unavailable: if the broker does not answer for 10 s, or partitions were given to others meanwhile.
            UserError, SettingsError: as `keep_alive`.
        """
        deadline = time.monotonic() + _COMMIT_PATIENCE_S
        positions = self._positions()
        while True:
            try:
                self._commit({p: at for p, at in positions.items() if p in self._owned})
            except Unavailable:
                if self._reader is None or time.monotonic() > deadline:
                    raise
                # A rebalance that is under way is finished by polls.
                with self._surviving():
                    self._reader.pause()
                    self._poll(POLL_S)
            else:
                break
        gone = sorted(positions.keys() - self._owned)
        if gone:
            raise Unavailable(
                f"partitions {', '.join(map(str, gone))} were given to others before their positions were committed",
                where=f"group {self._course.group}, topic {self._course.product.topic}",
                hint="nothing is lost: whoever has them now reads those events again",
            )

    def leave(self) -> None:
        """Commit what was handled, and leave the group."""
        if self._course.autocommit:
            try:
                self._commit(self._positions())
            except Unavailable as error:
                self._log.warning("left without a last commit", what=error.what, where=error.where, next=error.hint)
        self._close()

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Begin new partitions. See :class:`headrace.streams.reading.Rebalance`."""
        known = dict(self._reader.committed(partitions)) if isinstance(self._reader, KafkaReader) else {}
        for partition in self._handled.keys() & set(partitions):
            known[partition] = max(self._handled[partition], known.get(partition, 0))
        begun = self._beginnings.of({partition: known.get(partition) for partition in partitions})
        if begun.history is not None and self._reader is not None:
            # Before the new partitions are read from: their rows come first.
            self._reader.pause()
            self._tellings.append(Telling(set(partitions), begun.history))
        self._handled |= begun.kept
        self._owned |= set(partitions)
        return begun.positions

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Give partitions up: commit what was handled of them, drop what was not handed out."""
        gone = set(partitions)
        if not lost and self._course.autocommit and isinstance(self._reader, KafkaReader):
            try:
                self._reader.commit({p: at for p, at in self._handled.items() if p in gone & self._owned})
            except Unavailable as error:
                self._log.warning("partitions were given up without a last commit", what=error.what, next=error.hint)
        self._owned -= gone
        self._queue = deque(portion for portion in self._queue if portion.partition not in gone)
        for telling in self._tellings:
            telling.partitions -= gone
        # What was handled is kept: lost partitions often come back, and then nothing is handed out again.
        for partition in gone:
            self._announced.pop(partition, None)
        if self.current is not None and self.current.partition in gone:
            self.current = None

    def _session(self) -> Iterator[Portion]:
        reader = self._open()
        while True:
            while self._queue:
                self.current = self._queue.popleft()
                yield self.current
                self.current = None
                self._wait_s = WAIT_S
                if self._broken is not None:
                    error, self._broken = self._broken, None
                    raise error
                self._stay()
            if self._tellings:
                reader.pause()
                self._tell_on()
            elif self._done():
                return
            else:
                reader.resume()
                self._poll(POLL_S)
            self._stay()

    def _stay(self) -> None:
        now_s = time.monotonic()
        if self._reader is None:
            return
        if now_s - self._polled_s >= ALIVE_S:
            self._reader.pause()
            self._poll(0.0)
        if self._course.autocommit and now_s - self._committed_s >= COMMIT_S:
            self._committed_s = now_s
            news = {p: at for p, at in self._handled.items() if p in self._owned and self._announced.get(p) != at}
            if news:
                self._reader.announce(news)
                self._announced |= news

    def _open(self) -> KafkaReader | AssignedReader:
        course = self._course
        topic = self._admin.topic(course.product.topic)
        if course.until_end and self._ends is None:
            self._ends = {partition: marks.end for partition, marks in self._admin.watermarks(topic).items()}
        if course.group is None:
            self._reader = AssignedReader(self._kafka, topic.name, range(topic.partitions), self)
        else:
            self._reader = KafkaReader(self._kafka, topic.name, course.group, self)
        self._polled_s = time.monotonic()
        return self._reader

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        self._queue.clear()
        self._tellings.clear()
        self._owned.clear()
        self._announced.clear()
        self.current = None
        if reader is not None:
            reader.close()

    def _poll(self, timeout_s: float) -> None:
        if self._reader is None:
            raise Bug("a subscriber polled before it had joined")
        polled = self._reader.poll(timeout_s)
        self._polled_s = time.monotonic()
        if polled.trouble is not None and self._polled_s >= self._tell_s:
            self._tell_s = self._polled_s + TELL_S
            self._say(polled.trouble)
        ends = dict(polled.ends)
        for portion in self._pinned.portions(polled.frames):
            self._put(portion)
            if ends.get(portion.partition, 0) <= portion.end:
                ends.pop(portion.partition, None)
        for partition, end in ends.items():
            self._put(Portion(partition, self._pinned.nothing, end=end))

    def _put(self, portion: Portion) -> None:
        if portion.partition in self._owned:
            ends = self._ends
            self._queue.append(portion if ends is None else portion.before(ends.get(portion.partition, 0)))

    def _tell_on(self) -> None:
        """Read on in the history that comes first; what takes its time is waited for a moment."""
        portion = self._tellings[0].take()
        if portion is not None:
            self._put(portion)
        elif self._tellings[0].over:
            self._tellings.popleft()

    def _done(self) -> bool:
        """Tell whether what was there at the start was handed out; by other members too, as their commits say."""
        if self._ends is None:
            return False
        left = {partition for partition, end in self._ends.items() if self._handled.get(partition, 0) < end}
        if not left:
            return True
        now_s = time.monotonic()
        if left & self._owned or not isinstance(self._reader, KafkaReader) or now_s < self._look_s:
            return False
        self._look_s = now_s + LOOK_S
        committed = self._reader.committed(sorted(left))
        return all(committed.get(partition, 0) >= self._ends[partition] for partition in left)

    def _positions(self) -> dict[int, int]:
        # All of them: what was announced before may have been lost on its way.
        return {p: at for p, at in self._handled.items() if p in self._owned}

    def _commit(self, positions: Mapping[int, int]) -> None:
        if isinstance(self._reader, KafkaReader):
            self._reader.commit(positions)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Note an outage while events are handed out: the session starts anew when the next portion is asked for."""
        try:
            yield
        except PollMissed:
            raise self._too_slow() from None
        except Unavailable as error:
            # Whoever iterates drops what it holds; what was not handled is read again.
            self._broken = error
            self.current = None
            raise

    def _say(self, error: Unavailable) -> None:
        self._log.warning("waiting", what=error.what, where=error.where, next=error.hint)

    def _too_slow(self) -> UserError:
        return UserError(
            "the subscriber was too slow: between two events it took longer than max.poll.interval.ms",
            where=f"group {self._course.group}, topic {self._course.product.topic}",
            hint="nothing is lost: what was not committed comes again. Raise max.poll.interval.ms in the environment's "
            "kafka part of mesh.yaml, or do less for each event",
        )
