"""Publishing a product's events from a service."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException

from headrace.producers.wire import Encoder
from headrace.schemas.errors import HeadraceError, NotApplied, Unavailable, UserError
from headrace.schemas.registry import Registry
from headrace.streams.admin import Admin
from headrace.streams.kafka import APPLY_HINT, Problems, cause_of, open_producer, producer_config

if TYPE_CHECKING:
    from types import TracebackType

    from confluent_kafka import KafkaError, Message

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

# Long enough for a broker that restarts (4 s embedded, a minute in a rolling upgrade), short enough for a service that
# wants to know.
DELIVERY_TIMEOUT_S = 60.0
# How long a full queue is served before its state is looked at again.
_QUEUE_WAIT_S = 0.1
# librdkafka reports what it gives up within a second after the time-out.
_REPORT_GRACE_S = 5.0


def schema_id_of(mesh: Mesh, product: Product) -> int:
    """Return the id under which the product's schema is registered. Registers nothing.

    Raises:
        NotApplied: if the schema is no version of the product's subject.
        Unavailable: if the registry does not answer.
    """
    with Registry(mesh.environment.registry_config()) as registry:
        registered = registry.lookup(product.subject, product.schema)
    if registered is None:
        raise NotApplied("the schema is not registered", where=f"subject {product.subject}", hint=APPLY_HINT)
    return registered.id


class Publisher:
    """Publishes one product's events: ``with Publisher(mesh, "weather.observations") as weather: weather.publish(…)``.

    Guaranteed: an event that the contract's schema refuses never leaves; events of one key stay in order; an event is
    written once even if the client repeats its request (acks=all, idempotence); after `flush` returns, or the block is
    left without an error, every event was acknowledged by all replicas. An event that could not be delivered is raised
    by the next `publish` or `flush`, or on leaving the block, with the number of such events.

    Not guaranteed: that a service which dies takes up where it ended. Use `publish_all` for a source that can be read
    again. Events may be published from several threads; a fork must make its own publisher.

    Args:
        mesh: the mesh.
        product: the product's name.
        delivery_timeout_s: how long an event may wait for its acknowledgement.

    Raises:
        UserError: if the mesh has no such product.
        NotApplied: if its topic or its schema is not there yet.
        Unavailable: if the broker or the registry does not answer.
    """

    def __init__(self, mesh: Mesh, product: str, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        self._product = mesh.product(product)
        config = mesh.environment.kafka_config()
        Admin(config).topic(self._product.topic)
        self._encoder = Encoder(self._product, schema_id_of(mesh, self._product))
        self._timeout_s = delivery_timeout_s
        self._problems = Problems()
        self._undelivered = _Undelivered()
        self._closed = False
        settings = producer_config(
            config,
            self._problems,
            delivery_timeout_ms=int(delivery_timeout_s * 1000),
            # Only failures call back: a callback for each event would cost more than to send it.
            delivery_report_only_error=True,
        )
        self._producer = open_producer({**settings, "on_delivery": self._undelivered.report})

    def publish(self, event: object) -> None:
        """Check an event and hand it to the client, which sends it within 20 ms. Blocks while its queue is full.

        Args:
            event: a dict, dataclass or pydantic model with the schema's fields.

        Raises:
            EventError: if the contract's schema refuses the event; it names the field, never the value.
            UserError: if the event is larger than the client sends, or an earlier one was refused by the broker.
            Unavailable: if earlier events could not be delivered, or the queue stays full.
        """
        if self._closed:
            raise UserError("the publisher is closed", where=str(self._product.name), hint="publish inside its block")
        key, value = self._encoder.encode(event)
        self._produce(key, value)
        self._poll(0)
        self._raise_undelivered()

    def flush(self) -> None:
        """Wait until every event so far is acknowledged.

        Raises:
            Unavailable: if events could not be delivered, with their number.
            UserError: if the broker refused one for ever.
        """
        try:
            remaining = self._producer.flush(self._timeout_s + _REPORT_GRACE_S)
        except KafkaException as error:
            raise self._lost(len(self._producer), self._error(error)) from None
        self._raise_undelivered()
        if remaining:
            raise self._lost(remaining, Unavailable("Kafka does not answer", where=self._product.topic))

    def close(self) -> None:
        """Flush and stop. May be called more than once.

        Raises:
            Unavailable: as `flush` does.
            UserError: as `flush` does.
        """
        if not self._closed:
            self._closed = True
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # What was published before the error still leaves; the error stays the one that the caller sees.
        try:
            self.close()
        except HeadraceError as undelivered:
            error.add_note(f"headrace: {undelivered}")

    def _produce(self, key: bytes | None, value: bytes) -> None:
        deadline: float | None = None
        while True:
            try:
                self._producer.produce(self._product.topic, value, key)
            except BufferError:
                deadline = deadline or time.monotonic() + self._timeout_s + _REPORT_GRACE_S
                self._poll(_QUEUE_WAIT_S)
                self._raise_undelivered()
                if time.monotonic() > deadline:
                    raise self._lost(1, Unavailable("the queue stays full", where=self._product.topic)) from None
            except KafkaException as error:
                raise self._error(error) from None
            else:
                return

    def _poll(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            raise self._error(error) from None

    def _error(self, error: KafkaException) -> HeadraceError:
        return self._problems.error(cause_of(self._producer, error), where=self._product.topic)

    def _raise_undelivered(self) -> None:
        if self._undelivered.count:
            count, first = self._undelivered.take()
            if first is not None:
                raise self._lost(count, self._problems.error(first, where=self._product.topic))

    def _lost(self, count: int, cause: HeadraceError) -> HeadraceError:
        events = "1 event was" if count == 1 else f"{count:,} events were"
        return type(cause)(f"{events} not delivered: {cause.what}", where=cause.where, hint=cause.hint)


class _Undelivered:
    """Counts events that the client gave up; its callback may run in any thread that polls."""

    def __init__(self) -> None:
        self.count = 0
        self._first: KafkaError | None = None
        self._lock = threading.Lock()

    def report(self, error: KafkaError | None, _message: Message) -> None:
        """Note one failure; librdkafka's delivery callback."""
        if error is not None:
            with self._lock:
                self.count += 1
                self._first = self._first or error

    def take(self) -> tuple[int, KafkaError | None]:
        """Return what was noted since the last call."""
        with self._lock:
            count, first = self.count, self._first
            self.count, self._first = 0, None
        return count, first
