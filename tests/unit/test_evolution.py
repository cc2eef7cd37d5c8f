"""What a schema's version asks of a table: a table of sentence, old, new, expected."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pyiceberg import types as ice

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import SchemaError
from headrace.schemas.evolution import AddColumn, Change, MakeOptional, Widen, changes
from headrace.schemas.types import unsupported
from headrace.sinks.tables import table_schema


def record(*fields: Any, name: str = "Event") -> dict[str, Any]:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return {"type": "record", "name": name, "fields": members}


def parse(*fields: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields)))


def between(old: AvroSchema, new: AvroSchema, nulled: frozenset[str] = frozenset()) -> tuple[Change, ...]:
    return changes(table_schema(old, {}).fields, new.record, nulled)


def decimal_of(precision: int, scale: int = 2) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def long_of(logical: str) -> dict[str, Any]:
    return {"type": "long", "logicalType": logical}


def listed(*fields: Any) -> dict[str, Any]:
    return {"type": "array", "items": record(*fields, name="R")}


def mapped(*fields: Any) -> dict[str, Any]:
    return {"type": "map", "values": record(*fields, name="R")}


def deep(kind: str) -> dict[str, Any]:
    return record(("x", {"type": "map", "values": record(("y", kind), name="S")}), name="R")


ENUM = {"type": "enum", "name": "E", "symbols": ["A"]}
STRING, LONG, DOUBLE = ice.StringType(), ice.LongType(), ice.DoubleType()
# What happens to the one field "a", and what the table needs.
ALLOWED: list[tuple[str, Any, Any, tuple[Change, ...]]] = [
    ("nothing", "int", "int", ()),
    ("int widened", "int", "long", (Widen(("a",), LONG),)),
    ("float widened", "float", "double", (Widen(("a",), DOUBLE),)),
    ("a decimal widened", decimal_of(9), decimal_of(12), (Widen(("a",), ice.DecimalType(12, 2)),)),
    ("a column that is wider already", "long", "int", ()),
    ("a decimal that is wider already", decimal_of(12), decimal_of(9), ()),
    ("made optional", "int", ["null", "int"], (MakeOptional(("a",)),)),
    ("made optional the other way round", "int", ["int", "null"], (MakeOptional(("a",)),)),
    ("made optional and wider", "int", ["null", "long"], (MakeOptional(("a",)), Widen(("a",), LONG))),
    ("made required", ["null", "int"], "int", ()),
    ("a default given", "int", {"name": "a", "type": "int", "default": 1}, (MakeOptional(("a",)),)),
    ("millis to micros", long_of("timestamp-millis"), long_of("timestamp-micros"), ()),
    ("an enum to a string", ENUM, "string", ()),
    ("a symbol added", ENUM, {**ENUM, "symbols": ["A", "B"]}, ()),
    (
        "a fixed decimal to bytes",
        {"type": "fixed", "name": "F", "size": 4, **{k: v for k, v in decimal_of(9).items() if k != "type"}},
        decimal_of(9),
        (),
    ),
    (
        "items widened",
        {"type": "array", "items": "int"},
        {"type": "array", "items": "long"},
        (Widen(("a", "element"), LONG),),
    ),
    (
        "items made optional",
        {"type": "array", "items": "int"},
        {"type": "array", "items": ["null", "int"]},
        (MakeOptional(("a", "element")),),
    ),
    (
        "values made optional and wider",
        {"type": "map", "values": "float"},
        {"type": "map", "values": ["null", "double"]},
        (MakeOptional(("a", "value")), Widen(("a", "value"), DOUBLE)),
    ),
    (
        "a field added in a record",
        record(("x", "int"), name="R"),
        record(("x", "int"), ("y", "string"), name="R"),
        (AddColumn(("a", "y"), STRING, None),),
    ),
    (
        "a field added in a list",
        listed(("x", "int")),
        listed(("x", "int"), ("y", "string")),
        (AddColumn(("a", "element", "y"), STRING, None),),
    ),
    ("a field widened in a map", mapped(("x", "int")), mapped(("x", "long")), (Widen(("a", "value", "x"), LONG),)),
    (
        "a field removed in a list",
        listed(("x", "int"), ("y", "int")),
        listed(("x", "int")),
        (MakeOptional(("a", "element", "y")),),
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_change_that_iceberg_allows(old: Any, new: Any, expected: tuple[Change, ...]) -> None:
    after = (
        new if isinstance(new, dict) and "name" in new and "symbols" not in new and "fields" not in new else ("a", new)
    )
    assert between(parse(("a", old)), parse(after)) == expected


REFUSED: list[tuple[str, Any, Any, str]] = [
    ("int to double", "int", "double", "a"),
    ("int to float", "int", "float", "a"),
    ("long to float", "long", "float", "a"),
    ("string to bytes", "string", "bytes", "a"),
    ("bytes to string", "bytes", "string", "a"),
    ("int to string", "int", "string", "a"),
    ("a scale changed", decimal_of(9, 2), decimal_of(12, 3), "a"),
    ("a zone dropped", long_of("timestamp-micros"), long_of("local-timestamp-micros"), "a"),
    ("a logical type dropped", long_of("timestamp-micros"), "long", "a"),
    ("a date to a timestamp", {"type": "int", "logicalType": "date"}, long_of("timestamp-millis"), "a"),
    ("a size changed", {"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}, "a"),
    ("a leaf to a list", "int", {"type": "array", "items": "int"}, "a"),
    ("a leaf to a record", "int", record(("x", "int"), name="R"), "a"),
    ("a list to a leaf", {"type": "array", "items": "int"}, "int", "a"),
    ("a list to a map", {"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "a"),
    ("a record to a map", record(("x", "int"), name="R"), {"type": "map", "values": "int"}, "a"),
    ("items narrowed", {"type": "array", "items": "string"}, {"type": "array", "items": "int"}, "a[]"),
    ("deep inside", {"type": "array", "items": deep("int")}, {"type": "array", "items": deep("string")}, "a[].x{}.y"),
]


@pytest.mark.parametrize(("old", "new", "path"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_change_that_iceberg_does_not_allow(old: Any, new: Any, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        between(parse(("a", old)), parse(("a", new)))
    assert caught.value.path == path
    assert caught.value.hint


def test_columns_are_added_optional_with_their_doc_and_whole_type() -> None:
    contact = record(("email", "string"), ("since", ["null", {"type": "int", "logicalType": "date"}]), name="C")
    new = parse(
        ("a", "int"), {"name": "contact", "type": contact, "doc": "who"}, ("tags", {"type": "array", "items": "string"})
    )
    first, second = between(parse(("a", "int")), new)
    assert isinstance(first, AddColumn)
    assert (first.path, first.doc, second) == (("contact",), "who", AddColumn(("tags",), ice.ListType(1, STRING), None))
    assert isinstance(first.type, ice.StructType)
    assert [(f.name, f.required) for f in first.type.fields] == [("email", True), ("since", False)]


def test_a_column_whose_mask_is_null_is_made_or_added_optional() -> None:
    old = parse(("a", "string"), ("c", record(("email", "string"), name="C")))
    assert between(old, old, frozenset({"a", "c.email"})) == (MakeOptional(("a",)), MakeOptional(("c", "email")))
    new = parse(
        ("a", "string"), ("c", record(("email", "string"), name="C")), ("d", record(("email", "string"), name="D"))
    )
    (added,) = between(old, new, frozenset({"d.email"}))
    assert isinstance(added, AddColumn)
    assert isinstance(added.type, ice.StructType)
    assert not added.type.fields[0].required


def test_metadata_columns_are_nobodys_fields() -> None:
    """They stay required, although no event has them."""
    old = parse(("a", "int"))
    assert between(old, old) == ()


def test_a_name_that_differs_in_case_only_is_refused() -> None:
    with pytest.raises(SchemaError, match="in case only") as caught:
        between(parse(("mail", "int")), parse(("mail", "int"), ("Mail", "int")))
    assert caught.value.path == "Mail"
    with pytest.raises(SchemaError, match="the table's column mail"):
        between(parse(("mail", "int")), parse(("Mail", "int")))
    with pytest.raises(SchemaError) as caught:
        between(parse(("r", listed(("x", "int")))), parse(("r", listed(("x", "int"), ("X", "int")))))
    assert caught.value.path == "r[].X"


def test_an_older_version_asks_for_nothing_once_the_newer_was_followed() -> None:
    """Versions are followed in order; a table that has followed all of them has room for each."""
    old = parse(("a", "int"), ("gone", "string"))
    new = parse(("a", ["null", "long"]), ("b", "string"))
    fields = list(
        table_schema(parse(("a", ["null", "long"]), ("gone", ["null", "string"]), ("b", ["null", "string"])), {}).fields
    )
    assert changes(tuple(fields), old.record, frozenset()) == ()
    assert changes(tuple(fields), new.record, frozenset()) == ()


# --- the cases that all of the project's layers share ---

CASES = Path(__file__).parents[3] / "shared" / "cases" / "evolution.json"
# Renames by alias and a table's order of columns are not followed yet. A version narrower than the column is let
# in, because a table that was made from a later version meets the earlier ones too.
NOT_YET = {"renamed with an alias", "fields reordered", "long narrowed to int", "decimal precision narrowed"}


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(CASES.read_text())["cases"] if CASES.exists() else []
    return [case for case in found if case["name"] not in NOT_YET]


def dotted(path: tuple[str, ...]) -> str:
    """A change's path as schemas write it."""
    return ".".join(path).replace(".element", "[]").replace(".value", "{}")


def as_case(change: Change, before: dict[str, str]) -> list[str]:
    match change:
        case AddColumn(path=path, type=kind):
            return ["add", dotted(path), str(kind).replace(" ", ""), "optional"]
        case Widen(path=path, type=kind):
            return ["widen", dotted(path), before[dotted(path)], str(kind).replace(" ", "")]
        case MakeOptional(path=path):
            return ["make_optional", dotted(path)]


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not beside this clone")
@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["name"]))
def test_the_shared_cases(case: dict[str, Any]) -> None:
    old, new = (AvroSchema.parse(json.dumps(case[side])) for side in ("old", "new"))
    table = table_schema(old, {})
    ids = count(1)
    before = {
        dotted(tuple(str(table.find_column_name(i)).split("."))): str(table.find_field(i).field_type).replace(" ", "")
        for i in range(1, next(i for i in ids if table.find_column_name(i) is None))
    }
    if case["table"] == "refused":
        if not unsupported(new):
            with pytest.raises(SchemaError):
                changes(table.fields, new.record, frozenset())
        return
    assert not unsupported(new)
    found = [as_case(change, before) for change in changes(table.fields, new.record, frozenset())]
    assert found == case["diff"]
