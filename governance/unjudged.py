"""Whether the application has judged all that was observed: by what it has committed, in whichever process it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from headrace.schemas.errors import Unavailable
from headrace.streams.kafka import NEWS, Problems, client_config, open_consumer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

_REQUEST_S = 10.0
_POLL_S = 0.2


class Unjudged:
    """Looks from the outside at a group's position in a topic of one partition.

    Args:
        config: the environment's librdkafka properties.
        topic: the topic.
        group: the group.
    """

    def __init__(self, config: Mapping[str, str], topic: str, group: str) -> None:
        self._topic = topic
        self._problems = Problems()
        self._consumer = open_consumer(
            client_config(
                config,
                self._problems,
                group_id=group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                enable_partition_eof=True,
                isolation_level="read_committed",
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def any(self) -> bool:
        """Tell whether a message lies behind the position that the group has committed.

        Raises:
            Unavailable: if the broker does not answer.
        """
        try:
            (place,) = self._consumer.committed([TopicPartition(self._topic, 0)], timeout=_REQUEST_S)
            # Without a position it begins where the log does. The end itself may be control records, hence the reading.
            self._consumer.assign([TopicPartition(self._topic, 0, max(place.offset, 0))])
            return self._reads()
        except KafkaException as error:
            raise self._problems.error(error, where=self._topic) from None

    def _reads(self) -> bool:
        deadline = time.monotonic() + _REQUEST_S
        while time.monotonic() < deadline:
            for message in self._consumer.consume(1, _POLL_S):
                error = message.error()
                if error is None:
                    return True
                if error.name() == "_PARTITION_EOF":
                    return False
                if error.name() not in NEWS:
                    raise KafkaException(error)
        raise Unavailable("Kafka does not answer", where=self._topic)
