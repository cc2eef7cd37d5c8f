"""Publishing each event once, known by its id: what makes every output of a consumer that may repeat itself idempotent.

Faust, a retry, a job that is started again: each delivers at least once. What they publish goes through here, and no
event is doubled in topic or table. The product itself remembers which ids it holds; there is no other state to lose.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from headrace.producers.transactions import (
    PATIENCE_S,
    TRANSACTION_TIMEOUT_S,
    Transactions,
    left_open,
    transactional_id,
)
from headrace.producers.wire import Encoder, key_encoder
from headrace.schemas.avro import Fixed, Primitive
from headrace.schemas.errors import NotApplied, UserError
from headrace.schemas.registry import Registry
from headrace.schemas.verdicts import Verdicts
from headrace.streams.admin import Admin
from headrace.streams.kafka import APPLY_HINT
from headrace.streams.subscriber import Reading, Start, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from headrace.producers.transactions import Outgoing
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema
    from headrace.streams.admin import Topic

# Two of a thousand million ids share 16 bytes with a probability of 10^-21.
_DIGEST_BYTES = 16
# The broker ends what a publisher that died has left open, and looks for it every 10 s.
_OPEN_TRANSACTIONS_S = TRANSACTION_TIMEOUT_S + 30.0
_LOOK_AGAIN_S = 0.1


class OncePublisher:
    """Publishes events whose id was never published before, in a block: ``with OncePublisher(…) as findings: …``.

    Guaranteed: an event whose id the product holds is not published again, whoever published it and however long ago:
    ids are read from the product's table, and behind it from its topic, when this is opened. What one `publish` sends
    becomes visible as a whole or not at all. Whoever opens a publisher of the same identity takes over: what the
    process before has left open is aborted, and its next `publish` raises `UserError`.

    Not guaranteed: that another identity, or a plain `Publisher`, does not publish an id that this one publishes while
    it is open; that an id is known whose event neither topic nor table holds any more (deleted by retention before a
    sink had written it, or deleted from the table). Readers must be read_committed, as all of headrace's are.

    Ids are kept in memory, about 100 bytes each. Not for use by several threads at a time; calls may come from
    different ones, one after another (`asyncio.to_thread`). Opening reads the whole product, and waits with a log line
    for what does not answer.

    Args:
        mesh: the mesh.
        product: the product's name.
        identity: names the work whose output this is, for ever.
        id_field: the field whose value tells events apart: a string, uuid, int or long that is never null and not
            masked, because in the table nobody could tell masked ids apart.
        on_known: is told each event that the product holds, read as the contract's version, while this is opened, in
            the order of each partition: a fold of one's own output is how an application restores its state. Personal
            data that come from the table are masked.
        patience_s: how long opening and each `publish` wait for a broker that does not answer, in seconds, give or
            take ten. After that the outcome is unknown, and the next `publish`, or whoever opens next, finds it out.

    Raises:
        UserError: if the mesh has no such product, the field cannot be its events' id, or the product holds events of a
            version that the contract's cannot read.
        NotApplied: if topic or schema are not there yet.
        ProductStopped: if the table follows another topic.
        Unavailable: if broker or registry do not answer, or a transaction in the topic does not end.
    """

    def __init__(
        self,
        mesh: Mesh,
        product: str,
        *,
        identity: str,
        id_field: str,
        on_known: Callable[[Mapping[str, Any]], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._product = mesh.product(product)
        version = _checked(mesh, self._product, id_field)
        config = mesh.environment.kafka_config()
        admin = Admin(config)
        topic = admin.topic(self._product.topic)
        self._encoder = Encoder(self._product, version.id)
        self._id_of = key_encoder(self._product.schema.record, [id_field])
        self._closed = False
        # Published by a write that raised: known or not, as the broker will say.
        self._unsettled: frozenset[bytes] = frozenset()
        self._transactions = Transactions(
            config,
            transactional_id("once", topic.name, identity),
            where=self._product.topic,
            patience_s=patience_s,
        )
        # Fences an older process first, so that what is read below is all that it can have written.
        self._transactions.start()
        _wait_for_open_transactions(admin, topic)
        with _subscriber(mesh, self._product, version) as held:
            read = _ids(held, id_field) if on_known is None else _told(held, id_field, on_known)
            self._known = {_digest(_text(each)) for each in read}

    def publish(self, events: Iterable[object]) -> int:
        """Publish those of the events whose id was never published before, all in one transaction.

        After an error the same events may be given again: those that were published after all are not repeated.

        Args:
            events: dicts, dataclasses or pydantic models with the schema's fields; of several with the same id the
                first counts. All of them must be sent within 30 s, so give some ten thousand at a time.

        Returns:
            How many were published.

        Raises:
            EventError: if the contract's schema refuses an event; none is published then.
            UserError: if another process of this identity has taken over, or the broker refuses an event.
            Unavailable: if the broker does not answer.
        """
        if self._closed:
            raise UserError("the publisher is closed", where=str(self._product.name), hint="publish inside its block")
        self._settle()
        new: dict[bytes, Outgoing] = {}
        for event in events:
            record = self._encoder.record(event)
            digest = _digest(self._id_of(record) or b"")
            if digest not in self._known and digest not in new:
                new[digest] = (self._product.topic, *self._encoder.message(record))
        if not new:
            return 0
        self._unsettled = frozenset(new)
        self._transactions.write(new.values())
        self._unsettled = frozenset()
        self._known |= new.keys()
        return len(new)

    def close(self) -> None:
        """Stop. May be called more than once; what `publish` has returned is published whether or not this is."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self) -> None:
        if self._unsettled:
            if self._transactions.settle():
                self._known |= self._unsettled
            self._unsettled = frozenset()


def _checked(mesh: Mesh, product: Product, id_field: str) -> RegisteredSchema:
    """Return the version that the contract's schema is, if the field can be the id of its events."""
    where = str(product.name)
    field = product.schema.record.field(id_field)
    if field is None:
        names = ", ".join(each.name for each in product.schema.record.fields)
        raise UserError(f"the schema has no field {id_field}", where=where, hint=f"it has {names}")
    match field.type:
        case Primitive(name="string") | Primitive(name="int" | "long", logical=None) | Fixed(logical="uuid"):
            pass
        case _:
            raise UserError(
                f"{id_field} cannot be an id", where=where, hint="an id is a string, uuid, int or long, never null"
            )
    with Registry(mesh.environment.registry_config()) as registry:
        registered = registry.lookup(product.subject, product.schema)
        masked = id_field in product.masks
        if registered is not None:
            # A field is masked if any version of its subject tags it, under whatever name.
            verdicts = Verdicts.of(product, mesh.policy, registry.all_versions(product.subject))
            masked |= id_field in verdicts.masks.at(verdicts.lineage.steps[registered.version].placed)
    if masked:
        raise UserError(
            f"{id_field} is personal data: masked in the table, where ids are read",
            where=where,
            hint="choose or add a field that tells events apart and is not personal",
        )
    if registered is None:
        raise NotApplied("the schema is not registered", where=f"subject {product.subject}", hint=APPLY_HINT)
    return registered


def _wait_for_open_transactions(admin: Admin, topic: Topic) -> None:
    """Wait until every transaction that begins before the log's end of now has ended.

    A reader of committed records sees nothing behind the first open one, be it of somebody else: ids that the process
    before has committed could stand there.
    """
    wanted = admin.log_ends(topic)
    deadline = time.monotonic() + _OPEN_TRANSACTIONS_S
    while any(marks.end < wanted[partition] for partition, marks in admin.watermarks(topic).items()):
        if time.monotonic() > deadline:
            raise left_open(topic.name)
        time.sleep(_LOOK_AGAIN_S)


def _subscriber(mesh: Mesh, product: Product, version: RegisteredSchema) -> Subscriber[Any]:
    # Read as the contract's version, whatever has become of the id's name since. Poison has no id.
    reading = Reading(until_end=True, version=version.version, on_poison=lambda _: None)
    return Subscriber(mesh, str(product.name), group=None, start=Start.HISTORY, reading=reading)


def _ids(events: Subscriber[Any], id_field: str) -> Iterator[object]:
    """Yield the ids that the product holds."""
    for batch in events.batches():
        yield from batch.column(id_field).to_pylist()


def _told(events: Subscriber[Any], id_field: str, on_known: Callable[[Mapping[str, Any]], None]) -> Iterator[object]:
    """Tell the events that the product holds, and yield their ids."""
    for event in events:
        on_known(event)
        yield event[id_field]


def _text(value: object) -> bytes:
    """Return an id as a message's key would spell it: in memory a UUID has several shapes."""
    uuid = UUID(bytes=value) if isinstance(value, bytes) else value
    return str(uuid).encode()


def _digest(text: bytes) -> bytes:
    """Return what is remembered of an id."""
    return blake2b(text, digest_size=_DIGEST_BYTES).digest()
