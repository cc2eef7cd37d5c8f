"""Publishing a source that can be read again: exactly once, however often the run is killed and repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.producers.positions import Position, position_key, positions_topic, read_position
from headrace.producers.publisher import schema_id_of
from headrace.producers.transactions import Transactions, transactional_id
from headrace.producers.wire import Encoder
from headrace.schemas.errors import Bug
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace.producers.transactions import Outgoing
    from headrace.schemas.mesh import Mesh

# Transactions of 10,000 small events run at 170,000 to 240,000 a second; a second bounds what readers wait for.
TRANSACTION_EVENTS = 10_000
TRANSACTION_AGE_S = 1.0


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
    transactions = Transactions(config, transactional_id("publish", found.topic, identity), where=found.topic)
    # Fences an older process first, so that the position read below is the last that it can have written.
    transactions.start()
    end = admin.log_ends(positions)[0]
    start = read_position(config, positions, end=end, topic=topic, identity=identity)
    if start.done:
        return Published(sent=0, before=start.events)

    def position(at: Position) -> Outgoing:
        return positions.name, position_key(topic.name, identity), at.to_bytes()

    reached = start
    for batch in _batches(source, encoder, start.position):
        reached = replace(reached, position=batch[-1].position, events=reached.events + len(batch))
        transactions.write([*((found.topic, sent.key, sent.value) for sent in batch), position(reached)])
        if on_progress is not None:
            on_progress(len(batch))
    transactions.write([position(replace(reached, done=True))])
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
