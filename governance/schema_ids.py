"""Which schema ids the messages of topics carry: read from the messages themselves, by their headers alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from headrace.governance.observing import Seen
from headrace.streams.decode import HEADER_BYTES, MAGIC
from headrace.streams.kafka import CONSUME_ROWS, NEWS, UNKNOWN_TOPIC, Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from confluent_kafka import KafkaError, Message

    from headrace.streams.admin import Admin, Topic, Watermarks

# A producer that writes garbage behind a zero byte shows another "id" with each message: so many are enough to act.
MAX_IDS = 100
_POLL_S = 0.05
_REQUEST_S = 10.0
_CLOSE_S = 3.0
# librdkafka's logical offsets are below zero.
_FIRST = 0


@dataclass(slots=True)
class _Log:
    """What is known of a topic: the next position by partition, and first and last offset by id and partition."""

    topic: Topic
    positions: dict[int, int] = field(default_factory=dict)
    first: dict[tuple[int, int], int] = field(default_factory=dict)
    last: dict[tuple[int, int], int] = field(default_factory=dict)


class SchemaIds:
    """Follows topics by a consumer that assigns all their partitions; joins no group, reads committed messages only.

    How far it has read is kept as the offsets of a group, for the next start alone: `keep` writes them, after what was
    seen has been published. A position that Kafka has forgotten makes it read that topic again, and miss nothing.

    After a restart it does not know the last message of each id, only that it lies before the kept position (without
    one: before the log's end): an id is gone once the log has moved past that.

    Args:
        config: the environment's librdkafka properties.
        group: the group whose offsets keep the positions; nobody may be its member.
        admin: is asked for the logs' bounds.

    Raises, from every method:
        Unavailable: if the broker does not answer.
        SettingsError, UserError: if it refuses the credentials, or a right is missing.
    """

    def __init__(self, config: Mapping[str, str], group: str, admin: Admin) -> None:
        self._problems = Problems()
        self._admin = admin
        self._group = group
        self._logs: dict[str, _Log] = {}
        self._kept: dict[tuple[str, int], int] = {}
        self._assigned: dict[tuple[str, int], int] = {}
        settings = client_config(
            config,
            self._problems,
            group_id=group,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            isolation_level="read_committed",
            # A partition that is new to a fetch waits for the one that is under way.
            fetch_wait_max_ms=100,
        )
        self._consumer = open_consumer({**settings, "on_commit": self._committed})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # With the broker away in the middle of a commit, the client waits for it for ever.
        closing = Thread(target=self._consumer.close, name="close-scanner", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def names(self) -> frozenset[str]:
        """Return the names of all topics of the cluster."""
        try:
            return frozenset(self._consumer.list_topics(timeout=_REQUEST_S).topics)
        except KafkaException as error:
            raise self._problems.error(error, where=self._admin.address) from None

    def read(self, topics: Mapping[str, Topic], known: Mapping[str, Sequence[Seen]], budget_s: float) -> bool:
        """Read what is new in these topics; return whether all that was there at the call has been read.

        Args:
            topics: the topics by name; of a topic with another id than last time, what was seen is forgotten.
            known: for topics that are new here: what was published of them, and is still to be taken for seen.
            budget_s: how long to read at most.
        """
        try:
            bounds = {name: self._admin.watermarks(topic) for name, topic in topics.items()}
            for topic in topics.values():
                if self._is_new(topic):
                    self._begin(topic, known.get(topic.name, ()), bounds[topic.name])
            self._logs = {name: self._logs[name] for name in topics}
            ends = {}
            for name, log in self._logs.items():
                for partition, marks in bounds[name].items():
                    # A partition that was added, or a log whose start has moved past the position.
                    log.positions[partition] = max(log.positions.get(partition, _FIRST), marks.low)
                    ends[name, partition] = marks.end
                _trim(log, {partition: marks.low for partition, marks in bounds[name].items()})
            self._assign()
            return self._drain(ends, time.monotonic() + budget_s)
        except KafkaException as error:
            raise self._problems.error(error, where=self._admin.address) from None

    def seen(self, topic: str) -> tuple[Seen, ...]:
        """Return the schema ids of a topic's messages, sorted."""
        log = self._logs.get(topic)
        if log is None:
            return ()
        return tuple(sorted(Seen(key[0], key[1], offset) for key, offset in log.first.items()))

    def keep(self) -> None:
        """Write down how far was read. Call it when what was seen up to there has been published.

        Does not wait for the broker. What is not written down is written the next time, or read again.
        """
        positions = {(name, each): at for name, log in self._logs.items() for each, at in log.positions.items()}
        moved = {place: at for place, at in positions.items() if self._kept.get(place) != at}
        if not moved:
            return
        offsets = [TopicPartition(name, partition, at) for (name, partition), at in moved.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            raise self._problems.error(error, where=f"group {self._group}") from None
        self._kept = positions

    def _committed(self, error: KafkaError | None, _places: Sequence[TopicPartition]) -> None:
        if error is not None:
            self._kept = {}

    def _is_new(self, topic: Topic) -> bool:
        log = self._logs.get(topic.name)
        return log is None or log.topic.id != topic.id

    def _begin(self, topic: Topic, known: Sequence[Seen], bounds: Mapping[int, Watermarks]) -> None:
        """Start a topic where the last run has kept its position, or from its start."""
        seen = known if topic.name not in self._logs else ()
        log = self._logs[topic.name] = _Log(topic)
        if seen:
            # What was not published must be read again: without it, a kept position says nothing.
            places = [TopicPartition(topic.name, partition) for partition in range(topic.partitions)]
            for place in self._consumer.committed(places, timeout=_REQUEST_S):
                if place.offset >= _FIRST:
                    log.positions[place.partition] = self._kept[topic.name, place.partition] = place.offset
        for each in seen:
            key, partition = (each.schema_id, each.kafka_partition), each.kafka_partition
            log.first[key] = each.first_offset
            # Which message was the last is not known, only what all of them lie before.
            behind = log.positions[partition] if partition in log.positions else bounds[partition].end
            log.last[key] = max(behind - 1, each.first_offset)
        self._assigned = {place: at for place, at in self._assigned.items() if place[0] != topic.name}

    def _assign(self) -> None:
        """Bring the consumer to the positions, only if they are not where it stands already."""
        wanted = {(name, partition): at for name, log in self._logs.items() for partition, at in log.positions.items()}
        if wanted != self._assigned:
            self._consumer.assign([TopicPartition(name, partition, at) for (name, partition), at in wanted.items()])
        self._assigned = wanted

    def _drain(self, ends: Mapping[tuple[str, int], int], deadline: float) -> bool:
        left = {place for place, end in ends.items() if self._assigned[place] < end}
        while left and time.monotonic() < deadline:
            for message in self._consumer.consume(CONSUME_ROWS, _POLL_S):
                place = self._take(message)
                if place is not None and self._assigned[place] >= ends[place]:
                    left.discard(place)
        for (name, partition), position in self._assigned.items():
            self._logs[name].positions[partition] = position
        return not left

    def _take(self, message: Message) -> tuple[str, int] | None:
        """Note a message, or the end of a partition; return whose position it has moved."""
        error, offset = message.error(), message.offset()
        place = (str(message.topic()), message.partition() or 0)
        if place not in self._assigned or offset is None:
            return None
        if error is not None:
            if error.name() == "_PARTITION_EOF":
                self._assigned[place] = offset
                return place
            if error.name() in NEWS | UNKNOWN_TOPIC:
                # A topic that was deleted: the next look leaves it out.
                return None
            raise KafkaException(error)
        self._assigned[place] = offset + 1
        self._note(self._logs[place[0]], place[1], offset, message.value())
        return place

    def _note(self, log: _Log, partition: int, offset: int, value: bytes | None) -> None:
        if value is None or len(value) < HEADER_BYTES or value[0] != MAGIC:
            return
        # As the registry's ids and Avro's int are: garbage may be below zero.
        key = (int.from_bytes(value[1:HEADER_BYTES], "big", signed=True), partition)
        if key in log.first or len({schema_id for schema_id, _ in log.first} | {key[0]}) <= MAX_IDS:
            log.first.setdefault(key, offset)
            log.last[key] = offset


def _trim(log: _Log, lows: Mapping[int, int]) -> None:
    """Forget the ids whose last message the log does not hold any more."""
    for key, last in list(log.last.items()):
        if last < lows.get(key[1], _FIRST):
            del log.first[key], log.last[key]
