"""Every type, to its limits: what is published is what a subscriber, pyiceberg and DuckDB read."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import random
import struct
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headrace.producers.events import event_converter
from headrace.schemas.avro import Array, AvroSchema, AvroType, Map, Record, Union, optional_of
from headrace.schemas.errors import Refusal
from headrace.schemas.masking import Masker
from headrace.schemas.plain import plain
from headrace.schemas.types import ColumnTypes, unsupported
from headrace.streams.columns import Columns
from headrace.streams.decode import Decoder
from headrace.streams.frames import Frame
from headrace.streams.past import Past
from headrace.streams.pinned import event_field
from headrace.streams.portions import Span
from headrace.streams.values import EventReader
from tests.support.kinds import Kind, json_default, kinds, record_of
from tests.support.lake import Lake
from tests.support.versions import Subject
from tests.unit.test_decode import damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_ID = 7
HEADER = struct.pack(">bI", 0, SCHEMA_ID)
EXAMPLES = settings(deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def drawn_events(draw: st.DrawFn) -> tuple[AvroSchema, list[Any], list[Any]]:
    """A random schema in a namespace, events as they are published, and as they are read."""
    columns: list[Kind] = draw(st.lists(kinds(count()), min_size=1, max_size=4))
    again = [kind for kind in columns if isinstance(kind.avro, dict) and "name" in kind.avro]
    columns += [Kind(kind.avro["name"], kind.branch, kind.values) for kind in again]
    event = record_of(columns, "Event", "shop.v1")
    schema = AvroSchema.parse(json.dumps(event.avro))
    assert not unsupported(schema)
    found = draw(st.lists(event.values, min_size=1, max_size=6))
    return schema, [published for published, _ in found], [read for _, read in found]


def messages(schema: AvroSchema, published: Sequence[Any]) -> list[bytes]:
    """What the publisher sends."""
    convert = event_converter(schema, where="shop.orders")
    written = fastavro.parse_schema(plain(schema.record))
    values = []
    for event in published:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, written, convert(event))
        values.append(HEADER + body.getvalue())
    return values


def decoded(schema: AvroSchema, values: Sequence[bytes]) -> pa.StructArray:
    found = Decoder(schema, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    assert found.refused == ()
    return found.events


def subscribed(schema: AvroSchema, events: pa.StructArray) -> list[Any]:
    """What a subscriber is given of decoded events."""
    ids = count(1)
    fields = ColumnTypes(lambda: next(ids)).struct(schema.record).fields
    columns = Columns(fields, schema.record, Masker({}, b"")).of(events)
    shown = pa.schema(list(map(event_field, fields)))
    cast = [column.cast(field.type) for column, field in zip(columns, shown, strict=True)]
    batch = pa.RecordBatch.from_arrays(cast, schema=shown)
    batch.validate(full=True)
    shaped: list[Any] = batch.to_pylist(maps_as_pydicts="strict")
    return shaped


def alike(left: Any, right: Any) -> bool:
    """Compare what an engine's Arrow gives with what is expected: maps may be pairs, UUIDs bytes or texts."""
    if isinstance(right, dict):
        left = dict(left) if isinstance(left, list) else left
        return isinstance(left, dict) and left.keys() == right.keys() and all(alike(left[k], right[k]) for k in right)
    if isinstance(right, list):
        return isinstance(left, list) and len(left) == len(right) and all(map(alike, left, right))
    if isinstance(right, UUID):
        return left in (right, right.bytes, str(right))
    if isinstance(right, float) and isinstance(left, float):
        same_sign = math.copysign(1, left) == math.copysign(1, right)
        return (math.isnan(left) and math.isnan(right)) or (left == right and same_sign)
    if isinstance(right, dt.datetime):
        return bool(isinstance(left, dt.datetime) and left == right and (left.tzinfo is None) == (right.tzinfo is None))
    return type(left) is type(right) and bool(left == right)


def same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert alike(left, right), f"{left!r} is not {right!r}"


@settings(EXAMPLES, max_examples=80)
@given(drawn_events())
def test_what_is_published_is_what_a_subscriber_is_given(drawn: tuple[AvroSchema, list[Any], list[Any]]) -> None:
    """Of a block, and event by event."""
    schema, published, read = drawn
    values = messages(schema, published)
    same(subscribed(schema, decoded(schema, values)), read)
    reader = EventReader(schema, SCHEMA_ID, schema)
    same([reader.read(value) for value in values], read)


@settings(EXAMPLES, max_examples=15)
@given(drawn_events())
def test_what_is_published_is_what_pyiceberg_duckdb_and_the_tables_subscribers_read(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[AvroSchema, list[Any], list[Any]]
) -> None:
    schema, published, read = drawn
    lake = Lake(tmp_path_factory.mktemp("lake"), schema)
    values = messages(schema, published)
    lake.add(decoded(schema, values), SCHEMA_ID)
    names = [field.name for field in schema.record.fields]
    same(lake.rows(*names), read)
    rows = lake.table.scan().to_arrow().sort_by("_kafka_offset").select(names)
    same(rows.to_pylist(), read)
    # A subscriber is given the same of the table and of the topic.
    subject = Subject(ids_from=SCHEMA_ID - 1)
    subject.add(schema)
    pinned = subject.pinned()
    places = np.arange(len(values))
    keys = pa.nulls(len(values), pa.binary())
    frame = Frame(0, SCHEMA_ID, places, places * 1_000, keys, pa.array(values, pa.binary()))
    portions = list(pinned.portions([frame]))
    for partition, batch in Past(lake.table, lake.product, frozenset(names)).rows({0: Span(0, len(values))}):
        portions.append(pinned.rows(partition, batch, 1))
    for portion in portions:
        same(portion.events.select(names).to_pylist(maps_as_pydicts="strict"), read)
    assert len(portions) == 2


@st.composite
def drawn_defaults(draw: st.DrawFn) -> tuple[AvroSchema, AvroSchema, Any]:
    """An older schema, a newer one with fields that have a default, and the event that the older one is read as."""
    fields: list[dict[str, Any]] = [{"name": "id", "type": "int"}]
    old = AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": fields}))
    columns: list[Kind] = draw(st.lists(kinds(count()), min_size=1, max_size=4))
    event = record_of(columns, "Event")
    record = AvroSchema.parse(json.dumps(event.avro)).record
    _, read = draw(event.values)
    for field, spelt in zip(record.fields, event.avro["fields"], strict=True):
        try:
            fields.append({**spelt, "default": json_default(field.type, read[field.name])})
        except ValueError:
            assume(False)
    new = AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": fields}))
    assert not unsupported(new)
    return old, new, {"id": 1, **read}


@settings(EXAMPLES, max_examples=60)
@given(drawn_defaults())
def test_a_default_is_what_older_events_and_events_that_leave_it_out_are_read_with(
    drawn: tuple[AvroSchema, AvroSchema, Any],
) -> None:
    old, new, read = drawn
    (value,) = messages(old, [{"id": 1}])
    same(subscribed(new, decoded(old, [value])), [read])
    same([EventReader(old, SCHEMA_ID, new).read(value)], [read])
    (value,) = messages(new, [{"id": 1}])
    same(subscribed(new, decoded(new, [value])), [read])


@settings(EXAMPLES, max_examples=15)
@given(drawn_defaults())
def test_a_default_is_what_the_table_is_filled_with(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[AvroSchema, AvroSchema, Any]
) -> None:
    old, new, read = drawn
    lake = Lake(tmp_path_factory.mktemp("lake"), old)
    lake.follow(old, new)
    lake.add(decoded(old, messages(old, [{"id": 1}])), schema_id=1)
    same(lake.rows(*read), [read])


@settings(EXAMPLES, max_examples=60)
@given(drawn_events(), st.integers(0, 2**32))
def test_what_is_damaged_is_read_alike_or_refused_alike(
    drawn: tuple[AvroSchema, list[Any], list[Any]], seed: int
) -> None:
    """A block's reader and the one of single events agree, unions and all."""
    schema, published, _ = drawn
    values = messages(schema, published)
    # To DataFusion any branch of an optional type that is not null's is the other one.
    assume(not any(_has_optional(field.type) for field in schema.record.fields))
    chance = random.Random(seed)
    reader = EventReader(schema, SCHEMA_ID, schema)
    for _ in range(10):
        value = damaged(chance.choice(values), chance.choice(values), chance)
        if value[: len(HEADER)] != HEADER:
            continue
        found = Decoder(schema, SCHEMA_ID).decode(pa.array([value], pa.binary()))
        if found.refused:
            with pytest.raises(Refusal):
                reader.read(value)
        else:
            same([reader.read(value)], subscribed(schema, found.events))


def _has_optional(avro_type: AvroType) -> bool:
    match avro_type:
        case Union(branches=branches):
            return optional_of(avro_type)[1] or any(map(_has_optional, branches))
        case Record(fields=fields):
            return any(_has_optional(field.type) for field in fields)
        case Array(items=inner) | Map(values=inner):
            return _has_optional(inner)
        case _:
            return False
