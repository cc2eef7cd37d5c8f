"""How far each source has been published: a compacted topic, written in the same transactions as the events.

A consumer group's offsets would do for this, but Kafka forgets them after a week without use. A record's key is
``<topic>|<identity of the source>``, its value `Position` as JSON. A position counts for one topic id only: a topic
made anew is empty, whatever was published into the one before.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from headrace.producers.transactions import TRANSACTION_TIMEOUT_S, left_open
from headrace.schemas.errors import Bug
from headrace.streams.kafka import Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Consumer

    from headrace.streams.admin import Topic

FORMAT = 1
READ_TIMEOUT_S = TRANSACTION_TIMEOUT_S + 30.0
_POLL_S = 0.2
_BATCH = 1_000


def positions_topic(prefix: str) -> str:
    """Return the name of the topic of positions, behind the environment's prefix."""
    return f"{prefix}headrace.publish-positions"


@dataclass(frozen=True, slots=True)
class Position:
    """How far one source has been published.

    Attributes:
        topic_id: Kafka's UUID of the topic.
        position: the position of the last event that was published; -1: none yet.
        events: how many events were published in all.
        done: whether the source was published to its end.
    """

    topic_id: str
    position: int = -1
    events: int = 0
    done: bool = False

    def to_bytes(self) -> bytes:
        """Return the record's value."""
        return json.dumps(
            {
                "format": FORMAT,
                "topic-id": self.topic_id,
                "position": self.position,
                "events": self.events,
                "done": self.done,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Position:
        """Parse a record's value.

        Raises:
            Bug: if it is of a format that this version does not know.
        """
        try:
            found = json.loads(value)
            if found["format"] == FORMAT:
                return cls(str(found["topic-id"]), int(found["position"]), int(found["events"]), bool(found["done"]))
        except (ValueError, KeyError, TypeError):
            pass
        raise Bug("a publish position has a format that this version does not know", hint="upgrade headrace")


def position_key(topic: str, identity: str) -> bytes:
    """Return the key of a source's position."""
    return f"{topic}|{identity}".encode()


def read_position(config: Mapping[str, str], positions: Topic, *, end: int, topic: Topic, identity: str) -> Position:
    """Return the committed position of a source, or the one before its start.

    Waits until every transaction that begins before ``end`` has ended, because a reader of committed records sees
    nothing behind the first open one.

    Args:
        config: the environment's librdkafka properties.
        positions: the topic of positions.
        end: the end of its log (`Admin.log_ends`), taken after older publishers of this source were fenced.
        topic: the topic of the product's events.
        identity: the source.

    Raises:
        Unavailable: if the broker does not answer, or such a transaction does not end within 60 s.
    """
    problems = Problems()
    consumer = open_consumer(
        client_config(
            config,
            problems,
            group_id="headrace.publish",  # the client asks for one; nothing is committed to it
            enable_auto_commit=False,
            enable_partition_eof=True,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
    )
    try:
        latest = _read_last(consumer, positions.name, end, position_key(topic.name, identity))
    except KafkaException as error:
        raise problems.error(error, where=positions.name) from None
    finally:
        consumer.close()
    found = Position.from_bytes(latest) if latest is not None else None
    return found if found is not None and found.topic_id == topic.id else Position(topic.id)


def _read_last(consumer: Consumer, topic: str, end: int, key: bytes) -> bytes | None:
    """Return the last committed value of a key in the topic's one partition."""
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + READ_TIMEOUT_S
    latest: bytes | None = None
    while time.monotonic() < deadline:
        for message in consumer.consume(_BATCH, _POLL_S):
            error = message.error()
            if error is None:
                if message.key() == key:
                    latest = message.value()
            elif error.name() != "_PARTITION_EOF":
                raise KafkaException(error)
            # The consumer's position stops before the markers of transactions, the event of the end does not.
            elif (message.offset() or 0) >= end:
                return latest
    raise left_open(topic)
