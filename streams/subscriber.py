"""Subscribing to a product: its events as values, from the topic, from a time, or from the table's first row on.

::

    with Subscriber(mesh, "loyalty.bookings", group="marketing.campaigns") as events:
        for event in events:
            ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from typing_extensions import TypeVar

from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.registry import Registry
from headrace.streams.beginnings import Course
from headrace.streams.following import Following
from headrace.streams.masked import Masking
from headrace.streams.models import Model
from headrace.streams.opening import check_group, checked_start, noted_masks, pinned_version
from headrace.streams.pinned import Pinned
from headrace.streams.portions import OFFSET, PARTITION, PLACE_NAMES, SCHEMA_ID, TIMESTAMP, Place, Poison
from headrace.streams.starts import Beginning, Start
from headrace.streams.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import pyarrow as pa

    from headrace.schemas.mesh import Mesh
    from headrace.streams.portions import Portion

__all__ = ["Place", "Poison", "Reading", "Start", "Subscriber"]

# Without a model, events are dicts.
Event = TypeVar("Event", default=dict[str, Any])
Item = TypeVar("Item")

# Events become Python values so many at a time: the first one comes soon, and little is held in memory.
EVENT_ROWS = 1_000
# The largest batch that `batches` yields.
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a product is read.

    Attributes:
        version: the version of the product's subject that events are read as, whatever version they were written with;
            None: the latest one now.
        masked: put the product's masks on what comes from the topic too, as history has them; those of a later
            version from its first event on.
        until_end: end when what was there at the start has been handed out, to this subscriber or to others of its
            group; what came later is left for the next time.
        autocommit: commit positions about once a second, when partitions are given up, and on leaving the block
            without an exception. False: only `Subscriber.commit` does.
        on_poison: is told of each message that is no event, in its place between the events; it is passed then. None:
            poison stops the subscriber with an error that names partition, offset and reason.
    """

    version: int | None = None
    masked: bool = False
    until_end: bool = False
    autocommit: bool = True
    on_poison: Callable[[Poison], None] | None = None


class Subscriber(Generic[Event]):
    """Reads a product's events, each partition in order. A context manager; iterating it yields the events.

    An event is handled when the next one is asked for. Positions of handled events are committed about once a second
    and on leaving the block without an exception, so after a crash some events come again, and none is lost (at least
    once). Several subscribers of one group share the partitions. What does not answer is waited for, with a log line
    ``waiting``; in the meantime nothing comes.

    With ``start="history"``, a partition for which the group has no position begins with the table's rows and goes on
    in the topic from exactly where the table ends: none twice, none missed, however sink and producers go on
    meanwhile. The group's position counts there too, so that a subscriber that stopped in mid-history resumes. In the
    table PII is masked: a field whose mask is null is None there even if the schema requires a value. What the sink
    refused (dead letters) is not in history.

    Events of all versions are read as one version, and from table and topic alike. A field is followed through renames
    by alias, in both directions; a field that took a name which another gave up is not that one. What the version does
    not have is left out; its defaults fill what an event lacks. Numbers widen as a table's columns do (int to long,
    float to double, a decimal's digits), no further. A union of several branches is a dict with all branches, all but
    one None. Events of a version that cannot be read so stop the subscriber.

    Not to be shared between threads.

    Args:
        mesh: the mesh.
        product: ``domain.product``.
        group: the consumer group, such as ``marketing.campaigns``. None: no group: all partitions, nothing is
            committed, and each subscriber begins at ``start``.
        start: where to begin without a position of the group: a `Start`; a time with a zone: the first event of each
            partition that is not older; or an offset for each partition (``earliest`` for those not named).
        model: what events become: a pydantic model or a dataclass, checked against the schema. None: dicts with
            the schema's fields; maps are dicts, timestamps are aware in UTC, UUIDs are ``uuid.UUID``.
        reading: how it is read.

    Raises:
        UserError: no such product, version or group name; the model does not fit the schema; a start without zone.
        NotApplied: the product's schema is not registered, or (when iterating) its topic does not exist.
        SettingsError: a secret is missing or refused.
        Unavailable: the registry does not answer; later on, it is waited for.
    """

    def __init__(
        self,
        mesh: Mesh,
        product: str,
        *,
        group: str | None,
        start: Beginning = Start.EARLIEST,
        model: type[Event] | None = None,
        reading: Reading = Reading(),
    ) -> None:
        chosen = mesh.product(product)
        course = Course(mesh, chosen, group, checked_start(start), reading.until_end, reading.autocommit)
        check_group(group)
        self._reading = reading
        self._product = chosen
        with ExitStack() as opened:
            registry = opened.enter_context(Registry(mesh.environment.registry_config()))
            versions = registry.all_versions(chosen.subject)
            version = pinned_version(chosen, versions, reading.version)
            masking = reading.masked or course.start is Start.HISTORY
            past = noted_masks(mesh, chosen) if masking else None
            hmac_key = mesh.environment.hmac_key() if reading.masked else b""
            masked = Masking(reading.masked, past, chosen, mesh.policy, hmac_key)
            known = Versions(chosen, versions, lambda: registry.all_versions(chosen.subject), registry.schema)
            self._pinned = Pinned(chosen, version, known, masked)
            self._model = Model(model, chosen, version, self._pinned.nulled) if model is not None else None
            self._following = Following(course, self._pinned)
            self._opened = opened.pop_all()
        self._portions = self._following.portions()
        # Kept, so that what a loop leaves behind when it breaks off is there for the next one.
        self._by_event: Iterator[Event] | None = None
        self._by_batch: Iterator[pa.RecordBatch] | None = None
        self._at_hand: tuple[Portion, int] | None = None
        self.place: Place | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._handle()
            self._following.leave()
        finally:
            self._opened.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield events, for ever or until the end. Iterating again goes on where the last iteration was left.

        What was raised once is raised each time: a subscriber that failed gives nothing more.

        Raises:
            Refusal: poison, without ``on_poison``.
            UserError: events of a version that the pinned one cannot read; a version that masks a field as null whose
                column takes none; a position that Kafka has deleted; a group that is in use in another way; a block
                that took longer than ``max.poll.interval.ms``.
            ProductStopped: the table follows another topic, or its ledger contradicts it.
        """
        if self._by_batch is not None:
            raise _mixed()
        if self._by_event is None:
            self._by_event = _Lasting(self._events())
        return self._by_event

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield events as Arrow batches of one partition each, at most 65,536 at a time, in the order of offsets.

        Behind the event's columns stand ``_kafka_partition``, ``_kafka_offset``, ``_kafka_timestamp`` and
        ``_schema_id``. A batch is handled when the next one is asked for; ``place`` is its last event's. No model is
        made of them.

        Raises:
            Refusal, UserError, ProductStopped: as iterating.
        """
        if self._by_event is not None:
            raise _mixed()
        if self._by_batch is None:
            self._by_batch = _Lasting(self._batches())
        return self._by_batch

    def commit(self) -> None:
        """Commit the position behind everything handed out, the event at hand included, and wait for the broker.

        Without a group this does nothing.

        Raises:
            Unavailable: if the broker does not answer for 10 s, or partitions were given to others meanwhile; nothing
                is lost, events may come again.
            UserError: a block took longer than ``max.poll.interval.ms``.
        """
        self._handle()
        self._following.commit()

    def _events(self) -> Iterator[Event]:
        for portion, piece in self._pieces(EVENT_ROWS):
            values = piece.drop_columns(list(PLACE_NAMES)).to_pylist(maps_as_pydicts="strict")
            for value, at in zip(values, piece.select(list(PLACE_NAMES)).to_pylist(), strict=True):
                place = _place(at, portion)
                try:
                    event = cast("Event", value) if self._model is None else self._model.make(value)
                except Refusal as refusal:
                    self._poisoned(_refused(refusal, place, at[SCHEMA_ID]))
                    self._following.handled(portion, place.offset + 1)
                else:
                    self.place = place
                    self._at_hand = portion, place.offset + 1
                    yield event
                    self._handle()
                self._following.keep_alive()
                if self._following.current is not portion:
                    break

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for portion, piece in self._pieces(BATCH_ROWS):
            self.place = _place(piece.select(list(PLACE_NAMES)).slice(len(piece) - 1).to_pylist()[0], portion)
            self._at_hand = portion, self.place.offset + 1
            yield piece
            self._handle()

    def _pieces(self, rows: int) -> Iterator[tuple[Portion, pa.RecordBatch]]:
        """Yield events of one portion at a time; tell of poison between them."""
        for portion in self._portions:
            for piece in portion.pieces(rows):
                if self._following.current is not portion:
                    break
                if isinstance(piece, Poison):
                    self._poisoned(piece)
                    self._following.handled(portion, piece.offset + 1)
                    self._following.keep_alive()
                    continue
                yield portion, piece
                self._following.keep_alive()
            if self._following.current is not portion:
                continue
            if portion.stop is not None:
                raise portion.stop.error
            self._following.handled(portion, portion.end)

    def _handle(self) -> None:
        """Note that what was handed out last is handled."""
        if self._at_hand is not None:
            self._following.handled(*self._at_hand)
            self._at_hand = None

    def _poisoned(self, poison: Poison) -> None:
        """Tell of poison, or stop at it."""
        if self._reading.on_poison is not None:
            self._reading.on_poison(poison)
            return
        error = Refusal(poison.reason, f"this message is no event of {self._product.name}: {poison.what}")
        error.where = f"topic {self._product.topic}, partition {poison.partition}, offset {poison.offset}"
        error.hint = (
            "pass it with Reading(on_poison=...), which is told of each; the sink has put it into the dead letters"
        )
        raise error


class _Lasting(Iterator[Item]):
    """An iterator that never ends as if nothing were left after an error: it raises the error again."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._error: BaseException | None = None

    def __next__(self) -> Item:
        if self._error is not None:
            raise self._error
        try:
            return next(self._items)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise


def _mixed() -> UserError:
    return UserError(
        "a subscriber gives events one by one or in batches, not both",
        hint="use two subscribers, or one of the two ways",
    )


def _place(at: Mapping[str, Any], portion: Portion) -> Place:
    return Place(at[PARTITION], at[OFFSET], at[TIMESTAMP], portion.from_history)


def _refused(refusal: Refusal, place: Place, schema_id: int) -> Poison:
    return Poison(place.partition, place.offset, refusal.reason, refusal.what, schema_id)
