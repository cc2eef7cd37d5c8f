"""Reading stretches of a topic from beginning to end: assigns partitions, joins no group, commits nothing.

Reads are read_committed. A position that the log no longer has is an error, never a silent jump.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Message, TopicPartition

from headrace.schemas.errors import Unavailable
from headrace.streams.kafka import CONSUME_ROWS, NEWS, Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from confluent_kafka import Consumer, KafkaError

    from headrace.streams.admin import Watermarks

__all__ = ["Scan"]

_CONSUME_S = 0.5
# A broker that restarts is back within this; one that is gone should be told of before a person gives up.
PATIENCE_S = 30.0
# What is fetched ahead is bounded by messages, because the client takes some 400 bytes for each besides its own, and by
# bytes. Beyond either it looks again after 10 ms, where it would by default wait a second.
_DEFAULTS = {
    "queued.min.messages": "50000",
    "queued.max.messages.kbytes": "16384",
    "fetch.queue.backoff.ms": "10",
    # How long a broker keeps a fetch at a log's end, which only then is announced.
    "fetch.wait.max.ms": "50",
}


class Scan:
    """One client that reads stretches of a topic. Not for several threads.

    Every method raises `Unavailable` if the broker does not answer for 30 s or the log's start moves past a position,
    `SettingsError` if the broker refuses the credentials, `UserError` if a right is missing.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic's name.
        group: a name for the broker's logs and access rules; no group is joined.
    """

    def __init__(self, config: Mapping[str, str], topic: str, group: str) -> None:
        self._topic = topic
        self._problems = Problems()
        self._ends: dict[int, int | None] = {}
        self._consumer: Consumer = open_consumer(
            client_config(
                {**_DEFAULTS, **config},
                self._problems,
                group_id=group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="error",
                # The last offsets may be control records, which no message announces.
                enable_partition_eof=True,
                isolation_level="read_committed",
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._consumer.close()

    def low(self, partition: int) -> int:
        """Return where a partition's log begins now."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), PATIENCE_S)
        except KafkaException as error:
            raise self._problems.error(error, where=self._topic) from None
        if found is None:
            raise self._silent()
        return int(found[0])

    def stretches(self, bounds: Mapping[int, Watermarks]) -> Iterator[tuple[int, Sequence[Message]]]:
        """Yield all committed messages within the bounds: a partition, and some of its messages, in order.

        Partitions come mixed. Messages should be let go at once, the next ones are then cheaper. One iteration at a
        time: it ends when all partitions have ended or were left.
        """
        return self._read({p: bound.low for p, bound in bounds.items() if bound.low < bound.end}, bounds)

    def onward(self, positions: Mapping[int, int]) -> Iterator[tuple[int, Sequence[Message]]]:
        """Yield all committed messages from these positions to the ends of the logs, as `stretches` does."""
        return self._read(positions, {})

    def leave(self, partition: int) -> None:
        """Read no more of a partition; leaving it twice does nothing."""
        if partition in self._ends:
            del self._ends[partition]
            # A busy partition would go on filling the queue.
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _read(
        self, starts: Mapping[int, int], bounds: Mapping[int, Watermarks]
    ) -> Iterator[tuple[int, Sequence[Message]]]:
        self._ends = {p: bounds[p].end if p in bounds else None for p in starts}
        try:
            self._consumer.assign([TopicPartition(self._topic, p, start) for p, start in starts.items()])
            heard = time.monotonic()
            while self._ends:
                messages = self._consumer.consume(CONSUME_ROWS, timeout=_CONSUME_S)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > PATIENCE_S:
                    raise self._silent()
                for partition, some in self._by_partition(messages):
                    if inside := self._inside(partition, some):
                        yield partition, inside
        except KafkaException as error:
            raise self._problems.error(error, where=self._topic) from None

    def _by_partition(self, messages: list[Message]) -> Iterator[tuple[int, list[Message]]]:
        partitions = list(map(Message.partition, messages))
        found: dict[int | None, list[Message]] = {}
        if len(only := set(partitions)) > 1:
            for partition, message in zip(partitions, messages, strict=True):
                found.setdefault(partition, []).append(message)
        else:
            # Most often all are of one partition, and need not be touched one by one.
            found = dict.fromkeys(only, messages)
        # A group's errors have no partition: no group is joined.
        yield from ((partition, some) for partition, some in found.items() if partition is not None)

    def _inside(self, partition: int, messages: list[Message]) -> list[Message]:
        """Return the messages before the partition's end, and leave it once they have reached it."""
        if partition not in self._ends:
            return []
        ended = False
        if errors := [error for error in map(Message.error, messages) if error is not None]:
            ended = any(map(self._is_end, errors))
            messages = [message for message in messages if message.error() is None]
        end = self._ends[partition]
        last = (messages[-1].offset() or 0) if messages else -1
        if end is not None and last >= end:
            messages = [message for message in messages if (message.offset() or 0) < end]
        if ended or (end is not None and last >= end - 1):
            self.leave(partition)
        return messages

    def _is_end(self, error: KafkaError) -> bool:
        """Tell the end of a partition (True) from news (False); raise everything else."""
        if error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            raise Unavailable("old events were deleted while they were read", where=self._topic, hint="run it again")
        if error.name() != "_PARTITION_EOF" and error.name() not in NEWS:
            raise self._problems.error(error, where=self._topic)
        return error.name() == "_PARTITION_EOF"

    def _silent(self) -> Exception:
        if self._problems.last is not None:
            return self._problems.error(self._problems.last, where=self._topic)
        return Unavailable(f"the broker sent nothing for {PATIENCE_S:.0f} s", where=self._topic, hint="headrace status")
