"""Reading a topic without a group: all partitions, no membership, no committed position. The second reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from headrace.streams.reader import TopicReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.streams.reader import Polled, Rebalance

# librdkafka asks for a group's name even where none is joined.
_GROUP = "headrace.reader"


class AssignedReader(TopicReader):
    """Reads the partitions that it is given, as :class:`headrace.streams.reader.Reader` says.

    The first poll asks ``rebalance`` for their positions. None of them is ever revoked, and partitions that the topic
    gets later are not read.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        partitions: the partitions to read.
        rebalance: is asked for positions, once.
    """

    def __init__(self, config: Mapping[str, str], topic: str, partitions: Sequence[int], rebalance: Rebalance) -> None:
        super().__init__(config, topic, rebalance, _GROUP)
        self._waiting = tuple(partitions)

    def poll(self, timeout_s: float) -> Polled:
        """See :meth:`headrace.streams.reader.Reader.poll`."""
        if self._waiting:
            positions = self._rebalance.assigned(self._waiting)
            places = [TopicPartition(self._topic, partition, position) for partition, position in positions.items()]
            with self._mapped():
                self._consumer.assign(places)
                if self._paused:
                    self._consumer.pause(places)
            self._waiting = ()
        return super().poll(timeout_s)

    def announce(self, positions: Mapping[int, int]) -> None:
        """See :meth:`headrace.streams.reader.Reader.announce`: without a group there is nobody to tell."""
