"""Publishing a source that can be read again: exactly once, however often the run is killed and repeated."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from headrace.producers.positions import (
    TRANSACTION_TIMEOUT_S,
    Position,
    position_key,
    positions_topic,
    read_position,
)
from headrace.producers.publisher import schema_id_of
from headrace.producers.wire import Encoder
from headrace.schemas.errors import Bug, Unavailable
from headrace.streams.admin import Admin
from headrace.streams.kafka import UP_HINT, Problems, cause_of, open_producer, producer_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

# Transactions of 10,000 small events run at 170,000 to 240,000 a second; a second bounds what readers wait for.
TRANSACTION_EVENTS = 10_000
TRANSACTION_AGE_S = 1.0
# A commit is repeated until the broker has answered: asking for the same commit again is what the protocol foresees.
COMMIT_TIMEOUT_S = 60.0
_ATTEMPT_S = 10.0
_QUEUE_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Published:
    """What a run did.

    Attributes:
        sent: how many events this run committed.
        before: how many events earlier runs had committed; they were not sent again.
    """

    sent: int
    before: int


def publish_all(
    mesh: Mesh,
    product: str,
    source: Iterable[tuple[int, object]],
    *,
    identity: str,
    on_progress: Callable[[int], None] | None = None,
) -> Published:
    """Publish a source from where the last run ended, to its end.

    The position rides in the same Kafka transaction as the events. So a run that was killed at any moment and is run
    again neither loses nor doubles an event; a second process with the same identity fences the first, whose open
    transaction is aborted. Readers must be read_committed, as all of headrace's are.

    Args:
        mesh: the mesh.
        product: the product's name.
        source: pairs of position and event. Positions rise strictly, and the same position names the same event in each
            run. Events up to the last committed position are read and not sent.
        identity: names this source and its content, for ever: once it was published to its end, a run with the same
            identity sends nothing and does not read the source.
        on_progress: called after each commit with the number of events that it held.

    Raises:
        UserError: if the mesh has no such product, another process took over, or an event is too large.
        NotApplied: if topic or schema are not there yet.
        EventError: if the schema refuses an event. What was committed before it stays committed.
        Unavailable: if broker or registry do not answer. Run again: what was committed is not sent twice.
    """
    found = mesh.product(product)
    environment = mesh.environment
    config = environment.kafka_config()
    admin = Admin(config)
    topic, positions = admin.topic(found.topic), admin.topic(positions_topic(environment.topic_prefix))
    encoder = Encoder(found, schema_id_of(mesh, found))
    transactions = _Transactions(config, found, identity, positions.name)
    # Fences an older process first, so that the position read below is the last that it can have written.
    transactions.start()
    end = admin.log_ends(positions)[0]
    start = read_position(config, positions, end=end, topic=topic, identity=identity)
    if start.done:
        return Published(sent=0, before=start.events)
    reached = start
    for batch in _batches(source, encoder, start.position):
        reached = replace(reached, position=batch[-1].position, events=reached.events + len(batch))
        transactions.commit(batch, reached)
        if on_progress is not None:
            on_progress(len(batch))
    transactions.commit([], replace(reached, done=True))
    return Published(sent=reached.events - start.events, before=start.events)


@dataclass(frozen=True, slots=True)
class _Message:
    position: int
    key: bytes | None
    value: bytes


def _batches(source: Iterable[tuple[int, object]], encoder: Encoder, behind: int) -> Iterator[list[_Message]]:
    """Encode what lies behind a position, in batches of one transaction each.

    No transaction is open while a batch is collected: a source that blocks holds up no reader.
    """
    batch: list[_Message] = []
    began = time.monotonic()
    last: int | None = None
    for position, event in source:
        if last is not None and position <= last:
            raise Bug("the positions of a source must rise")
        last = position
        if position <= behind:
            continue
        batch.append(_Message(position, *encoder.encode(event)))
        if len(batch) == TRANSACTION_EVENTS or time.monotonic() - began > TRANSACTION_AGE_S:
            yield batch
            batch = []
            began = time.monotonic()
    if batch:
        yield batch


class _Transactions:
    """Writes batches of one source, each in a transaction with the position behind it."""

    def __init__(self, config: Mapping[str, str], product: Product, identity: str, positions: str) -> None:
        self._topic = product.topic
        self._positions = positions
        self._key = position_key(product.topic, identity)
        self._problems = Problems()
        digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
        timeout_ms = int(TRANSACTION_TIMEOUT_S * 1000)
        self._producer = open_producer(
            producer_config(
                config,
                self._problems,
                transactional_id=f"headrace.publish.{product.topic}.{digest}",
                transaction_timeout_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms,  # must not be above the transaction's
                delivery_report_only_error=True,
            )
        )

    def start(self) -> None:
        """Fence every older process with this source; its open transaction is over when this returns."""
        self._repeat(self._producer.init_transactions)

    def commit(self, batch: Sequence[_Message], reached: Position) -> None:
        """Write a batch and the position behind it, both or neither.

        Raises:
            Unavailable: if it is not committed, or nobody can say; the position tells the next run.
            UserError: if another process took over, or the broker refuses an event.
        """
        try:
            self._producer.begin_transaction()
            for message in batch:
                self._produce(self._topic, message.key, message.value)
            self._produce(self._positions, self._key, reached.to_bytes())
            self._repeat(self._producer.commit_transaction)
        except KafkaException as error:
            self._abort()
            raise self._error(error) from None
        except BaseException:
            self._abort()
            raise

    def _produce(self, topic: str, key: bytes | None, value: bytes) -> None:
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_S
        while True:
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(_QUEUE_WAIT_S)
                if time.monotonic() > deadline:
                    raise Unavailable("Kafka takes no more events", where=topic, hint=UP_HINT) from None
            else:
                return

    def _repeat(self, call: Callable[[float], None]) -> None:
        """Call until there is an outcome: librdkafka goes on with the same request where the last call left it."""
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                call(_ATTEMPT_S)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise self._error(error) from None
            else:
                return

    def _error(self, error: KafkaException) -> HeadraceError:
        return self._problems.error(cause_of(self._producer, error), where=self._topic)

    def _abort(self) -> None:
        # Where the broker does not hear it, it ends the transaction by itself after its time-out, and the next run's
        # start ends it before that.
        with contextlib.suppress(KafkaException):
            self._producer.abort_transaction(_ATTEMPT_S)
