"""Events against their schema: what passes comes back from the wire as it was, what is refused is named, not shown."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headrace.producers.events import event_converter
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import EventError, SchemaError
from headrace.schemas.plain import plain

CONTACT = {
    "type": "record",
    "name": "Contact",
    "fields": [{"name": "email", "type": "string"}, {"name": "phone", "type": ["null", "string"], "default": None}],
}
SECRET = "anna.secret@example.org"
BEFORE_ALL = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
NOON = datetime(2013, 1, 31, 12, tzinfo=UTC)


def schema_of(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": list(fields)}))


def field(avro_type: Any, **more: Any) -> dict[str, Any]:
    return {"name": "f", "type": avro_type, **more}


def logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


def over_the_wire(schema: AvroSchema, event: object) -> Any:
    record = event_converter(schema, where="shop.orders")(event)
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain(schema.record)), record)
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, schema.parsed, None)


def error_of(schema: AvroSchema, event: object) -> EventError:
    with pytest.raises(EventError) as caught:
        event_converter(schema, where="shop.orders")(event)
    return caught.value


class Tier(StrEnum):
    GOLD = "GOLD"


class Level(IntEnum):
    ONE = 1


DECIMAL = logical("bytes", "decimal", precision=5, scale=2)
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 1}
FIXED_UUID = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
DURATION = {"type": "fixed", "name": "Term", "size": 12, "logicalType": "duration"}
ENUM = {"type": "enum", "name": "Tier", "symbols": ["BASIC", "GOLD"]}
AN_ID = UUID("6f1f3dd8-6f9e-4f0c-9d3b-0d2f6a1c2b3d")

ACCEPTED: list[tuple[Any, Any, Any]] = [
    ("boolean", True, True),
    ("int", -(2**31), -(2**31)),
    ("int", Level.ONE, 1),
    ("long", 2**63 - 1, 2**63 - 1),
    ("double", 3, 3.0),
    ("double", 2**53, float(2**53)),
    ("float", 2**24, float(2**24)),
    ("double", math.inf, math.inf),
    ("string", "Zoë 🛫", "Zoë 🛫"),
    ("string", Tier.GOLD, "GOLD"),
    ("bytes", b"\x00\xff", b"\x00\xff"),
    ({"type": "fixed", "name": "F", "size": 2}, b"ab", b"ab"),
    (ENUM, "GOLD", "GOLD"),
    (ENUM, Tier.GOLD, "GOLD"),
    (DECIMAL, Decimal("-999.99"), Decimal("-999.99")),
    (DECIMAL, Decimal("1E+2"), Decimal("100.00")),
    (DECIMAL, Decimal(0), Decimal("0.00")),
    (DECIMAL, Decimal("0E+9"), Decimal("0.00")),
    (FIXED_DECIMAL, Decimal("-999.9"), Decimal("-999.9")),
    (logical("string", "uuid"), AN_ID, AN_ID),
    (logical("string", "uuid"), str(AN_ID).upper(), AN_ID),
    (FIXED_UUID, AN_ID, AN_ID.bytes),
    (logical("int", "date"), date(1929, 2, 28), date(1929, 2, 28)),
    (logical("long", "timestamp-micros"), NOON.replace(microsecond=1), NOON.replace(microsecond=1)),
    (logical("long", "timestamp-micros"), datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    (logical("long", "timestamp-micros"), datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    (logical("long", "timestamp-millis"), datetime(1900, 1, 1, tzinfo=UTC), datetime(1900, 1, 1, tzinfo=UTC)),
    (logical("long", "timestamp-millis"), NOON.astimezone(timezone(timedelta(hours=5))), NOON),
    (logical("long", "local-timestamp-micros"), datetime(2013, 1, 31, 12), datetime(2013, 1, 31, 12)),  # noqa: DTZ001
    (logical("int", "time-millis"), time(23, 59, 59, 999_000), time(23, 59, 59, 999_000)),
    (logical("long", "time-micros"), time.max, time.max),
    (logical("long", "time-micros"), "00:00:00", time.min),
    (logical("long", "time-micros"), "23:59:59.999999", time.max),
    (logical("long", "timestamp-nanos"), 2**63 - 1, 2**63 - 1),
    (logical("long", "timestamp-nanos"), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 10**9),
    (logical("long", "local-timestamp-nanos"), datetime(1969, 12, 31, 23, 59, 59), -(10**9)),  # noqa: DTZ001
    (DURATION, {"months": 1, "days": 2**32 - 1, "millis": 0}, b"\1\0\0\0\xff\xff\xff\xff\0\0\0\0"),
    (["null", DURATION], None, None),
    ({"type": "array", "items": "int"}, (1, 2), [1, 2]),
    ({"type": "map", "values": ["null", "int"]}, {"a": 1, "b": None}, {"a": 1, "b": None}),
    (["null", {"type": "map", "values": "string"}], {"-type": "int"}, {"-type": "int"}),
    (["string", "null"], None, None),
    (["null", CONTACT], {"email": "a@b"}, {"email": "a@b", "phone": None}),
]

REFUSED: list[tuple[Any, Any, str]] = [
    ("boolean", 1, "expected a boolean, found int"),
    (logical("int", "time-millis"), time(0, 0, 0, 1), "the time is finer than milliseconds"),
    (logical("int", "time-millis"), time(1, tzinfo=UTC), "the time has a UTC offset, and a time of day has none"),
    (logical("long", "time-micros"), NOON, "expected a time of day, found datetime"),
    (logical("long", "time-micros"), 5, "expected a time of day, found int"),
    (logical("long", "time-micros"), "24:00:00", "the text is no time of the form HH:MM:SS.ffffff"),
    (logical("long", "time-micros"), "1:00", "the text is no time of the form HH:MM:SS.ffffff"),
    (logical("long", "timestamp-nanos"), 2**63, "the number does not fit into an Avro long"),
    (logical("long", "timestamp-nanos"), BEFORE_ALL.replace(year=2300), "the number does not fit into an Avro long"),
    (logical("long", "timestamp-nanos"), True, "expected an Avro long, found bool"),
    (logical("long", "timestamp-nanos"), datetime(2013, 1, 31), "the time has no UTC offset"),  # noqa: DTZ001
    (logical("long", "local-timestamp-nanos"), NOON, "the time has a UTC offset, and the type is a local time"),
    ("int", True, "expected an Avro int, found bool"),
    ("int", 1.0, "expected an Avro int, found float"),
    ("int", 2**31, "the number does not fit into an Avro int"),
    ("long", -(2**63) - 1, "the number does not fit into an Avro long"),
    ("double", "1", "expected an Avro double, found str"),
    ("double", False, "expected an Avro double, found bool"),
    ("double", Decimal(1), "expected an Avro double, found Decimal"),
    ("double", 2**53 + 1, "an Avro double does not hold this integer exactly"),
    ("float", 1e39, "the number does not fit into an Avro float"),
    ("string", 1, "expected a string, found int"),
    ("string", None, "expected a string, found null"),
    ("string", "\ud800", "the text has half a surrogate pair, which UTF-8 cannot encode"),
    ("bytes", "a", "expected bytes, found str"),
    ({"type": "fixed", "name": "F", "size": 2}, b"abc", "there are 3 bytes, and the type has 2"),
    (ENUM, SECRET, "this is none of the enum's symbols"),
    (DECIMAL, 1, "expected a Decimal, found int"),
    (DECIMAL, Decimal("1.234"), "the decimal has more than 2 decimal places"),
    (DECIMAL, Decimal(12345), "the decimal has more than 5 digits at scale 2"),
    (DECIMAL, Decimal("1E+999999"), "the decimal has more than 5 digits at scale 2"),
    (DECIMAL, Decimal("NaN"), "the decimal is not a finite number"),
    (logical("string", "uuid"), "6f1f3dd8", "the text is no UUID of the form 8-4-4-4-12"),
    (logical("int", "date"), NOON, "expected a date, found datetime"),
    (logical("long", "timestamp-millis"), NOON.replace(tzinfo=None), "the time has no UTC offset"),
    (logical("long", "timestamp-millis"), NOON.replace(microsecond=1), "the time is finer than milliseconds"),
    (logical("long", "timestamp-micros"), BEFORE_ALL, "the time is not within the years 1 to 9999 of UTC"),
    (logical("long", "timestamp-millis"), 1, "expected a datetime, found int"),
    (logical("long", "local-timestamp-micros"), NOON, "the time has a UTC offset, and the type is a local time"),
    ({"type": "array", "items": "int"}, "12", "expected an array, found str"),
    ({"type": "map", "values": "int"}, [], "expected a map, found list"),
    (CONTACT, SECRET, "expected a record, found str"),
]


@pytest.mark.parametrize(("avro_type", "value", "read"), ACCEPTED)
def test_what_is_accepted_comes_back_from_the_wire_as_it_was(avro_type: Any, value: Any, read: Any) -> None:
    schema = schema_of(field(avro_type))
    assert over_the_wire(schema, {"f": value}) == {"f": read}


@pytest.mark.parametrize(("avro_type", "value", "what"), REFUSED)
def test_what_is_refused_is_named_and_not_shown(avro_type: Any, value: Any, what: str) -> None:
    error = error_of(schema_of(field(avro_type)), {"f": value})
    assert (error.field, error.what) == ("f", f"f: {what}")
    assert error.__cause__ is None
    assert SECRET not in str(error)


NESTED = schema_of(
    {"name": "contact", "type": CONTACT},
    {"name": "others", "type": {"type": "array", "items": "Contact"}},
    {"name": "labels", "type": {"type": "map", "values": ["null", "Contact"]}},
)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"contact": {"email": None}}, "contact.email"),
        ({"contact": {}}, "contact.email"),
        ({"contact": {"email": "a", "mail": "b"}}, "contact.mail"),
        ({"contact": {"email": "a", SECRET: "b"}}, "contact.?"),
        ({"others": [{"email": "a"}, {"email": "a", "phone": 1}]}, "others[].phone"),
        ({"labels": {SECRET: {"email": 1}}}, "labels{}.email"),
        ({"labels": {1: None}}, "labels{}"),
        ({"extra": 1}, "extra"),
    ],
)
def test_the_path_leads_to_the_field(change: dict[str, Any], path: str) -> None:
    error = error_of(NESTED, {"contact": {"email": "a"}, "others": [], "labels": {}} | change)
    assert error.field == path
    assert SECRET not in str(error)


def test_a_field_is_missing_unless_the_schema_has_a_default() -> None:
    schema = schema_of(
        {"name": "a", "type": "int", "default": 7},
        {
            "name": "b",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            "default": "\u00ff",
        },
        {"name": "c", "type": {"type": "array", "items": "bytes"}, "default": ["\u00fe"]},
        {"name": "d", "type": "double", "default": 1},
        {"name": "e", "type": CONTACT, "default": {"email": "x"}},
        {"name": "f", "type": "string"},
    )
    assert over_the_wire(schema, {"f": "x"}) == {
        "a": 7,
        "b": Decimal("-0.01"),
        "c": [b"\xfe"],
        "d": 1.0,
        "e": {"email": "x", "phone": None},
        "f": "x",
    }
    assert error_of(schema, {"a": 1}).what == "f: the field is missing"
    assert error_of(schema, {"f": "x", "g": 1}).what == "g: the contract has no such field"


def test_dataclasses_and_models_are_events() -> None:
    @dataclass
    class Contact:
        email: str

    class Model(BaseModel):
        contact: Contact
        tier: Tier = Field(alias="class")

    schema = schema_of({"name": "contact", "type": CONTACT}, {"name": "class", "type": ENUM})
    event = Model(contact=Contact("a@b"), **{"class": Tier.GOLD})
    assert over_the_wire(schema, event) == {"contact": {"email": "a@b", "phone": None}, "class": "GOLD"}
    assert error_of(schema, Contact("a@b")).field == "contact"
    assert error_of(schema, Contact).what == "expected a record, found type"


@pytest.mark.parametrize(
    "avro_type", ["null", ["null"], {"type": "array", "items": "null"}, {"type": "map", "values": ["null"]}]
)
def test_a_type_that_no_table_holds_is_refused_when_the_schema_is_read(avro_type: Any) -> None:
    with pytest.raises(SchemaError, match="events cannot carry this type"):
        event_converter(schema_of(field(avro_type)), where="shop.orders")


WIDE = schema_of(
    {"name": "i", "type": "int"},
    {"name": "d", "type": ["null", logical("bytes", "decimal", precision=12, scale=3)]},
    {
        "name": "g",
        "type": [{"type": "fixed", "name": "G", "size": 6, "logicalType": "decimal", "precision": 12}, "null"],
    },
    {"name": "t", "type": logical("long", "timestamp-micros")},
    {"name": "s", "type": ["null", "string"]},
    {"name": "m", "type": ["null", {"type": "map", "values": {"type": "array", "items": "double"}}]},
)
VALUES = st.fixed_dictionaries(
    {
        "i": st.integers(-(2**31), 2**31 - 1),
        "d": st.none() | st.decimals(-999_999_999, 999_999_999, places=3),
        "g": st.none() | st.decimals(-(10**12) + 1, 10**12 - 1, places=0),
        "t": st.datetimes(timezones=st.just(UTC)),
        "s": st.none() | st.text(),
        "m": st.none() | st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False))),
    }
)


@settings(deadline=None)
@given(VALUES)
def test_any_event_comes_back_from_the_wire_as_it_was(event: dict[str, Any]) -> None:
    assert over_the_wire(WIDE, event) == event


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("idgtsmx"), ANYTHING), VALUES)
def test_nothing_but_an_event_error_leaves(change: dict[str, Any], event: dict[str, Any]) -> None:
    refused = ""
    try:
        over_the_wire(WIDE, event | change)
    except EventError as error:
        refused = error.field
    assert refused[:1] in {"", *change}
