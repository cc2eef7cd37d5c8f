"""Schemas as values: what is read of valid ones, what is said of others, and that no schema exhausts anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.schemas.avro import (
    MAX_SCHEMA_BYTES,
    Array,
    AvroSchema,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    is_null,
    optional_of,
)
from headrace.schemas.avro_resolver import MAX_DEPTH
from headrace.schemas.errors import SchemaError

pytestmark = pytest.mark.timeout(60)


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return {"type": "record", "name": "Event", **more, "fields": members}


def parse(*fields: Any, **more: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields, **more)))


def only(kind: Any) -> Any:
    return parse(("a", kind)).record.fields[0].type


STRING = Primitive("string")
TYPES: list[tuple[str, Any, Any]] = [
    ("a primitive", "long", Primitive("long")),
    ("a primitive at length", {"type": "long"}, Primitive("long")),
    ("an array", {"type": "array", "items": "string"}, Array(STRING)),
    ("a map", {"type": "map", "values": ["null", "string"]}, Map(Union((Primitive("null"), STRING)))),
    ("an enum", {"type": "enum", "name": "E", "symbols": ["A", "B"]}, Enum("E", ("A", "B"))),
    ("a fixed", {"type": "fixed", "name": "F", "size": 3}, Fixed("F", 3)),
    (
        "a decimal",
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        Primitive("bytes", "decimal", 9, 2),
    ),
    (
        "a decimal without scale",
        {"type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 9},
        Fixed("F", 4, "decimal", 9, 0),
    ),
    ("a timestamp", {"type": "long", "logicalType": "timestamp-millis"}, Primitive("long", "timestamp-millis")),
    ("a logical type elsewhere", {"type": "string", "logicalType": "date"}, STRING),
    ("an unknown logical type", {"type": "string", "logicalType": "mystery"}, STRING),
    ("a uuid of 15 bytes", {"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"}, Fixed("F", 15)),
    ("a duration of 11 bytes", {"type": "fixed", "name": "F", "size": 11, "logicalType": "duration"}, Fixed("F", 11)),
]


@pytest.mark.parametrize(("kind", "expected"), [row[1:] for row in TYPES], ids=[row[0] for row in TYPES])
def test_a_type_is_read(kind: Any, expected: Any) -> None:
    assert only(kind) == expected


def test_names_are_resolved_as_the_specification_says() -> None:
    inner = {"type": "record", "name": "P", "fields": [{"name": "n", "type": "int"}]}
    schema = parse(("a", inner), ("b", "P"), ("c", ["null", "x.y.P"]), namespace="x.y")
    point = Record("x.y.P", (Field("n", Primitive("int"), "", (), (), has_default=False, default=None),), "")
    assert schema.record.name == "x.y.Event"
    assert [optional_of(field.type)[0] for field in schema.record.fields] == [point] * 3
    dotted = AvroSchema.parse(json.dumps({**record(("a", inner), ("b", "P")), "name": "x.y.Event"}))
    assert dotted.record.fields[1].type == point
    other = parse(("a", {**inner, "namespace": "z"}), ("b", "z.P"), namespace="x.y")
    assert other.record.fields[1].type == Record("z.P", point.fields, "")


def test_a_fields_own_attributes_are_read() -> None:
    given = {"name": "a", "type": ["null", "int"], "doc": "why", "aliases": ["b"], "default": None}
    field = parse(given).record.field("a")
    assert field is not None
    assert (field.doc, field.aliases, field.has_default, field.default) == ("why", ("b",), True, None)
    assert parse(("a", "int")).record.fields[0].has_default is False
    assert parse(("a", "int")).record.field("b") is None


def test_optional_in_either_order() -> None:
    assert optional_of(only(["null", "string"])) == (STRING, True)
    assert optional_of(only(["string", "null"])) == (STRING, True)
    assert optional_of(STRING) == (STRING, False)
    several = only(["null", "string", "int"])
    assert optional_of(several) == (several, False)
    assert several.nullable
    assert several.others == (STRING, Primitive("int"))
    assert is_null(Primitive("null"))
    assert not is_null(several)


def test_the_text_keeps_the_order_and_loses_the_white_space() -> None:
    schema = AvroSchema.parse(json.dumps(record(("a", "int"), doc="für"), indent=4))
    assert schema.text == '{"type":"record","name":"Event","doc":"für","fields":[{"name":"a","type":"int"}]}'
    assert AvroSchema.parse(schema.text) == schema
    assert schema.document == json.loads(schema.text)
    assert schema.parsed["name"] == "Event"


NESTED = record(
    ("id", "long"),
    (
        "items",
        [
            "null",
            {
                "type": "array",
                "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]},
            },
        ],
    ),
    ("by", {"type": "map", "values": {"type": "array", "items": "Item"}}),
)


def test_paths() -> None:
    schema = AvroSchema.parse(json.dumps(NESTED))
    assert [path for path, _ in schema.walk()] == ["id", "items", "items[].sku", "by", "by{}[].sku"]
    found = schema.at("by{}[].sku")
    assert found is not None
    assert found.type == STRING
    assert schema.at("by.sku") is None


# --- tags ---

EMAIL = ["PII", "user.contact.email"]
TAGGED: list[tuple[str, Any]] = [
    ("in the field", {"name": "a", "type": "string", "confluent:tags": EMAIL}),
    ("in its type", {"name": "a", "type": {"type": "string", "confluent:tags": EMAIL}}),
    ("in a branch", {"name": "a", "type": ["null", {"type": "string", "confluent:tags": EMAIL}]}),
    (
        "in an array's items",
        {"name": "a", "type": {"type": "array", "items": {"type": "string", "confluent:tags": EMAIL}}},
    ),
    (
        "in a map's values",
        {"name": "a", "type": {"type": "map", "values": ["null", {"type": "string", "confluent:tags": EMAIL}]}},
    ),
    (
        "deep inside",
        {
            "name": "a",
            "type": [
                "null",
                {"type": "array", "items": {"type": "map", "values": {"type": "string", "confluent:tags": EMAIL}}},
            ],
        },
    ),
]


@pytest.mark.parametrize("field", [row[1] for row in TAGGED], ids=[row[0] for row in TAGGED])
def test_a_tag_counts_wherever_it_stands(field: Any) -> None:
    """A tag that is overlooked lets a value pass unmasked."""
    assert parse(field).pii == {"a": "user.contact.email"}


def test_a_tag_of_a_named_type_counts_wherever_it_is_referred_to() -> None:
    secret = {"type": "fixed", "name": "Secret", "size": 4, "confluent:tags": ["PII"]}
    schema = parse(
        ("a", secret), ("b", ["null", "Secret"]), ("c", {"type": "array", "items": "x.Secret"}), namespace="x"
    )
    assert schema.pii == {"a": None, "b": None, "c": None}
    person = {**record(("email", "string")), "name": "Person", "confluent:tags": ["PII", "user"]}
    assert parse(("owner", person), ("buyer", "Person"), ("n", "int")).pii == {"owner": "user", "buyer": "user"}


def test_other_tags_are_no_pii() -> None:
    schema = parse({"name": "a", "type": "string", "confluent:tags": ["PUBLIC"]})
    assert schema.record.fields[0].tags == ("PUBLIC",)
    assert schema.pii == {}


# --- what is refused ---


def nested(depth: int, kind: str = "array", inside: str = "items") -> Any:
    result: Any = "int"
    for _ in range(depth):
        result = {"type": kind, inside: result}
    return result


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers to the one before it twice: a billion laughs in Avro."""
    levels_ = [{"type": "record", "name": "L0", "fields": [{"name": "n", "type": "int"}]}]
    levels_ += [
        {
            "type": "record",
            "name": f"L{i}",
            "fields": [{"name": "x", "type": f"L{i - 1}"}, {"name": "y", "type": f"L{i - 1}"}],
        }
        for i in range(1, levels)
    ]
    return record(*((f"f{i}", level) for i, level in enumerate(levels_)))


ENUM = {"type": "enum", "name": "E", "symbols": ["A"]}
BROKEN: list[tuple[str, str, str]] = [
    ("no JSON", "{", "line 1 column 2"),
    ("not even text", "", "this is not JSON"),
    ("NaN", '{"type": "record", "name": "E", "fields": [{"name": "a", "type": "double", "default": NaN}]}', "NaN"),
    ("a list", "[]", "an event's schema is a record"),
    ("a string", '"string"', "an event's schema is a record"),
    ("an array at the top", '{"type": "array", "items": "int"}', "an event's schema is a record"),
    ("no fields", '{"type": "record", "name": "E"}', "needs fields"),
    ("fields that are no list", '{"type": "record", "name": "E", "fields": "ab"}', "needs fields"),
    ("no name", '{"type": "record", "fields": []}', "needs a name"),
    ("a name that is a number", '{"type": "record", "name": 5, "fields": []}', "needs a name"),
    ("a namespace that is a number", json.dumps(record(("a", "int"), namespace=5)), "needs a name"),
    ("a field without name", json.dumps(record({"type": "int"})), "a field needs a name"),
    ("a field that is a string", json.dumps({**record(), "fields": ["a"]}), "a field needs a name"),
    ("a field with a dot", json.dumps(record(("a.b", "int"))), "is no name"),
    ("a field with a bracket", json.dumps(record(("a[]", "int"))), "is no name"),
    ("a field with a blank", json.dumps(record(("a b", "int"))), "is no name"),
    ("an empty name", json.dumps(record(("", "int"))), "is no name"),
    ("a name beyond ASCII", json.dumps(record(("é", "int"))), "is no name"),
    ("a record's name with a blank", json.dumps({**record(("a", "int")), "name": "x.a b"}), "is no name"),
    ("a field twice", json.dumps(record(("a", "int"), ("a", "string"))), "the field a twice"),
    ("no type", json.dumps(record({"name": "a"})), "a: a type is missing"),
    ("a type that is a number", json.dumps(record(("a", 5))), "a: a type is missing"),
    ("an array without items", json.dumps(record(("a", {"type": "array"}))), "a[]: a type is missing"),
    ("an unknown type", json.dumps(record(("a", ["null", "Missing"]))), "a: the type 'Missing' is not known"),
    ("a type before its definition", json.dumps(record(("a", "E"), ("b", ENUM))), "a: the type 'E' is not known"),
    ("a name defined twice", json.dumps(record(("a", ENUM), ("b", ENUM))), "not valid Avro"),
    ("no symbols", json.dumps(record(("a", {"type": "enum", "name": "E", "symbols": []}))), "needs symbols"),
    ("symbols in a string", json.dumps(record(("a", {**ENUM, "symbols": "AB"}))), "needs symbols"),
    ("symbols that are numbers", json.dumps(record(("a", {**ENUM, "symbols": [1]}))), "not valid Avro"),
    ("a symbol twice", json.dumps(record(("a", {**ENUM, "symbols": ["A", "A"]}))), "not valid Avro"),
    ("a size that is text", json.dumps(record(("a", {"type": "fixed", "name": "F", "size": "3"}))), "size is a whole"),
    (
        "a negative size",
        json.dumps(record(("a", {"type": "fixed", "name": "F", "size": -1}))),
        "size is a whole number",
    ),
    (
        "a precision that is true",
        json.dumps(record(("a", {"type": "bytes", "logicalType": "decimal", "precision": True}))),
        "precision is a whole number",
    ),
    ("a recursive record", json.dumps(record(("next", ["null", "Event"]))), "next: the record Event contains itself"),
    (
        "a record that is recursive in a map",
        json.dumps(record(("a", {"type": "map", "values": {"type": "array", "items": "Event"}}))),
        "a{}[]: the record Event contains itself",
    ),
    (
        "tags that are text",
        json.dumps(record({"name": "a", "type": "int", "confluent:tags": "PII"})),
        "a list of strings",
    ),
    ("a default of another type", json.dumps(record({"name": "a", "type": "int", "default": "x"})), "not valid Avro"),
    ("aliases that are no list", json.dumps(record({"name": "a", "type": "int", "aliases": 5})), "not valid Avro"),
    ("deep arrays", json.dumps(record(("a", nested(33)))), "nested deeper than 32"),
    ("very deep arrays", json.dumps(record(("a", nested(150)))), "nested deeper than 32"),
    ("types in types", json.dumps(record(("a", nested(150, "x", "type")))), "not valid Avro"),
    (
        "deep unions",
        json.dumps(record(("a", "[" * 300 + "]" * 300))).replace('"[', "[").replace(']"', "]"),
        "a union stands in a union",
    ),
    (
        "a key that stands twice",
        json.dumps(record({"name": "a", "type": "int", "doc": "x"})).replace('"doc": "x"', '"doc": "x", "doc": "y"'),
        "the key 'doc' stands twice",
    ),
    ("two branches of one type", json.dumps(record(("a", ["long", "string", "long"]))), "a: the union has long twice"),
    (
        "two arrays in a union",
        json.dumps(record(("a", [{"type": "array", "items": "int"}, {"type": "array", "items": "long"}]))),
        "a: the union has the array twice",
    ),
    ("JSON deeper than Python reads", "[" * 200_000, "nested deeper than 32"),
    ("a large text", " " * (MAX_SCHEMA_BYTES + 1), "larger than"),
    ("a billion fields", json.dumps(doubling(30)), "fields where its references are followed"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_is_no_schema_of_an_event_is_refused(text: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        AvroSchema.parse(text, where="orders.avsc")
    assert message in str(caught.value)
    assert str(caught.value).startswith("orders.avsc: ")
    assert len(str(caught.value)) < 2_000


def test_the_deepest_schema_that_is_allowed() -> None:
    deep = parse(("a", nested(MAX_DEPTH)))
    assert [path for path, _ in deep.walk()] == ["a"]


def test_references_do_not_hide_depth() -> None:
    level = {"type": "record", "name": "L0", "fields": [{"name": "n", "type": "int"}]}
    fields: list[Any] = [("f0", level)]
    fields += [
        (f"f{i}", {"type": "record", "name": f"L{i}", "fields": [{"name": "x", "type": f"L{i - 1}"}]})
        for i in range(1, MAX_DEPTH + 5)
    ]
    with pytest.raises(SchemaError, match="nested deeper"):
        parse(*fields)
    assert len(parse(*fields[:MAX_DEPTH]).record.fields) == MAX_DEPTH
