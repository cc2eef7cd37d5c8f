"""The dead-letter topic: what cannot become a row is kept as it was, with the reason; never dropped, never logged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from headrace.schemas.errors import Bug, Unavailable
from headrace.sinks.dead_letters.message import headers_of
from headrace.streams.kafka import Problems, kafka_error, open_producer, producer_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from threading import Event

    from confluent_kafka import KafkaError, Message, Producer

    from headrace.schemas.product import Product
    from headrace.sinks.batch import Letter
    from headrace.streams.admin import Admin
    from headrace.streams.ledger import Ledger

# A broker that takes longer is down for a batch's purposes; the batch waits and the letters are sent again.
_FLUSH_TIMEOUT_S = 30.0
# How often a send that waits looks whether it should still wait.
_LOOK_S = 0.2
# The highest value that the client allows.
_MESSAGE_MAX_BYTES = 1_000_000_000


class DeadLetters:
    """Sends dead letters at least once: a letter's identity is (topic id, partition, offset), repeats count once.

    A letter's own Kafka timestamp is when it was refused, and not its original's: retention counts from there, and a
    letter of an old event would be deleted before anybody has seen it. The original's is one of the letter's headers.

    The producer is opened with the first letter: most products never have one. ``send`` and ``close`` may be called
    from different threads, one after the other.

    Args:
        config: the environment's librdkafka properties.
        product: the product whose letters these are.
        admin: is asked whether the topic is there.
        abandon: nothing is waited for any longer once it is set: a sink that must stop cannot wait for a broker.
    """

    def __init__(self, config: Mapping[str, str], product: Product, admin: Admin, abandon: Event) -> None:
        self._config = config
        self._product = product
        self._admin = admin
        self._abandon = abandon
        self._problems = Problems()
        self._producer: Producer | None = None
        self._failure: KafkaError | None = None

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """Send letters and wait until the broker has acknowledged them all.

        Raises:
            Unavailable: if it has not; some letters may have arrived: send them all again.
            NotApplied: if the dead-letter topic does not exist.
        """
        topic = self._product.dead_letter_topic
        # A producer would wait for a topic that is not there until its time is over; some brokers would even make it.
        self._admin.topic(topic)
        if self._producer is None:
            self._producer = self._opened()
        self._failure = None
        for letter in letters:
            self._produce(self._producer, topic, letter, ledger)
        left = self._flush(self._producer)
        if self._failure is not None:
            raise kafka_error(self._failure, where=topic)
        if left:
            raise Unavailable(f"{left} dead letters were not acknowledged", where=topic, hint="they are sent again")

    def close(self) -> None:
        """Give up what is still under way. Letters whose ``send`` returned have been acknowledged."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)

    def _opened(self) -> Producer:
        return open_producer(
            producer_config(
                self._config,
                self._problems,
                message_timeout_ms=int(_FLUSH_TIMEOUT_S * 1_000),
                # The client's own limit must not refuse what the source topic took; the dead-letter topic's takes it.
                message_max_bytes=_MESSAGE_MAX_BYTES,
            )
        )

    def _produce(self, producer: Producer, topic: str, letter: Letter, ledger: Ledger) -> None:
        while True:
            try:
                producer.produce(
                    topic,
                    value=letter.value,
                    key=letter.key,
                    headers=headers_of(letter, self._product.topic, ledger),
                    on_delivery=self._delivered,
                )
            except BufferError:
                if self._abandon.is_set():
                    raise Unavailable("dead letters cannot be sent any more", where=topic) from None
                producer.poll(_LOOK_S)
            except KafkaException as error:
                raise kafka_error(error, where=topic) from None
            else:
                return

    def _flush(self, producer: Producer) -> int:
        """Wait for acknowledgements; return how many letters have none."""
        deadline = time.monotonic() + _FLUSH_TIMEOUT_S
        while (left := producer.flush(_LOOK_S)) and time.monotonic() < deadline and not self._abandon.is_set():
            pass
        return left

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
        elif message.offset() is None:
            raise Bug("Kafka acknowledged a dead letter without an offset")
