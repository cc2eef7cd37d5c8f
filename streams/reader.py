"""Reading a topic as a member of a consumer group: frames, ends of partitions, and rebalances. The first reader."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Thread
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from headrace.schemas.errors import Bug, SettingsError, Unavailable
from headrace.streams.decode import MAX_BLOCK_ROWS
from headrace.streams.frames import Frame, Messages, frames_of
from headrace.streams.kafka import CONSUME_ROWS, NEWS, Problems, client_config, kafka_error, open_consumer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from confluent_kafka import KafkaError

# What one poll joins: the messages of each call become columns at once. A block costs about a millisecond, whatever its
# length, which 65,000 messages make cheap; 64 MiB are as good, and Arrow's arrays of bytes end at 2 GiB.
_POLL_ROWS = MAX_BLOCK_ROWS
_POLL_BYTES = 64 << 20
# Leaving a group takes milliseconds; without having left, a worker is missed after its session's time-out.
_CLOSE_S = 3.0
# A worker that died is missed after this; the broker's lowest default bound is 6 s.
CONSUMER_DEFAULTS: Mapping[str, str] = {
    "session.timeout.ms": "10000",
    "heartbeat.interval.ms": "2000",
    # Between two polls: longer than any batch's conversion, during which partitions are paused and polled all the same.
    "max.poll.interval.ms": "300000",
    # What is fetched ahead is bounded by its bytes alone. By default librdkafka also stops at 100,000 messages, and
    # then asks for no more for a whole second: a reader that takes 65,000 at a time would stand still most of it.
    "queued.max.messages.kbytes": "65536",
    "queued.min.messages": "10000000",
    "fetch.queue.backoff.ms": "10",
}


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought.

    Attributes:
        frames: messages, in the order of their offsets within each partition and schema id.
        ends: partitions whose end was reached, with the position behind the last record, control records included.
        trouble: why nothing came, if the broker was out of reach meanwhile. The reader goes on by itself.
    """

    frames: Sequence[Frame] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    trouble: Unavailable | None = None


class Rebalance(Protocol):
    """What a reader tells when its partitions change. Called from within :meth:`Reader.poll` and ``close``."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the position each new partition starts at. What is raised here leaves ``poll``."""
        ...

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Give partitions up. ``lost``: they may belong to another worker already, so nothing can be finished."""
        ...


class Reader(Protocol):
    """Reads a topic's partitions. Reads are read_committed; a reader never stores positions by itself."""

    def poll(self, timeout_s: float) -> Polled:
        """Wait up to ``timeout_s`` for messages. Must be called more often than ``max.poll.interval.ms``.

        Raises:
            Unavailable: the reader must be closed and opened anew.
        """
        ...

    def pause(self) -> None:
        """Bring no messages until :meth:`resume`; polls keep the membership alive."""
        ...

    def resume(self) -> None:
        """Bring messages again."""
        ...

    def announce(self, positions: Mapping[int, int]) -> None:
        """Tell the group's offsets to lag tools. A courtesy: failures are ignored, the offsets are never read."""
        ...

    def close(self) -> None:
        """Leave the group. Returns within seconds, whatever the broker does."""
        ...


class KafkaReader:
    """Reads with confluent-kafka's consumer in a cooperative consumer group.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        group: the consumer group.
        rebalance: is asked for positions and told of revocations.
    """

    def __init__(self, config: Mapping[str, str], topic: str, group: str, rebalance: Rebalance) -> None:
        self._topic = topic
        self._rebalance = rebalance
        self._problems = Problems()
        self._paused = False
        self._given_up: set[int] = set()
        self._failure: Exception | None = None
        self._consumer = open_consumer(
            client_config(
                {**CONSUMER_DEFAULTS, **config},
                self._problems,
                group_id=group,
                enable_auto_commit=False,
                # A position that the log no longer holds must be seen, never jumped over.
                auto_offset_reset="error",
                isolation_level="read_committed",
                enable_partition_eof=True,
                partition_assignment_strategy="cooperative-sticky",
            )
        )
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def poll(self, timeout_s: float) -> Polled:
        """See :meth:`Reader.poll`."""
        deadline = time.monotonic() + timeout_s
        parts: list[Messages] = []
        ends: dict[int, int] = {}
        size = 0
        for _ in range(_POLL_ROWS // CONSUME_ROWS):
            some = self._consume(max(deadline - time.monotonic(), 0.0))
            if self._given_up:
                # Taken away in this very call: what was read of them before belongs to their next owner.
                parts = [part.without(self._given_up) for part in parts]
                ends = {partition: end for partition, end in ends.items() if partition not in self._given_up}
                self._given_up.clear()
            full = len(some) == CONSUME_ROWS
            if any(map(Message.error, some)):
                ends |= self._ends(message for message in some if message.error() is not None)
                some = [message for message in some if message.error() is None]
            if some:
                parts.append(_columns(some))
                size += parts[-1].nbytes
            if not full or size >= _POLL_BYTES or time.monotonic() >= deadline:
                break
        if parts:
            self._problems.last = None
        return Polled(tuple(frames_of(*parts)), ends, self._trouble())

    def pause(self) -> None:
        """See :meth:`Reader.pause`."""
        if not self._paused:
            self._paused = True
            with self._mapped():
                self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """See :meth:`Reader.resume`."""
        if self._paused:
            self._paused = False
            with self._mapped():
                self._consumer.resume(self._consumer.assignment())

    def announce(self, positions: Mapping[int, int]) -> None:
        """See :meth:`Reader.announce`."""
        offsets = [TopicPartition(self._topic, partition, position) for partition, position in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException:
            self._problems.last = None

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        # With the broker away in the middle of an offset commit, the client waits for it for ever.
        leaving = Thread(target=self._consumer.close, name=f"leave-{self._topic}", daemon=True)
        leaving.start()
        leaving.join(_CLOSE_S)

    def _consume(self, timeout_s: float) -> list[Message]:
        with self._mapped():
            some = self._consumer.consume(CONSUME_ROWS, timeout_s)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return some

    def _trouble(self) -> Unavailable | None:
        problem, self._problems.last = self._problems.last, None
        mapped = kafka_error(problem, where=self._topic) if problem is not None else None
        if isinstance(mapped, SettingsError):
            # A wrong password never fails a poll: librdkafka goes on trying.
            raise mapped
        return mapped if isinstance(mapped, Unavailable) else None

    def _ends(self, messages: Iterable[Message]) -> dict[int, int]:
        ends: dict[int, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                raise Bug("a message without an error was taken for one")
            if error.name() == "_PARTITION_EOF":
                ends[_number(message.partition())] = _number(message.offset())
            elif error.name() not in NEWS:
                raise self._broken(error)
        return ends

    def _broken(self, error: KafkaError) -> Exception:
        if error.name() in {"_AUTO_OFFSET_RESET", "_MAX_POLL_EXCEEDED", "OFFSET_OUT_OF_RANGE"}:
            return Unavailable(f"the reader has to start anew: {error.str()}", where=self._topic)
        return kafka_error(error, where=self._topic)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places: list[TopicPartition] = []
        with self._carried():
            positions = self._rebalance.assigned([place.partition for place in partitions])
            places = [TopicPartition(self._topic, p, position) for p, position in positions.items()]
        with self._carried():
            # Without an answer, even of no partition, the client takes no part in the group any more.
            consumer.incremental_assign(places)
            if self._paused and places:
                consumer.pause(places)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(consumer, partitions, lost=True)

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        with self._carried():
            self._rebalance.revoked([place.partition for place in partitions], lost=lost)
        self._given_up |= {place.partition for place in partitions}
        with self._carried():
            consumer.incremental_unassign(partitions)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._problems.error(error, where=self._topic) from None

    @contextmanager
    def _carried(self) -> Iterator[None]:
        """Carry an error over librdkafka's callback: the first one is raised from poll."""
        try:
            with self._mapped():
                yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised from poll
            self._failure = self._failure or error


def _columns(messages: list[Message]) -> Messages:
    count = len(messages)
    return Messages(
        partitions=np.fromiter(map(Message.partition, messages), np.int32, count),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, count),
        timestamps_ms=np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, count),
        keys=pa.array(list(map(Message.key, messages)), pa.binary()),
        values=pa.array(list(map(Message.value, messages)), pa.binary()),
    )


def _number(value: int | None) -> int:
    if value is None:
        raise Bug("Kafka's client left a position out")
    return value
