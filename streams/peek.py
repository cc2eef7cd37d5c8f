"""A look at single events of a topic: which offset and timestamp stand at a position. Joins no group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from headrace.schemas.errors import Unavailable
from headrace.streams.kafka import NEWS, Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Consumer, KafkaError

    from headrace.streams.admin import Topic

_GROUP = "headrace.peek"
_POLL_S = 0.5
# A broker that restarts is back within this.
_PATIENCE_S = 20.0


def first_events(
    config: Mapping[str, str], topic: Topic, positions: Mapping[int, int]
) -> Mapping[int, tuple[int, int]]:
    """Return offset and timestamp of the first committed event at or behind each position, by partition.

    The timestamp is in milliseconds since 1970 UTC, -1 if the event has none. A partition without any such event is
    left out.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        positions: by partition; not below the log's start.

    Raises:
        Unavailable: if the broker does not answer, or the log's start has moved past a position.
        SettingsError: if the broker refuses the credentials.
        UserError: if a right is missing.
    """
    if not positions:
        return {}
    problems = Problems()
    consumer = open_consumer(
        client_config(
            config,
            problems,
            group_id=_GROUP,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            enable_partition_eof=True,
            isolation_level="read_committed",
        )
    )
    try:
        consumer.assign([TopicPartition(topic.name, partition, at) for partition, at in positions.items()])
        return _look(consumer, set(positions), problems, topic.name)
    except KafkaException as error:
        raise problems.error(error, where=topic.name) from None
    finally:
        consumer.close()


def _look(
    consumer: Consumer, open_partitions: set[int], problems: Problems, topic: str
) -> Mapping[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    deadline = time.monotonic() + _PATIENCE_S
    while open_partitions:
        message = consumer.poll(_POLL_S)
        if message is None or message.partition() not in open_partitions:
            if time.monotonic() > deadline:
                raise _silent(problems, topic)
            continue
        partition, offset, error = message.partition(), message.offset(), message.error()
        if partition is None or (error is not None and not _is_end(error, problems, topic)):
            continue
        if error is None and offset is not None:
            found[partition] = offset, message.timestamp()[1]
        open_partitions.discard(partition)
        # What comes behind is of no interest.
        consumer.incremental_unassign([TopicPartition(topic, partition)])
    return found


def _is_end(error: KafkaError, problems: Problems, topic: str) -> bool:
    """Tell the end of a partition (True) from news (False); raise everything else."""
    if error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
        raise Unavailable("old events were deleted while they were looked at", where=topic, hint="run it again")
    if error.name() != "_PARTITION_EOF" and error.name() not in NEWS:
        raise problems.error(error, where=topic)
    return error.name() == "_PARTITION_EOF"


def _silent(problems: Problems, topic: str) -> Exception:
    if problems.last is not None:
        return problems.error(problems.last, where=topic)
    return Unavailable(f"the broker sent nothing for {_PATIENCE_S:.0f} s", where=topic, hint="run it again")
