"""What a schema's version asks of a table: a table of sentence, old, new, expected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyiceberg import types as ice

from headrace.schemas.avro import AvroSchema
from headrace.schemas.changes import AddColumn, described
from headrace.schemas.evolution import Step, first_step, step


def record(*fields: Any, name: str = "Event") -> dict[str, Any]:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return {"type": "record", "name": name, "fields": members}


def parse(*fields: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields)))


def between(old: AvroSchema, new: AvroSchema, nulled: frozenset[str] = frozenset()) -> Step:
    first = first_step(old.record, frozenset())
    assert not first.refused
    return step(first.columns, new.record, nulled)


def diff(made: Step) -> list[tuple[str, ...]]:
    assert not made.refused
    return [described(change) for change in made.changes]


def alias(name: str, kind: Any, *aliases: str) -> dict[str, Any]:
    return {"name": name, "type": kind, "aliases": list(aliases)}


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
FIXED = {"type": "fixed", "name": "F", "size": 4}
OPTIONAL = "optional"
# What happens to the fields, and what the table needs.
ALLOWED: list[tuple[str, list[Any], list[Any], list[tuple[str, ...]]]] = [
    ("nothing", [("a", "int")], [("a", "int")], []),
    ("int widened", [("a", "int")], [("a", "long")], [("widen", "a", "int", "long")]),
    ("float widened", [("a", "float")], [("a", "double")], [("widen", "a", "float", "double")]),
    (
        "a decimal widened",
        [("a", decimal_of(9))],
        [("a", decimal_of(12))],
        [("widen", "a", "decimal(9,2)", "decimal(12,2)")],
    ),
    ("made optional", [("a", "int")], [("a", ["null", "int"])], [("make_optional", "a")]),
    ("made optional the other way round", [("a", "int")], [("a", ["int", "null"])], [("make_optional", "a")]),
    (
        "made optional and wider",
        [("a", "int")],
        [("a", ["null", "long"])],
        [("make_optional", "a"), ("widen", "a", "int", "long")],
    ),
    ("made required", [("a", ["null", "int"])], [("a", "int")], []),
    ("a default given", [("a", "int")], [{"name": "a", "type": "int", "default": 1}], [("make_optional", "a")]),
    ("millis to micros", [("a", long_of("timestamp-millis"))], [("a", long_of("timestamp-micros"))], []),
    ("an enum to a string", [("a", ENUM)], [("a", "string")], []),
    ("a symbol added", [("a", ENUM)], [("a", {**ENUM, "symbols": ["A", "B"]})], []),
    (
        "a fixed decimal to bytes",
        [("a", {**decimal_of(9), "type": "fixed", "name": "F", "size": 4})],
        [("a", decimal_of(9))],
        [],
    ),
    ("another namespace", [("a", {**ENUM, "namespace": "x"})], [("a", {**ENUM, "namespace": "y"})], []),
    (
        "items widened",
        [("a", {"type": "array", "items": "int"})],
        [("a", {"type": "array", "items": "long"})],
        [("widen", "a[]", "int", "long")],
    ),
    (
        "items made optional",
        [("a", {"type": "array", "items": "int"})],
        [("a", {"type": "array", "items": ["null", "int"]})],
        [("make_optional", "a[]")],
    ),
    (
        "items made required: the column stays",
        [("a", {"type": "array", "items": ["null", "int"]})],
        [("a", {"type": "array", "items": "int"})],
        [],
    ),
    (
        "values made optional and wider",
        [("a", {"type": "map", "values": "float"})],
        [("a", {"type": "map", "values": ["null", "double"]})],
        [("make_optional", "a{}"), ("widen", "a{}", "float", "double")],
    ),
    (
        "a field added in a record",
        [("a", record(("x", "int"), name="R"))],
        [("a", record(("x", "int"), ("y", "string"), name="R"))],
        [("add", "a.y", "string", OPTIONAL)],
    ),
    (
        "a field added in a list",
        [("a", listed(("x", "int")))],
        [("a", listed(("x", "int"), ("y", "string")))],
        [("add", "a[].y", "string", OPTIONAL)],
    ),
    (
        "a field widened in a map",
        [("a", mapped(("x", "int")))],
        [("a", mapped(("x", "long")))],
        [("widen", "a{}.x", "int", "long")],
    ),
    (
        "a field removed in a list",
        [("a", listed(("x", "int"), ("y", "int")))],
        [("a", listed(("x", "int")))],
        [("make_optional", "a[].y")],
    ),
    (
        "a named type used twice, changed once",
        [("a", record(("x", "int"), name="R")), ("b", "R")],
        [("a", record(("x", "long"), name="R")), ("b", "R")],
        [("widen", "a.x", "int", "long"), ("widen", "b.x", "int", "long")],
    ),
    ("a record renamed", [("a", record(("x", "int"), name="R"))], [("a", record(("x", "int"), name="S"))], []),
    (
        "deep inside",
        [("a", {"type": "array", "items": deep("int")})],
        [("a", {"type": "array", "items": deep("long")})],
        [("widen", "a[].x{}.y", "int", "long")],
    ),
    ("renamed", [("a", "int")], [alias("b", "int", "a")], [("rename", "a", "b")]),
    (
        "renamed, wider and optional",
        [("a", "int")],
        [alias("b", ["null", "long"], "a")],
        [("rename", "a", "b"), ("make_optional", "b"), ("widen", "b", "int", "long")],
    ),
    (
        "renamed in a list, in a record that is renamed",
        [("a", listed(("x", "int")))],
        [alias("b", {"type": "array", "items": {**record(alias("y", "int", "x"), ("z", "int"), name="R")}}, "a")],
        [("rename", "a", "b"), ("rename", "b[].x", "b[].y"), ("add", "b[].z", "int", OPTIONAL)],
    ),
    ("an alias of nothing", [("a", "int")], [alias("a", "int", "z")], []),
    (
        "only the case changed, by an alias",
        [("mail", "int")],
        [alias("Mail", "int", "mail")],
        [("rename", "mail", "Mail")],
    ),
    ("reordered", [("a", "int"), ("b", "int")], [("b", "int"), ("a", "int")], [("reorder",)]),
    (
        "reordered in a record",
        [("r", record(("a", "int"), ("b", "int"), name="R"))],
        [("r", record(("b", "int"), ("a", "int"), name="R"))],
        [("reorder", "r")],
    ),
    (
        "added in the middle",
        [("a", "int"), ("b", "int")],
        [("a", "int"), ("m", "int"), ("b", "int")],
        [("add", "m", "int", OPTIONAL)],
    ),
    (
        "a branch added to a union",
        [("u", ["int", "string"])],
        [("u", ["int", "string", "boolean"])],
        [("add", "u.boolean", "boolean", OPTIONAL)],
    ),
    ("a branch taken from a union", [("u", ["int", "string", "boolean"])], [("u", ["int", "string"])], []),
    (
        "a union that may be null",
        [("u", ["int", "string"])],
        [("u", ["null", "string", "int"])],
        [("make_optional", "u"), ("reorder", "u")],
    ),
    (
        "a branch promoted in a union is a branch of its own",
        [("u", ["int", "string"])],
        [("u", ["long", "string"])],
        [("add", "u.long", "long", OPTIONAL)],
    ),
    (
        "a field added in a branch",
        [("u", ["int", record(("x", "int"), name="R")])],
        [("u", ["int", record(("x", "int"), ("y", "int"), name="R")])],
        [("add", "u.R.y", "int", OPTIONAL)],
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), [row[1:] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_change_that_iceberg_allows(old: list[Any], new: list[Any], expected: list[tuple[str, ...]]) -> None:
    made = between(parse(*old), parse(*new))
    assert diff(made) == expected
    # The version that was just followed asks for nothing more.
    assert diff(step(made.columns, parse(*new).record, frozenset())) == []


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
    ("narrowed", "long", "int", "a"),
    ("digits taken", decimal_of(12), decimal_of(9), "a"),
    ("one of several", ["null", "int"], ["null", "int", "string"], "a"),
    ("one again", ["null", "int", "string"], ["null", "int"], "a"),
    ("a branch of another size", ["int", FIXED], ["int", {**FIXED, "size": 5}], "a.F"),
]


@pytest.mark.parametrize(("old", "new", "path"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_change_that_iceberg_does_not_allow(old: Any, new: Any, path: str) -> None:
    before = first_step(parse(("a", old)).record, frozenset()).columns
    made = step(before, parse(("a", new), ("b", "int")).record, frozenset())
    (refused,) = made.refused
    assert (refused.rule, refused.path) == ("UNSUPPORTED_TYPE_CHANGE", path)
    assert refused.hint
    assert refused.old
    assert refused.new
    # Nothing of the version is applied.
    assert (made.changes, made.columns) == ((), before)


def refusals(old: list[Any], new: list[Any]) -> list[tuple[str, str]]:
    return [(refused.rule, refused.path) for refused in between(parse(*old), parse(*new)).refused]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([("mail", "int")], [("mail", "int"), ("Mail", "int")], ("FIELD_NAME_CASE_COLLISION", "Mail")),
        ([("mail", "int")], [("Mail", "int")], ("FIELD_NAME_CASE_COLLISION", "Mail")),
        (
            [("r", listed(("x", "int")))],
            [("r", listed(("x", "int"), ("X", "int")))],
            ("FIELD_NAME_CASE_COLLISION", "r[].X"),
        ),
        ([("r", record(("x", "int"), name="R"))], [("r", record(name="R"))], ("EMPTY_STRUCT", "r")),
        ([("a", "int")], [("a", "int"), ("b", "null")], ("UNSUPPORTED_TYPE", "b")),
        ([("a", "int"), ("b", "int")], [alias("a", "int", "b"), alias("b", "int", "a")], None),
        ([("a", "int"), ("b", "int")], [("a", "int"), alias("c", "int", "a")], ("ALIAS_AMBIGUOUS", "c")),
        ([("a", "int")], [alias("b", "int", "a"), alias("c", "int", "a")], ("ALIAS_AMBIGUOUS", "c")),
        ([("a", "int"), ("b", "int")], [alias("b", "int", "a")], ("ALIAS_OF_EXISTING_COLUMN", "b")),
        ([("a", "int"), ("b", "int")], [alias("c", "int", "a", "b")], ("ALIAS_OF_EXISTING_COLUMN", "c")),
    ],
)
def test_names_that_no_table_can_follow(old: list[Any], new: list[Any], expected: tuple[str, str] | None) -> None:
    """Two aliases that cross are two faults."""
    found = refusals(old, new)
    assert found == ([expected] if expected else [("ALIAS_AMBIGUOUS", "a"), ("ALIAS_AMBIGUOUS", "b")])


def test_a_name_of_other_case_is_told_how_it_stays_the_same_column() -> None:
    before = parse(("Mail", "string"))
    (refused,) = between(before, parse(("mail", "string"))).refused
    assert refused.hint.endswith("or the alias Mail if it is the same")
    assert diff(between(before, parse(alias("mail", "string", "Mail")))) == [("rename", "Mail", "mail")]
    twins = step((), parse(("Mail", "string"), ("mail", "string")).record, frozenset())
    assert twins.refused
    assert all("alias" not in each.hint for each in twins.refused)


def test_everything_that_is_refused_is_told_at_once() -> None:
    found = refusals([("a", "int"), ("b", "long")], [("a", "double"), ("b", "int"), ("B", "int")])
    assert found == [
        ("FIELD_NAME_CASE_COLLISION", "B"),
        ("UNSUPPORTED_TYPE_CHANGE", "a"),
        ("UNSUPPORTED_TYPE_CHANGE", "b"),
    ]


def test_columns_are_added_optional_with_their_doc_and_whole_type() -> None:
    contact = record(("email", "string"), ("since", ["null", {"type": "int", "logicalType": "date"}]), name="C")
    new = parse(
        ("a", "int"), {"name": "contact", "type": contact, "doc": "who"}, ("tags", {"type": "array", "items": "string"})
    )
    made = between(parse(("a", "int")), new)
    first, second = made.changes
    assert isinstance(first, AddColumn)
    assert isinstance(second, AddColumn)
    assert (first.at, first.doc, first.after) == (("contact",), "who", "a")
    assert (second.at, str(second.type), second.doc, second.after) == (("tags",), "list<string>", None, "contact")
    assert isinstance(first.type, ice.StructType)
    assert [(f.name, f.required) for f in first.type.fields] == [("email", True), ("since", False)]
    assert made.placed == {"a": 1, "contact": 2, "contact.email": 3, "contact.since": 4, "tags": 5}


def test_a_column_whose_mask_is_null_is_made_or_added_optional() -> None:
    old = parse(("a", "string"), ("c", record(("email", "string"), name="C")))
    made = between(old, old, frozenset({"a", "c.email"}))
    assert diff(made) == [("make_optional", "a"), ("make_optional", "c.email")]
    new = parse(
        ("a", "string"), ("c", record(("email", "string"), name="C")), ("d", record(("email", "string"), name="D"))
    )
    (added,) = between(old, new, frozenset({"d.email"})).changes
    assert isinstance(added, AddColumn)
    assert isinstance(added.type, ice.StructType)
    assert not added.type.fields[0].required


def test_a_field_that_comes_back_is_its_old_column() -> None:
    first = first_step(parse(("id", "int"), ("n", "int")).record, frozenset())
    gone = step(first.columns, parse(("id", "int")).record, frozenset())
    assert diff(gone) == [("make_optional", "n")]
    back = step(gone.columns, parse(("id", "int"), ("n", "long")).record, frozenset())
    assert diff(back) == [("widen", "n", "int", "long")]
    assert back.placed["n"] == first.placed["n"]
    other = step(gone.columns, parse(("id", "int"), ("n", "string")).record, frozenset())
    assert [refused.rule for refused in other.refused] == ["UNSUPPORTED_TYPE_CHANGE"]


def test_a_wider_column_has_room_for_a_version_that_was_judged_before() -> None:
    ahead = first_step(parse(("a", ["null", "long"]), ("gone", ["null", "string"])).record, frozenset()).columns
    old = parse(("a", "int"), ("gone", "string"))
    assert diff(step(ahead, old.record, frozenset(), wider_has_room=True)) == []
    assert step(ahead, old.record, frozenset()).refused
