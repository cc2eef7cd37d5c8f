"""Reading a topic with confluent-kafka: frames, ends of partitions, rebalances. In a group, the first reader."""

from __future__ import annotations

import time
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.schemas.errors import Bug, SettingsError, Unavailable, UserError
from headrace.streams.arrivals import columns_of
from headrace.streams.decode import MAX_BLOCK_ROWS
from headrace.streams.frames import frames_of
from headrace.streams.kafka import CONSUME_ROWS, NEWS, Problems, client_config, kafka_error, open_consumer
from headrace.streams.reading import Member, Polled, PollMissed, Reader, Rebalance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from headrace.streams.frames import Messages

__all__ = ["CONSUMER_DEFAULTS", "KafkaReader", "Member", "PollMissed", "Polled", "Reader", "Rebalance", "TopicReader"]

# What one poll joins: the messages of each call become columns at once. A block costs about a millisecond, whatever its
# length, which 65,000 messages make cheap; 64 MiB are as good, and Arrow's arrays of bytes end at 2 GiB.
_POLL_ROWS = MAX_BLOCK_ROWS
_POLL_BYTES = 64 << 20
# Leaving a group takes milliseconds; without having left, a worker is missed after its session's time-out.
_CLOSE_S = 3.0
# A group's offsets are read and written within milliseconds; a coordinator that moves needs some seconds.
_ANSWER_S = 10.0
# What a consumer's fatal error is about, its text alone tells.
_SAME_INSTANCE = KafkaError(KafkaError.FENCED_INSTANCE_ID)
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


class TopicReader:
    """Reads a topic with confluent-kafka's consumer; subclasses say how it comes to its partitions.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        rebalance: is asked for positions and told of revocations.
        group: the consumer group.
    """

    def __init__(self, config: Mapping[str, str], topic: str, rebalance: Rebalance, group: str) -> None:
        self._topic = topic
        self._rebalance = rebalance
        self._problems = Problems()
        self._paused = False
        self._closed = False
        self._poll_bytes = _POLL_BYTES
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
                parts.append(columns_of(some))
                size += parts[-1].memory_bytes
            if not full or size >= self._poll_bytes or time.monotonic() >= deadline:
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

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        self._closed = True
        _within(_CLOSE_S, self._consumer.close, f"leave-{self._topic}")

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
        if error.name() == "_MAX_POLL_EXCEEDED":
            return PollMissed(f"the reader has to start anew: {error.str()}", where=self._topic)
        if error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            return Unavailable(f"the reader has to start anew: {error.str()}", where=self._topic)
        if error.name() == "INCONSISTENT_GROUP_PROTOCOL":
            return UserError(
                "the consumer group is in use by consumers that share partitions out in another way",
                where=self._topic,
                hint="choose another group; members of this one need partition.assignment.strategy=cooperative-sticky",
            )
        if error.name() == "_FATAL" and _SAME_INSTANCE.str() in error.str():
            return kafka_error(_SAME_INSTANCE, where=self._topic)
        return kafka_error(error, where=self._topic)

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


class KafkaReader(TopicReader):
    """Reads as a member of a cooperative consumer group, as :class:`Member` says.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        group: the consumer group.
        rebalance: is asked for positions and told of revocations.
        poll_bytes: one poll joins messages of about so many bytes.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        topic: str,
        group: str,
        rebalance: Rebalance,
        *,
        poll_bytes: int = _POLL_BYTES,
    ) -> None:
        super().__init__(config, topic, rebalance, group)
        self._poll_bytes = min(poll_bytes, _POLL_BYTES)
        self._told = False
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def announce(self, positions: Mapping[int, int]) -> None:
        """See :meth:`Reader.announce`."""
        offsets = [TopicPartition(self._topic, partition, position) for partition, position in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException:
            self._problems.last = None

    def committed(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """See :meth:`Member.committed`."""
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        with self._mapped():
            found = self._consumer.committed(asked, timeout=_ANSWER_S) if asked else []
        for place in found:
            if place.error is not None:
                raise kafka_error(place.error, where=self._topic)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def commit(self, positions: Mapping[int, int]) -> None:
        """See :meth:`Member.commit`."""
        offsets = [TopicPartition(self._topic, partition, position) for partition, position in positions.items()]
        failures: list[Exception] = []

        def ask() -> None:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except (KafkaException, RuntimeError) as error:
                failures.append(error)

        if not offsets:
            return
        if self._told:
            # Inside of a poll, the client lets no other thread in.
            ask()
        elif not _within(_ANSWER_S, ask, f"commit-{self._topic}"):
            raise self._not_committed(failures)
        if failures:
            raise self._not_committed(failures)

    def _not_committed(self, failures: list[Exception]) -> Exception:
        error = failures[0] if failures else None
        reason = error.args[0].str() if isinstance(error, KafkaException) else "the broker does not answer"
        return Unavailable(
            f"the group's positions were not committed: {reason}",
            where=self._topic,
            hint="nothing is lost: events from the position before come again",
        )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places: list[TopicPartition] = []
        if not self._closed:
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
        # A client that takes long to leave calls back in another thread, when the next session is under way already.
        if not self._closed:
            with self._carried():
                self._told = True
                self._rebalance.revoked([place.partition for place in partitions], lost=lost)
            self._told = False
        self._given_up |= {place.partition for place in partitions}
        with self._carried():
            consumer.incremental_unassign(partitions)


def _within(seconds: float, action: Callable[[], object], name: str) -> bool:
    """Do it in a thread; False if it takes longer, as an offset commit does for ever with the broker away."""
    thread = Thread(target=action, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _number(value: int | None) -> int:
    if value is None:
        raise Bug("Kafka's client left a position out")
    return value
