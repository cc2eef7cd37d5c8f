"""Events read one by one against those that a subscriber is given: the same values, the same refusals."""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Refusal
from headrace.schemas.masking import Masker
from headrace.schemas.types import ColumnTypes, unsupported
from headrace.streams.columns import Columns
from headrace.streams.decode import Decoder
from headrace.streams.pinned import event_field
from headrace.streams.resolution import unreadable
from headrace.streams.symbols import with_symbols
from headrace.streams.values import EventReader
from tests.unit.test_decode import (
    EXAMPLES,
    HEADER,
    LIMITS,
    SCHEMA_ID,
    damaged,
    decimal_of,
    encoded,
    long,
    record,
    schema_of,
    schemas_and_events,
    text,
)

UUID_TEXT = {"type": "string", "logicalType": "uuid"}
UUID_BYTES = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
REF = UUID("752dd373-ddde-4170-b289-77baa80c18e9")


def read(writer: AvroSchema, value: bytes, reader: AvroSchema) -> dict[str, Any] | None:
    """The event of a value; None: it is undecodable."""
    try:
        return EventReader(writer, SCHEMA_ID, reader).read(value)
    except Refusal as refusal:
        assert refusal.reason == "undecodable"  # noqa: PT017 - poison is a result here
        return None


def subscribed(writer: AvroSchema, value: bytes, reader: AvroSchema) -> dict[str, Any] | None:
    """What a subscriber is given for a value; None: it is poison."""
    decoded = Decoder(writer, SCHEMA_ID).decode(pa.array([value], pa.binary()))
    if decoded.refused:
        return None
    ids = count(1)
    fields = ColumnTypes(lambda: next(ids)).struct(reader.record).fields
    schema = pa.schema(list(map(event_field, fields)))
    events, strange = with_symbols(decoded.events, reader.record)
    assert not strange.any()
    columns = Columns(fields, reader.record, Masker({}, b"")).of(events)
    cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    (event,) = pa.RecordBatch.from_arrays(cast, schema=schema).to_pylist(maps_as_pydicts="strict")
    assert isinstance(event, dict)
    return event


def check(writer: AvroSchema, value: bytes, reader: AvroSchema | None = None) -> dict[str, Any] | None:
    """Compare, types and digits behind the point included (NaN is alike), and return the event."""
    found = read(writer, value, reader or writer)
    assert repr(_plain_zone(found)) == repr(_plain_zone(subscribed(writer, value, reader or writer)))
    return found


def _plain_zone(value: Any) -> Any:
    """Spell UTC as Python's own zone."""
    if isinstance(value, dict):
        return {key: _plain_zone(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain_zone(each) for each in value]
    if getattr(value, "tzinfo", None) is not None:
        return value.astimezone(dt.UTC)
    return value


@EXAMPLES
@given(schemas_and_events())
def test_values_of_all_types_are_a_subscriber_s(drawn: tuple[AvroSchema, list[bytes]]) -> None:
    schema, values = drawn
    assert all(check(schema, value) is not None for value in values)


@EXAMPLES
@given(schemas_and_events(), st.integers(0, 2**32))
def test_what_is_damaged_is_read_or_refused_as_a_subscriber_does(
    drawn: tuple[AvroSchema, list[bytes]], seed: int
) -> None:
    schema, values = drawn
    chance = random.Random(seed)
    for _ in range(12):
        value = damaged(chance.choice(values), chance.choice(values), chance)
        # The header is not this reader's to check; the other is the difference that its documentation names.
        lenient = '["null",' in schema.text or ',"null"]' in schema.text
        if value[: len(HEADER)] == HEADER and not lenient:
            check(schema, value)


@pytest.mark.parametrize(("kind", "body", "good"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_a_single_value_at_its_limits(kind: Any, body: bytes, good: bool) -> None:
    reader = schema_of(("a", kind))
    assert (read(reader, HEADER + body, reader) is not None) == good
    below = schema_of(("a", {"type": "array", "items": record(("m", {"type": "map", "values": kind}), name="R")}))
    wrapped = HEADER + long(1) + long(1) + text(b"k") + body + long(0) + long(0)
    assert (read(below, wrapped, below) is not None) == good
    # Where the reader's schema has not got the field, a subscriber refuses the event as well.
    other = schema_of(("b", "int"))
    both = schema_of(("a", kind), ("b", "int"))
    assert (read(both, HEADER + body + long(1), other) == {"b": 1}) == good


ARRAY = {"type": "array", "items": "long"}
ODD: list[tuple[str, Any, bytes]] = [
    ("a true of 2", "boolean", b"\x02"),
    ("a true of 255", "boolean", b"\xff"),
    ("a padded number", "long", b"\x82\x80\x00"),
    ("a number padded to ten bytes", "long", b"\x82" + b"\x80" * 8 + b"\x00"),
    ("a number of 65 bits", "long", b"\x80" * 9 + b"\x02"),
    ("a number of 70 bits", "long", b"\xff" * 9 + b"\x7f"),
    ("the smallest count", ARRAY, long(-(2**63)) + long(0) + long(0)),
    ("a block of a wrong size", ARRAY, long(-1) + long(77) + long(5) + long(0)),
    ("a block of a negative size", ARRAY, long(-1) + long(-77) + long(5) + long(0)),
    ("the smallest number in a block with its size", ARRAY, long(-1) + long(10) + long(-(2**63)) + long(0)),
    ("a text of high bytes", "string", text("жизнь хороша".encode())),
    ("a high text in a padded length", "string", b"\x94\x00" + "жизнь".encode()),
    ("a short fixed", {"type": "fixed", "name": "F", "size": 4}, b"abc"),
    ("a short double", "double", b"abc"),
]


@pytest.mark.parametrize(("kind", "body"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_what_is_written_in_an_unusual_way_is_read_as_a_subscriber_does(kind: Any, body: bytes) -> None:
    check(schema_of(("a", kind)), HEADER + body)


def test_a_decimal_of_more_digits_than_its_precision_is_no_other_number() -> None:
    schema = schema_of(("fare", decimal_of(9, 2)))
    assert read(schema, HEADER + text((1234567890123).to_bytes(6, "big")), schema) is None
    exact = schema_of(("fare", decimal_of(38, 10)))
    digits = 10**38 - 1
    found = read(exact, HEADER + text(digits.to_bytes(16, "big")), exact)
    assert found == {"fare": Decimal((0, (9,) * 38, -10))}


def test_a_decimal_of_a_megabyte_is_refused_at_once() -> None:
    schema = schema_of(("fare", decimal_of(38, 0)))
    began = time.process_time()
    assert read(schema, HEADER + text(b"\x7f" * (1 << 20)), schema) is None
    # As a decimal it takes a hundred seconds.
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "spelling",
    [
        str(REF),
        str(REF).upper(),
        REF.hex,
        f"{{{REF}}}",
        REF.urn,
        f"{{{REF.hex}}}",
        f"urn:uuid:{REF.hex}",
        f"URN:UUID:{REF}",
        str(REF).replace("-", "", 1),
        f"{REF}-",
        f" {REF}",
        f"{REF}\n",
        str(REF).replace("7", "\u0667"),
        REF.hex[:-2] + "_1",
    ],
)
def test_a_uuid_is_one_in_whatever_spelling_a_subscriber_takes(spelling: str) -> None:
    schema = schema_of(("ref", UUID_TEXT))
    check(schema, HEADER + text(spelling.encode()))


def test_a_uuid_of_16_bytes_is_a_uuid_at_any_depth() -> None:
    inner = record(("one", UUID_BYTES), ("more", {"type": "map", "values": ["null", "U"]}), name="Inner")
    schema = schema_of(("all", {"type": "array", "items": inner}))
    event = {"all": [{"one": REF, "more": {"a": REF, "b": None}}]}
    raw = {"all": [{"one": REF.bytes, "more": {"a": REF.bytes, "b": None}}]}
    assert check(schema, encoded(schema, raw)) == event


def versions(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": list(fields)}))


ID = {"name": "id", "type": "string"}
LINE = {"type": "record", "name": "Line", "fields": [{"name": "n", "type": "int"}]}
NEW_LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "tip", "type": decimal_of(9, 2), "default": "\u0001\u0000"}, {"name": "n", "type": "long"}],
}
DEFAULTS: list[tuple[Any, Any]] = [
    ("float", 0.1),
    ("double", 1),
    ("long", 5),
    ("bytes", "\u0000\u00ff"),
    (["null", "string"], None),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B"),
    (UUID_TEXT, str(REF)),
    (UUID_BYTES, REF.bytes.decode("latin-1")),
    (decimal_of(9, 2), "\u00ff"),
    ({"type": "int", "logicalType": "date"}, -1),
    ({"type": "long", "logicalType": "timestamp-millis"}, 1),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, 1),
    ({"type": "map", "values": UUID_TEXT}, {"a": str(REF)}),
    ({"type": "array", "items": {"type": "map", "values": "double"}}, [{"a": 1}, {}]),
    (record(("d", "float"), ("u", UUID_TEXT), name="R"), {"d": 0.1, "u": str(REF)}),
]


@pytest.mark.parametrize(("kind", "default"), DEFAULTS, ids=[str(default) for _, default in DEFAULTS])
def test_what_an_older_event_lacks_is_filled_as_a_subscriber_s_and_belongs_to_one_event(
    kind: Any, default: Any
) -> None:
    old, new = versions(ID), versions({"name": "new", "type": kind, "default": default}, ID)
    assert not unsupported(new)
    value = encoded(old, {"id": "a"})
    first = check(old, value, new)
    assert first is not None
    reader = EventReader(old, SCHEMA_ID, new)
    one, two = reader.read(value), reader.read(value)
    assert one == two == first
    if isinstance(default, list | dict):
        assert one["new"] is not two["new"]


def test_fields_go_and_come_and_widen_at_any_depth() -> None:
    old = versions(
        ID,
        {"name": "gone", "type": "int"},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "by", "type": {"type": "map", "values": "Line"}},
        {"name": "rate", "type": "float"},
        {"name": "fare", "type": decimal_of(9, 2)},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
    )
    new = versions(
        {"name": "kind", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "fare", "type": decimal_of(12, 2)},
        {"name": "rate", "type": "double"},
        {"name": "by", "type": ["null", {"type": "map", "values": NEW_LINE}]},
        {"name": "lines", "type": {"type": "array", "items": ["null", "Line"]}},
        ID,
    )
    assert not unreadable(old.record, new.record)
    body = text(b"a") + long(7) + long(1) + long(2) + long(0) + long(1) + text(b"k") + long(3) + long(0)
    value = HEADER + body + b"\0\0\xc0\x3f" + text(b"\x96") + long(1_001) + long(1)
    found = check(old, value, new)
    assert found is not None
    assert found["lines"] == [{"tip": Decimal("2.56"), "n": 2}]
    assert found["kind"] == "b"


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Kind", "symbols": list(symbols), **more}


def test_a_symbol_that_the_contract_lacks_becomes_its_default_or_is_refused() -> None:
    written = {"type": "array", "items": ["null", enum("A", "B", "C")]}
    old = versions(ID, {"name": "kinds", "type": written}, {"name": "fare", "type": decimal_of(3, 0)})
    with_default = versions(ID, {"name": "kinds", "type": {**written, "items": ["null", enum("B", "A", default="A")]}})
    without = versions(ID, {"name": "kinds", "type": {**written, "items": ["null", enum("B", "A")]}})
    value = encoded(old, {"id": "a", "kinds": ["B", None, "C"], "fare": Decimal(1)})
    assert check(old, value, with_default) == {"id": "a", "kinds": ["B", None, "A"]}
    with pytest.raises(Refusal) as refused:
        EventReader(old, SCHEMA_ID, without).read(value)
    assert refused.value.reason == "unknown-symbol"
    # What is no event at all is told first, as a subscriber does.
    for broken in (value + b"\0", value[:-2] + text((10**3).to_bytes(2, "big"))):
        assert read(old, broken, without) is None
    assert check(old, encoded(old, {"id": "a", "kinds": ["B"], "fare": Decimal(1)}), without) is not None
