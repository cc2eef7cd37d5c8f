"""Events of any version, read as one: from frames and from the table's rows to batches of the same columns."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice

from headrace.schemas.arrow_types import arrow_field
from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.masking import Masker
from headrace.schemas.registered import RegisteredSchema
from headrace.schemas.stamps import holdable
from headrace.schemas.types import ColumnTypes, arrow_type
from headrace.streams.columns import Columns
from headrace.streams.decode import Decoder
from headrace.streams.portions import OFFSET, PLACE_FIELDS, SCHEMA_ID, Poison, Portion, Stop
from headrace.streams.relations import Relations
from headrace.streams.symbols import with_symbols

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.schemas.product import Product
    from headrace.streams.frames import Frame
    from headrace.streams.masked import Masking
    from headrace.streams.naming import Names
    from headrace.streams.versions import Versions

# Reasons of poison, beside those of a `Refusal`.
NULL_VALUE = "null-value"
NO_SCHEMA_ID = "no-schema-id"
UNDECODABLE = "undecodable"
UNKNOWN_SYMBOL = "unknown-symbol"
_WHAT = {
    NULL_VALUE: "the message has no value",
    NO_SCHEMA_ID: "the value does not begin with a schema id",
    UNDECODABLE: "the value does not fit the schema that it names, or no table could hold it",
    UNKNOWN_SYMBOL: "an enum's symbol is none of the version's that events are read as, which has no default for it",
}


class Pinned:
    """Reads events of all versions as one version. Not to be shared between threads.

    Args:
        product: the product.
        version: the version to read as, one of them.
        versions: all versions.
        masking: says which masks are put on what comes from the topic, and what may be null because masks make it so.

    Attributes:
        schema: the columns of all batches.
        nothing: a batch without rows.
        relations: what other versions are to the one that events are read as.
        nulled: the paths of fields that may be null whatever the schema says, because their masks make them so.
    """

    def __init__(
        self,
        product: Product,
        version: RegisteredSchema,
        versions: Versions,
        masking: Masking,
    ) -> None:
        # One schema may be several versions: its events cannot be told apart, and are those of one of them.
        found = versions.find(version.id)
        version = found if isinstance(found, RegisteredSchema) else version
        masks = masking.over(versions, version)
        fields = _columns(version, masks.nulled)
        self._product = product
        self._version = version
        self._versions = versions
        self._fields = fields
        self._masking = masking
        self._masked = masks.put
        self._followed = len(versions.all)
        self._live = Columns(fields, version.schema.record, masks.masker)
        self._plain = Columns(fields, version.schema.record, Masker({}, b""))
        self.relations = Relations(product, version, versions)
        self._decoders: dict[int, Decoder] = {}
        self._unfit: UserError | None = None
        self.nulled = masks.nulled
        self.schema = _schema(fields)
        self.nothing = pa.RecordBatch.from_arrays([pa.nulls(0, each.type) for each in self.schema], schema=self.schema)

    def portions(self, frames: Iterable[Frame]) -> Iterator[Portion]:
        """Read frames of one poll, in the order in which they came: one portion a partition.

        A field that any version tags is masked in events of all versions, from the first event of that version on.

        Raises:
            Unavailable: if the registry does not answer; the same frames can be read again.
            UserError: if a version masks a field as null whose column takes none, or the subject was made anew.
        """
        by_partition: dict[int, list[Frame]] = {}
        for frame in frames:
            by_partition.setdefault(frame.partition, []).append(frame)
            if frame.schema_id is not None:
                self._versions.find(frame.schema_id)
        self._follow()
        if self._unfit is not None and self._masking.live:
            raise self._unfit
        for partition, some in by_partition.items():
            parts = [self._frame(frame) for frame in some]
            yield _joined(partition, parts, 1 + max(int(frame.offsets[-1]) for frame in some))

    def rows(self, partition: int, rows: pa.RecordBatch, held: int) -> Portion:
        """Read rows of the table, all of one partition and in order; what comes at or behind a stop is left out.

        A row shows only what its event's version has, so that defaults fill the rest as they do in the topic's events.

        Args:
            partition: the partition.
            rows: at least one, with the columns that `Relations.columns` names, and where they stand.
            held: the newest version that the table has followed.

        Raises:
            Unavailable, UserError: as `portions`.
        """
        ids, end = rows.column(SCHEMA_ID).to_numpy(), int(rows.column(OFFSET)[-1].as_py()) + 1
        stops = [
            Stop(int(rows.column(OFFSET)[int(np.flatnonzero(ids == each)[0])].as_py()), fault)
            for each in np.unique(ids).tolist()
            if isinstance(fault := self.relations.of(each), UserError)
        ]
        self._follow()
        if self._unfit is not None:
            raise self._unfit
        stop = min(stops, key=lambda each: each.offset, default=None)
        if stop is not None:
            kept = int(rows.column(OFFSET).to_numpy().searchsorted(stop.offset))
            rows, ids = rows.slice(0, kept), ids[:kept]
        parts = []
        for schema_id in np.unique(ids).tolist():
            places = np.flatnonzero(ids == schema_id)
            some = rows if len(places) == len(ids) else rows.take(pa.array(places))
            parts.append(self._rows_of_version(partition, some, schema_id, held))
        joined = _joined(partition, parts or [Portion(partition, self.nothing)], end)
        return replace(joined, stop=joined.stop or stop, from_history=True)

    def _frame(self, frame: Frame) -> Portion:
        poisons: list[Poison] = []
        if frame.schema_id is None:
            return Portion(frame.partition, self.nothing, tuple(_poisons(frame, range(len(frame)))))
        version = self.relations.of(frame.schema_id)
        if isinstance(version, Refusal):
            return Portion(frame.partition, self.nothing, tuple(_poisons(frame, range(len(frame)), version)))
        if isinstance(version, UserError):
            return Portion(frame.partition, self.nothing, stop=Stop(int(frame.offsets[0]), version))
        decoder = self._decoders.get(version.id)
        if decoder is None:
            decoder = self._decoders[version.id] = Decoder(version.schema, version.id)
        decoded = decoder.decode(frame.values)
        poisons += _poisons(frame, decoded.refused, Refusal(UNDECODABLE, _WHAT[UNDECODABLE]))
        kept = np.ones(len(frame), bool)
        kept[list(decoded.refused)] = False
        arrays, strange = self._read(decoded.events, version)
        if strange.any():
            poisons += _poisons(frame, np.flatnonzero(kept)[strange].tolist(), _strange_symbol())
            kept[kept] = ~strange
        stamps = frame.timestamps_ms[kept]
        stamped = holdable(stamps)
        places = [
            pa.repeat(pa.scalar(frame.partition, pa.int32()), len(stamps)),
            pa.array(frame.offsets[kept]),
            pa.array(np.where(stamped, stamps, 0) * 1_000, mask=~stamped).cast(pa.timestamp("us", tz="UTC")),
            pa.repeat(pa.scalar(version.id, pa.int32()), len(stamps)),
        ]
        return Portion(frame.partition, self._batch(arrays, places), tuple(poisons))

    def _read(self, events: pa.StructArray, version: RegisteredSchema) -> tuple[list[pa.Array], NDArray[np.bool_]]:
        """Return the pinned version's columns of events, and which events are left out for a symbol of theirs."""
        names = self.relations.in_event(version)
        if not self.relations.has_strange_symbols(version):
            return self._live.of(events, names), np.zeros(len(events), bool)
        # Before the masks: what they make of a symbol is none.
        found, strange = with_symbols(self._shaped(events, names), self._version.schema.record)
        return self._live.of(found.filter(pa.array(~strange))), strange

    def _rows_of_version(self, partition: int, rows: pa.RecordBatch, schema_id: int, held: int) -> Portion:
        found = self.relations.of(schema_id)
        # What stands in the table was a version once: if the registry has lost it, it is read as what its columns are.
        version = found if isinstance(found, RegisteredSchema) else None
        offsets = rows.column(OFFSET).to_numpy()
        try:
            shaped = self._shaped(rows.to_struct_array(), self.relations.in_row(version, held))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            # Only where the registry has lost the version, and nothing is known of what its events were.
            shaped = None
        if shaped is None or (lacking := self._lacking(shaped)) is not None:
            what = "values of another type" if shaped is None else f"no value of {lacking}"
            return Portion(partition, self.nothing, stop=Stop(int(offsets[0]), self._unlike(version, schema_id, what)))
        places = [rows.column(field.name) for field in PLACE_FIELDS]
        if version is not None and not self.relations.has_strange_symbols(version):
            return Portion(partition, self._batch(shaped.flatten(), places))
        found, strange = with_symbols(shaped, self._version.schema.record, self._masked)
        why = _strange_symbol()
        poisons = [Poison(partition, offset, why.reason, why.what, schema_id) for offset in offsets[strange].tolist()]
        kept = pa.array(~strange)
        places = [each.filter(kept) for each in places]
        return Portion(partition, self._batch(found.filter(kept).flatten(), places), tuple(poisons))

    def _shaped(self, events: pa.StructArray, names: Names) -> pa.StructArray:
        """Return events in the columns of the pinned version, without masks."""
        return pa.StructArray.from_arrays(self._plain.of(events, names), fields=list(map(arrow_field, self._fields)))

    def _lacking(self, shaped: pa.StructArray) -> str | None:
        """Return a field that has nulls and must not: its column was dropped, or lost with its version's schema."""
        columns = zip(self._fields, shaped.flatten(), strict=True)
        return next((field.name for field, array in columns if field.required and array.null_count), None)

    def _unlike(self, version: RegisteredSchema | None, schema_id: int, what: str) -> UserError:
        which = f"version {version.version}" if version else f"schema id {schema_id}, which the registry has lost,"
        return UserError(
            f"the table's rows of {which} cannot be read as version {self._version.version}: they have {what}",
            where=f"subject {self._product.subject}",
            hint="subscribe anew, pin another version, or start behind them",
        )

    def _follow(self) -> None:
        """Take notice of what versions that have become known since mask."""
        versions = self._versions.all
        if self._masking.past is None or len(versions) == self._followed:
            return
        masks = self._masking.over(self._versions, self._version)
        self._live = Columns(self._fields, self._version.schema.record, masks.masker)
        self._masked, self._followed = masks.put, len(versions)
        if _schema(_columns(self._version, masks.nulled)) != self.schema:
            self._unfit = UserError(
                f"version {versions[-1].version} masks a field as null that events of version {self._version.version} "
                "must have",
                where=f"subject {self._product.subject}",
                hint="subscribe anew: what was not handled comes again, with null in this field",
            )

    def _batch(self, events: list[pa.Array], places: list[pa.Array]) -> pa.RecordBatch:
        columns = [
            array if array.type == field.type else array.cast(field.type)
            for array, field in zip([*events, *places], self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _columns(version: RegisteredSchema, nulled: frozenset[str]) -> Sequence[ice.NestedField]:
    ids = count(1)
    return ColumnTypes(lambda: next(ids), nulled).struct(version.schema.record).fields


def _schema(fields: Sequence[ice.NestedField]) -> pa.Schema:
    return pa.schema([*map(event_field, fields), *PLACE_FIELDS])


def _strange_symbol() -> Refusal:
    return Refusal(UNKNOWN_SYMBOL, _WHAT[UNKNOWN_SYMBOL])


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
