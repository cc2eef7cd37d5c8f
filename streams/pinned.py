"""Events of any version, read as one: from frames and from the table's rows to batches of the same columns."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Map, Record, optional_of
from headrace.schemas.errors import Refusal, SchemaError, UserError
from headrace.schemas.masking import Masker, map_items, map_values
from headrace.schemas.stamps import holdable
from headrace.schemas.types import ColumnTypes, arrow_type, unsupported
from headrace.streams.columns import Columns
from headrace.streams.decode import Decoder
from headrace.streams.portions import OFFSET, PARTITION, PLACE_FIELDS, SCHEMA_ID, TIMESTAMP, Poison, Portion, Stop
from headrace.streams.resolution import unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema
    from headrace.streams.frames import Frame

# Reasons of poison, beside those of a `Refusal`.
NULL_VALUE = "null-value"
NO_SCHEMA_ID = "no-schema-id"
UNDECODABLE = "undecodable"
_WHAT = {
    NULL_VALUE: "the message has no value",
    NO_SCHEMA_ID: "the value does not begin with a schema id",
    UNDECODABLE: "the value does not fit the schema that it names, or no table could hold it",
}
# So long a schema id stays refused before the registry is asked for it again.
REFUSED_S = 5.0


class Versions:
    """The versions of a product's subject, by schema id.

    Args:
        product: the product.
        ask: returns the subject's versions as the registry has them now.
        known: the versions known so far.
        probe: asks the registry for an id that is none of them, and raises its `Refusal`.
        clock_s: tells seconds that never go back.
    """

    def __init__(
        self,
        product: Product,
        known: Sequence[RegisteredSchema],
        ask: Callable[[], Sequence[RegisteredSchema]],
        probe: Callable[[int], object],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._product = product
        self._known = {version.id: version for version in known}
        self._ask = ask
        self._probe = probe
        self._clock_s = clock_s
        self._refusals: dict[int, tuple[float, Refusal]] = {}

    def find(self, schema_id: int) -> RegisteredSchema | Refusal:
        """Return the version that has this id, or why there is none.

        Raises:
            SchemaError: if a version is no Avro, or Avro that headrace cannot carry.
            Unavailable: if the registry does not answer.
        """
        if schema_id in self._known:
            return self._known[schema_id]
        until_s, refusal = self._refusals.get(schema_id, (0.0, None))
        if refusal is not None and self._clock_s() < until_s:
            return refusal
        self._known |= {version.id: version for version in self._ask()}
        if schema_id in self._known:
            return self._known[schema_id]
        try:
            with suppress(SchemaError):
                self._probe(schema_id)
            refusal = Refusal("foreign-schema", f"schema id {schema_id} is no version of {self._product.subject}")
        except Refusal as unknown:
            refusal = unknown
        self._refusals[schema_id] = self._clock_s() + REFUSED_S, refusal
        return refusal

    def known(self, schema_id: int) -> RegisteredSchema | None:
        """Return the version that has this id, None if there is none."""
        found = self.find(schema_id)
        return None if isinstance(found, Refusal) else found


class Pinned:
    """Reads events of all versions as one version. Not to be shared between threads.

    Args:
        product: the product.
        version: the version to read as.
        versions: all versions.
        masker: puts masks on what comes from the topic.
        nulled: paths of fields that may be null whatever the schema says, because a mask makes them so.

    Attributes:
        schema: the columns of all batches.
        columns: the names of the event's own.
        nothing: a batch without rows.
    """

    def __init__(
        self,
        product: Product,
        version: RegisteredSchema,
        versions: Versions,
        masker: Masker,
        nulled: frozenset[str],
    ) -> None:
        ids = count(1)
        fields = ColumnTypes(lambda: next(ids), nulled).struct(version.schema.record).fields
        self._product = product
        self._version = version
        self._versions = versions
        self._live = Columns(fields, version.schema.record, masker)
        self._plain = Columns(fields, version.schema.record, Masker({}, b""))
        self._decoders: dict[int, Decoder] = {}
        self._faults: dict[int, UserError | None] = {}
        self.schema = pa.schema([*map(event_field, fields), *PLACE_FIELDS])
        self.columns = frozenset(field.name for field in fields)
        self.nothing = pa.RecordBatch.from_arrays([pa.nulls(0, each.type) for each in self.schema], schema=self.schema)

    def portions(self, frames: Iterable[Frame]) -> Iterator[Portion]:
        """Read frames of one poll, in the order in which they came: one portion a partition.

        Raises:
            Unavailable: if the registry does not answer; the same frames can be read again.
            SchemaError: if a registered version cannot be carried.
        """
        by_partition: dict[int, list[Frame]] = {}
        for frame in frames:
            by_partition.setdefault(frame.partition, []).append(frame)
        for partition, some in by_partition.items():
            parts = [self._frame(frame) for frame in some]
            yield _joined(partition, parts, 1 + max(int(frame.offsets[-1]) for frame in some))

    def rows(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Stop | None]:
        """Read rows of the table, all of one partition and in order; what comes at or behind a stop is left out.

        A row shows only what its event's version has, so that defaults fill the rest as they do in the topic's events.

        Raises:
            Unavailable, SchemaError: as `portions`.
        """
        ids = rows.column(SCHEMA_ID).to_numpy()
        stops = [
            Stop(int(rows.column(OFFSET)[int(np.flatnonzero(ids == each)[0])].as_py()), fault)
            for each in np.unique(ids).tolist()
            if (fault := self._fault(each)) is not None
        ]
        stop = min(stops, key=lambda each: each.offset, default=None)
        if stop is not None:
            kept = int(rows.column(OFFSET).to_numpy().searchsorted(stop.offset))
            rows, ids = rows.slice(0, kept), ids[:kept]
        parts, order = [], []
        for schema_id in np.unique(ids).tolist():
            places = np.flatnonzero(ids == schema_id)
            some = rows if len(places) == len(ids) else rows.take(pa.array(places))
            parts.append(self._shaped_rows(some, schema_id))
            order.append(places)
        if len(parts) <= 1:
            return (parts[0] if parts else self.nothing), stop
        return pa.concat_batches(parts).take(pa.array(np.argsort(np.concatenate(order), kind="stable"))), stop

    def _frame(self, frame: Frame) -> Portion:
        poisons: list[Poison] = []
        if frame.schema_id is None:
            return Portion(frame.partition, self.nothing, tuple(_poisons(frame, range(len(frame)))))
        version = self._versions.find(frame.schema_id)
        if isinstance(version, Refusal):
            return Portion(frame.partition, self.nothing, tuple(_poisons(frame, range(len(frame)), version)))
        fault = self._fault(frame.schema_id)
        if fault is not None:
            return Portion(frame.partition, self.nothing, stop=Stop(int(frame.offsets[0]), fault))
        decoder = self._decoders.get(version.id)
        if decoder is None:
            decoder = self._decoders[version.id] = Decoder(version.schema, version.id)
        decoded = decoder.decode(frame.values)
        poisons += _poisons(frame, decoded.refused, Refusal(UNDECODABLE, _WHAT[UNDECODABLE]))
        kept = np.ones(len(frame), bool)
        kept[list(decoded.refused)] = False
        stamps = frame.timestamps_ms[kept]
        stamped = holdable(stamps)
        places = [
            pa.repeat(pa.scalar(frame.partition, pa.int32()), len(stamps)),
            pa.array(frame.offsets[kept]),
            pa.array(np.where(stamped, stamps, 0) * 1_000, mask=~stamped).cast(pa.timestamp("us", tz="UTC")),
            pa.repeat(pa.scalar(version.id, pa.int32()), len(stamps)),
        ]
        return Portion(frame.partition, self._batch(self._live.of(decoded.events), places), tuple(poisons))

    def _shaped_rows(self, rows: pa.RecordBatch, schema_id: int) -> pa.RecordBatch:
        version = self._versions.known(schema_id)
        events = rows.drop_columns([PARTITION, OFFSET, TIMESTAMP, SCHEMA_ID]).to_struct_array()
        if version is not None:
            events = as_written(events, version.schema.record)
        return self._batch(self._plain.of(events), [rows.column(field.name) for field in PLACE_FIELDS])

    def _batch(self, events: list[pa.Array], places: list[pa.Array]) -> pa.RecordBatch:
        columns = [
            array if array.type == field.type else array.cast(field.type)
            for array, field in zip([*events, *places], self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _fault(self, schema_id: int) -> UserError | None:
        """Return why events of a version cannot be read as this one, if they cannot."""
        if schema_id not in self._faults:
            version = self._versions.known(schema_id)
            if version is None:
                # What stands in the table was a version once: it is read by the names of its columns.
                return None
            self._faults[schema_id] = unreadable_version(self._product, version, self._version)
        return self._faults[schema_id]


def unreadable_version(product: Product, written: RegisteredSchema, pinned: RegisteredSchema) -> UserError | None:
    """Return the error of events that cannot be read as the pinned version; None if they can."""
    carried = unsupported(written.schema)
    faults = [(path, what) for path, what, _ in carried] or unreadable(written.schema.record, pinned.schema.record)
    if not faults:
        return None
    path, what = faults[0]
    return UserError(
        f"events of version {written.version} cannot be read as version {pinned.version}: {path}: {what}",
        where=f"subject {product.subject}",
        hint=f"pin a version that reads them, such as {written.version}, or start behind them",
    )


def event_field(field: ice.NestedField) -> pa.Field:
    """Return the Arrow field that a subscriber sees: as a table's, with UUIDs as such."""
    return pa.field(field.name, event_type(field.field_type), nullable=not field.required)


def event_type(kind: ice.IcebergType) -> pa.DataType:
    """Return the Arrow type that a subscriber sees for an Iceberg type."""
    match kind:
        case ice.StructType(fields=fields):
            return pa.struct(list(map(event_field, fields)))
        case ice.ListType():
            return pa.list_(pa.field("element", event_type(kind.element_type), nullable=not kind.element_required))
        case ice.MapType():
            value = pa.field("value", event_type(kind.value_type), nullable=not kind.value_required)
            return pa.map_(pa.string(), value)
        case ice.UUIDType():
            return pa.uuid()
        case _:
            return arrow_type(kind)


def as_written(array: pa.Array, avro_type: AvroType) -> pa.Array:
    """Return a table's values with only those fields that the writer's schema has, at any depth."""
    inner, _ = optional_of(avro_type)
    match inner:
        case Record() if pa.types.is_struct(array.type):
            known = [(place, field) for place, each in enumerate(array.type) if (field := inner.field(each.name))]
            children = [as_written(array.field(place), field.type) for place, field in known]
            names = [pa.field(field.name, child.type) for (_, field), child in zip(known, children, strict=True)]
            if not known:
                return array
            return pa.StructArray.from_arrays(
                children, fields=names, mask=array.is_null() if array.null_count else None
            )
        case Array(items=items) if pa.types.is_list(array.type):
            return map_items(array, lambda values: as_written(values, items))
        case Map(values=values) if pa.types.is_map(array.type):
            return map_values(array, lambda inside: as_written(inside, values))
        case _:
            return array


def _poisons(frame: Frame, rows: Iterable[int], refusal: Refusal | None = None) -> Iterator[Poison]:
    for row in rows:
        value = frame.values[row].as_py()
        reason = refusal.reason if refusal else NULL_VALUE if value is None else NO_SCHEMA_ID
        yield Poison(
            partition=frame.partition,
            offset=int(frame.offsets[row]),
            reason=reason,
            what=refusal.what if refusal else _WHAT[reason],
            schema_id=frame.schema_id,
            key=frame.keys[row].as_py(),
            value=value,
        )


def _joined(partition: int, parts: Sequence[Portion], end: int) -> Portion:
    """Return what was read of several frames in the order of offsets, up to the first stop."""
    stop = min((part.stop for part in parts if part.stop), key=lambda each: each.offset, default=None)
    events = parts[0].events if len(parts) == 1 else pa.concat_batches([part.events for part in parts])
    if len(parts) > 1:
        events = events.take(pa.array(np.argsort(events.column(OFFSET).to_numpy(), kind="stable")))
    poisons = sorted((poison for part in parts for poison in part.poisons), key=lambda poison: poison.offset)
    whole = Portion(partition, events, tuple(poisons), stop, end)
    return whole if stop is None else whole.before(stop.offset + 1)
