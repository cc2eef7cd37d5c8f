"""The auditor's own way to read a topic: it assigns partitions, joins no group, commits nothing, trusts no position."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import KafkaException, TopicPartition

from headrace.governance.proof import Marks
from headrace.schemas.errors import Unavailable
from headrace.schemas.stamps import holdable
from headrace.streams.kafka import CONSUME_ROWS, NEWS, Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Consumer, KafkaError, Message

    from headrace.governance.proof import Longs
    from headrace.streams.admin import Topic, Watermarks

_CONSUME_S = 0.5
# A broker that restarts is back within this; one that is gone should be told of before a person gives up.
PATIENCE_S = 30.0
_GROUP = "headrace.verify"


def read_marks(config: Mapping[str, str], topic: Topic, bounds: Mapping[int, Watermarks]) -> Mapping[int, Marks]:
    """Read offsets and timestamps of all committed events within the bounds, by partition.

    A timestamp that no table can hold reads -1, as its row's does. Holds 16 bytes an event.

    Raises:
        Unavailable: if the broker does not answer for 30 s, or the log's start moved past a position meanwhile.
        SettingsError: if the broker refuses the credentials.
        UserError: if a right is missing.
    """
    offsets: dict[int, array[int]] = defaultdict(lambda: array("q"))
    stamps: dict[int, array[int]] = defaultdict(lambda: array("q"))

    def take(message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if partition is not None and offset is not None:
            offsets[partition].append(offset)
            stamps[partition].append(message.timestamp()[1])

    _read(config, topic, bounds, take)
    return {partition: Marks(_longs(offsets[partition]), _stamps(stamps[partition])) for partition in bounds}


def read_letters(
    config: Mapping[str, str], letters: Topic, bounds: Mapping[int, Watermarks], topic: Topic
) -> Mapping[int, Longs]:
    """Read the offsets of a topic's dead letters by the partition they came from, repeats included.

    Letters of an earlier topic of the same name, and messages that are no letters, are left out.

    Raises:
        Unavailable, SettingsError, UserError: as `read_marks`.
    """
    found: dict[int, array[int]] = defaultdict(lambda: array("q"))

    def take(message: Message) -> None:
        place = _place(dict(message.headers() or ()), topic.id)
        if place is not None:
            found[place[0]].append(place[1])

    _read(config, letters, bounds, take)
    return {partition: _longs(offsets) for partition, offsets in found.items()}


def _place(headers: Mapping[str, str | bytes | None], topic_id: str) -> tuple[int, int] | None:
    texts = {name: value.decode("utf-8", "replace") for name, value in headers.items() if isinstance(value, bytes)}
    if texts.get("headrace.topic-id") != topic_id:
        return None
    try:
        return int(texts["headrace.partition"]), int(texts["headrace.offset"])
    except (KeyError, ValueError):
        return None


def _read(
    config: Mapping[str, str], topic: Topic, bounds: Mapping[int, Watermarks], take: Callable[[Message], None]
) -> None:
    """Hand over every committed message within the bounds, each partition in order."""
    problems = Problems()
    consumer = open_consumer(
        client_config(
            config,
            problems,
            group_id=_GROUP,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            # A position that the log no longer has must be an error, not a silent jump.
            auto_offset_reset="error",
            # The last offsets may be control records, which no message announces.
            enable_partition_eof=True,
            isolation_level="read_committed",
        )
    )
    ends = {partition: bound.end for partition, bound in bounds.items() if bound.low < bound.end}
    try:
        consumer.assign([TopicPartition(topic.name, partition, bounds[partition].low) for partition in ends])
        _drain(consumer, ends, take, problems, topic.name)
    except KafkaException as error:
        raise problems.error(error, where=topic.name) from None
    finally:
        consumer.close()


def _drain(
    consumer: Consumer, ends: dict[int, int], take: Callable[[Message], None], problems: Problems, topic: str
) -> None:
    heard = time.monotonic()
    while ends:
        messages = consumer.consume(CONSUME_ROWS, timeout=_CONSUME_S)
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE_S:
            raise _silent(problems, topic)
        for message in messages:
            partition = message.partition()
            if partition not in ends or not _at_end(message, ends[partition], take, problems):
                continue
            del ends[partition]
            # A busy partition would go on filling the queue.
            consumer.incremental_unassign([TopicPartition(topic, partition)])


def _at_end(message: Message, end: int, take: Callable[[Message], None], problems: Problems) -> bool:
    """Hand a message over if it lies before the end; return whether its partition needs no further reading."""
    error = message.error()
    if error is not None:
        return _is_end(error, problems, str(message.topic()))
    offset = message.offset()
    if offset is None:
        return False
    if offset < end:
        take(message)
    return offset >= end - 1


def _is_end(error: KafkaError, problems: Problems, topic: str) -> bool:
    """Tell the end of a partition (True) from news (False); raise everything else."""
    if error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
        raise Unavailable("old events were deleted while they were read", where=topic, hint="run it again")
    if error.name() != "_PARTITION_EOF" and error.name() not in NEWS:
        raise problems.error(error, where=topic)
    return error.name() == "_PARTITION_EOF"


def _silent(problems: Problems, topic: str) -> Exception:
    if problems.last is not None:
        return problems.error(problems.last, where=topic)
    return Unavailable(f"the broker sent nothing for {PATIENCE_S:.0f} s", where=topic, hint="headrace status")


def _stamps(values: array[int]) -> Longs:
    stamps = _longs(values)
    return np.where(holdable(stamps), stamps, -1)


def _longs(values: array[int]) -> Longs:
    return np.array(values, np.int64)
