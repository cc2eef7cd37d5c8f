"""A subject's versions, its events as frames, and a table that follows the versions, all in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice

from headrace.schemas.arrow_types import arrow_field, arrow_type
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.registered import RegisteredSchema
from headrace.streams.columns import Columns
from headrace.streams.decode import Decoder
from headrace.streams.frames import Frame
from headrace.streams.masked import Masking, Noted
from headrace.streams.naming import Naming
from headrace.streams.pinned import Pinned
from headrace.streams.portions import PLACE_FIELDS
from headrace.streams.relations import faults
from headrace.streams.values import EventReader
from headrace.streams.versions import Versions, lineage_of
from tests.support.lake import product_of
from tests.support.meshes import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.streams.portions import Portion

ID = {"name": "id", "type": "string"}
POLICY = PiiPolicy(default=Mask.HMAC_SHA_256, categories={"secret": Mask.REPLACE_WITH_NULL})


def schema_of(*fields: Mapping[str, Any]) -> AvroSchema:
    """Return a schema of ``id`` and these fields."""
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": [ID, *fields]}))


@dataclass
class Subject:
    """A subject's versions, numbered from 1 as they come; their ids are so much larger."""

    versions: list[RegisteredSchema] = field(default_factory=list)
    ids_from: int = 100

    def add(self, schema: AvroSchema) -> RegisteredSchema:
        """Register the next version."""
        number = len(self.versions) + 1
        self.versions.append(RegisteredSchema(self.ids_from + number, number, "shop.orders-value", schema))
        return self.versions[-1]

    def version(self, number: int) -> RegisteredSchema:
        """Return a version by its number."""
        return next(each for each in self.versions if each.version == number)

    def pinned(self, version: int = 1, *, live: bool = False, masks: Mapping[str, Mask] | None = None) -> Pinned:
        """Return what reads events as a version; masked if ``live``, with what the table has masked."""
        read_as = self.version(version)
        product = product_of(read_as.schema)
        known = Versions(product, list(self.versions), lambda: self.versions, lambda _: None)
        past = Noted(masks or {}, self.versions[-1].version) if live or masks is not None else None
        return Pinned(product, read_as, known, Masking(live, past, product, POLICY, b"k" * 32))


def frame_of(version: RegisteredSchema, *events: Mapping[str, Any], first: int = 0) -> Frame:
    """Return events of a version as a frame of partition 0; those without an id get one."""
    values = [encoded(version.schema, version.id, {"id": f"e{n}", **event}) for n, event in enumerate(events, first)]
    keys = pa.nulls(len(values), pa.binary())
    offsets = np.arange(first, first + len(values))
    return Frame(0, version.id, offsets, offsets * 1_000, keys, pa.array(values, pa.binary()))


class MemoryTable:
    """A table in memory: it follows versions and takes rows as a sink's does, and keeps values by their columns' ids.

    Args:
        versions: all that it may follow.
    """

    def __init__(self, versions: Sequence[RegisteredSchema]) -> None:
        self._lineage = lineage_of(versions)
        self._records = {version.version: version.schema.record for version in versions}
        self._rows: list[tuple[int, Any]] = []

    def follows(self, version: int) -> bool:
        """Tell whether the table can follow a version."""
        return not self._lineage.steps[version].refused

    def add(self, frame: Frame, version: RegisteredSchema, held: int) -> None:
        """Take events as rows, when the newest version that the table has followed is ``held``."""
        columns = self._lineage.steps[held].columns
        newest = max(number for number in self._records if number <= held and self.follows(number))
        shaping = Columns(columns, self._records[newest], Masker({}, b""))
        decoded = Decoder(version.schema, version.id).decode(frame.values)
        assert not decoded.refused
        arrays = shaping.of(decoded.events, self._lineage.column_names(held, version.version))
        kind = ice.StructType(*columns)
        events = pa.StructArray.from_arrays(arrays, fields=list(map(arrow_field, columns)))
        self._rows += [(version.id, by_id(event, kind)) for event in events.to_pylist()]

    def rows(self, names: frozenset[str], held: int) -> pa.RecordBatch:
        """Return all rows with these columns, as `Past` reads them of a table that has followed ``held``."""
        columns = [column for column in self._lineage.steps[held].columns if column.name in names]
        arrays = [
            pa.array([by_name(row.get(column.field_id), column.field_type) for _, row in self._rows], kind)
            for column in columns
            for kind in [arrow_type(column.field_type)]
        ]
        count = len(self._rows)
        places = [
            pa.repeat(pa.scalar(0, pa.int32()), count),
            pa.array(range(count), pa.int64()),
            pa.nulls(count, pa.timestamp("us", tz="UTC")),
            pa.array([schema_id for schema_id, _ in self._rows], pa.int32()),
        ]
        fields = [*map(arrow_field, columns), *PLACE_FIELDS]
        return pa.RecordBatch.from_arrays([*arrays, *places], schema=pa.schema(fields))


def by_id(value: Any, kind: ice.IcebergType) -> Any:
    """Return a value with ids in place of names, at any depth."""
    return _spelt(value, kind, lambda column: (column.name, column.field_id))


def by_name(value: Any, kind: ice.IcebergType) -> Any:
    """Return a value with names in place of ids; what has no value is null."""
    return _spelt(value, kind, lambda column: (column.field_id, column.name))


def _spelt(value: Any, kind: ice.IcebergType, keys: Any) -> Any:
    if value is None:
        return None
    match kind:
        case ice.StructType(fields=fields):
            pairs = [(keys(column), column.field_type) for column in fields]
            return {new: _spelt(value.get(old), inside, keys) for (old, new), inside in pairs}
        case ice.ListType():
            return [_spelt(item, kind.element_type, keys) for item in value]
        case ice.MapType():
            return [(key, _spelt(item, kind.value_type, keys)) for key, item in value]
        case _:
            return value


def seen_in_topic(subject: Subject, pinned: int, written: int, event: Mapping[str, Any]) -> Any:
    """Return an event as a subscriber sees it that reads the topic, or in short why it does not."""
    (portion,) = subject.pinned(pinned).portions([frame_of(subject.version(written), event)])
    return _seen(portion)


def seen_in_table(subject: Subject, pinned: int, written: int, event: Mapping[str, Any], at: tuple[int, int]) -> Any:
    """Return the same of one that reads the table. ``at``: what it had followed when the event landed, and now."""
    landed, held = at
    table, reader = MemoryTable(subject.versions), subject.pinned(pinned)
    table.add(frame_of(subject.version(written), event), subject.version(written), landed)
    return _seen(reader.rows(0, table.rows(reader.relations.columns(held), held), held))


def seen_one_by_one(subject: Subject, pinned: int, written: int, event: Mapping[str, Any]) -> Any:
    """Return the same of a Faust application whose contract has the pinned version."""
    read_as, version = subject.version(pinned), subject.version(written)
    names = Naming(lineage_of(subject.versions), read_as).in_event(version)
    found = faults(version, read_as, names)
    if found:
        path, what = found[0]
        return f"{path}: {what}"
    (value,) = frame_of(version, event).values
    try:
        return EventReader(version.schema, version.id, read_as.schema, names).read(value.as_py())
    except Refusal as refusal:
        return refusal.reason


def ways(subject: Subject, pinned: int, written: int, event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Read an event from the topic, and from tables that were at any version when it landed, and are when it is read.

    Yields:
        The way in words, and what is seen: the event, or in short why it is not.
    """
    yield "topic", seen_in_topic(subject, pinned, written, event)
    yield "one by one", seen_one_by_one(subject, pinned, written, event)
    if not MemoryTable(subject.versions).follows(written):
        return
    numbers = [each.version for each in subject.versions if each.version >= written]
    for landed in numbers:
        for held in (number for number in numbers if number >= landed):
            seen = seen_in_table(subject, pinned, written, event, (landed, held))
            yield f"row of a table at {landed}, read at {held}", seen


def _seen(portion: Portion) -> Any:
    if portion.stop is not None:
        assert isinstance(portion.stop.error, UserError)
        return portion.stop.error.what.partition(": ")[2]
    if portion.poisons:
        return portion.poisons[0].reason
    (event,) = portion.events.drop_columns([each.name for each in PLACE_FIELDS]).to_pylist(maps_as_pydicts="strict")
    return event
