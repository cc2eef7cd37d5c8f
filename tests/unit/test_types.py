"""One table of types: what has a column, of which type, and what is refused with a way out."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.types import ListType

from headrace.schemas import types
from headrace.schemas.avro import AvroSchema, Record
from headrace.schemas.masks import Mask
from headrace.schemas.shapes import shape
from headrace.schemas.types import (
    METADATA_NAMES,
    RESERVED_COLUMNS,
    ColumnTypes,
    arrow_field,
    leaf_type,
    masked_leaf,
    refusals,
    unsupported,
)
from headrace.sinks.tables import table_schema


def record(*fields: Any, name: str = "Event") -> dict[str, Any]:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return {"type": "record", "name": name, "fields": members}


def parse(*fields: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields)))


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def fixed(size: int, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size} | more


MONTHS, DAYS, MILLIS = (
    f"{number}: {name}: required long" for number, name in enumerate(("months", "days", "millis"), 3)
)
COLUMNS: list[tuple[Any, str]] = [
    ("boolean", "boolean"),
    ("int", "int"),
    ("long", "long"),
    ("float", "float"),
    ("double", "double"),
    ("bytes", "binary"),
    ("string", "string"),
    (logical("bytes", "decimal", precision=38, scale=10), "decimal(38, 10)"),
    (fixed(4, logicalType="decimal", precision=9, scale=2), "decimal(9, 2)"),
    (logical("string", "uuid"), "uuid"),
    (fixed(16, logicalType="uuid"), "uuid"),
    (logical("int", "date"), "date"),
    (logical("long", "timestamp-millis"), "timestamptz"),
    (logical("long", "timestamp-micros"), "timestamptz"),
    (logical("long", "local-timestamp-millis"), "timestamp"),
    (logical("long", "local-timestamp-micros"), "timestamp"),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, "string"),
    (fixed(3), "fixed[3]"),
    (logical("string", "mystery"), "string"),
    (logical("int", "time-millis"), "string"),
    (logical("long", "time-micros"), "string"),
    (logical("long", "timestamp-nanos"), "long"),
    (logical("long", "local-timestamp-nanos"), "long"),
    (fixed(12, logicalType="duration"), f"struct<{MONTHS}, {DAYS}, {MILLIS}>"),
    ({"type": "array", "items": "int"}, "list<int>"),
    ({"type": "map", "values": ["null", "long"]}, "map<string, long>"),
    (record(("x", "int"), name="R"), "struct<3: x: required int>"),
]


@pytest.mark.parametrize(("kind", "expected"), COLUMNS, ids=[row[1] for row in COLUMNS])
def test_a_type_has_its_column(kind: Any, expected: str) -> None:
    """Required as it stands, optional in a union with null in either order, and written as pyiceberg would."""
    schema = parse(("a", kind), ("b", ["null", "int"]))
    assert not unsupported(schema)
    column = table_schema(schema, {}).fields[0]
    assert column.required
    assert _unnumbered(str(column.field_type)) == _unnumbered(expected)
    for union in (["null", kind], [kind, "null"]):
        optional = table_schema(parse(("a", union)), {}).fields[0]
        assert not optional.required
        assert _unnumbered(str(optional.field_type)) == _unnumbered(expected)


def _unnumbered(text: str) -> str:
    """A type without the field ids in it."""
    return re.sub(r"\d+: ", "", text)


REFUSED: list[tuple[str, Any, str, str]] = [
    ("a union of nothing", [], "a", "null alone"),
    ("a union of null", ["null"], "a", "null alone"),
    ("null", "null", "a", "null alone"),
    ("a list of null", {"type": "array", "items": "null"}, "a[]", "null alone"),
    ("a record without fields", record(name="R"), "a", "without fields"),
    ("a record without fields in a union", ["int", record(name="R")], "a.R", "without fields"),
    ("39 digits", logical("bytes", "decimal", precision=39), "a", "decimal precision 39"),
    ("no digits", logical("bytes", "decimal", precision=0), "a", "decimal precision 0"),
    ("a decimal of 40 bytes", fixed(40, logicalType="decimal", precision=9), "a", "decimal of 40 bytes"),
    ("a fixed of nothing", fixed(0), "a", "no bytes"),
    (
        "names that differ in case only",
        [record(("x", "int"), name="R"), record(("x", "int"), name="r")],
        "a.r",
        "R and r",
    ),
    (
        "a type named as another's kind",
        [{"type": "map", "values": "int"}, fixed(2, name="map")],
        "a.map",
        "map and map",
    ),
    (
        "a branch of a branch",
        {"type": "map", "values": ["int", {"type": "array", "items": ["string", fixed(0)]}]},
        "a{}.array[].F",
        "no bytes",
    ),
    (
        "in a record",
        record(("b", {"type": "array", "items": record(("t", "null"), name="S")}), name="R"),
        "a.b[].t",
        "null",
    ),
]


@pytest.mark.parametrize(("kind", "path", "what"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_has_no_column_is_named_with_a_way_out(kind: Any, path: str, what: str) -> None:
    try:
        schema = parse(("a", kind))
    except Exception as error:  # noqa: BLE001 - fastavro itself refuses some of these
        pytest.skip(str(error))
    ((found_path, found_what, hint),) = unsupported(schema)
    assert [each[1:] for each in refusals(schema)] == [(found_path, found_what, hint)]
    assert found_path == path
    assert what in found_what
    assert hint


def test_all_is_found_in_one_run() -> None:
    schema = parse(("a", "null"), ("b", "int"), ("B", "int"), ("_partition", "int"), ("_kafka_offset", "long"))
    assert [path for path, *_ in unsupported(schema)] == ["a", "B", "_partition", "_kafka_offset"]


def test_what_is_refused_has_a_stable_code() -> None:
    schema = parse(
        ("a", "null"),
        ("b", record(name="R")),
        ("B", "int"),
        ("_partition", "int"),
        {"name": "c", "type": "string", "default": "\ud800"},
        ("d", [fixed(2, name="D"), fixed(3, name="d")]),
    )
    assert [(found.rule, found.path) for found in refusals(schema)] == [
        ("UNSUPPORTED_TYPE", "a"),
        ("EMPTY_STRUCT", "b"),
        ("FIELD_NAME_CASE_COLLISION", "B"),
        ("RESERVED_NAME", "_partition"),
        ("INVALID_DEFAULT", "c"),
        ("FIELD_NAME_CASE_COLLISION", "d.d"),
    ]


def test_names_are_reserved_at_the_top_alone() -> None:
    inner = record(*((name, "int") for name in sorted(RESERVED_COLUMNS | METADATA_NAMES)), name="R")
    assert not unsupported(parse(("a", inner)))
    twins = record(("x", "int"), ("X", "int"), name="R")
    assert [path for path, *_ in unsupported(parse(("a", {"type": "array", "items": twins})))] == ["a[].X"]


@pytest.mark.parametrize("name", ["_Kafka_Offset", "_PARTITION"])
def test_names_of_the_tables_own_columns_are_reserved_in_any_case(name: str) -> None:
    """SQL engines cannot tell them apart."""
    assert [found.rule for found in refusals(parse((name, "int")))] == ["RESERVED_NAME"]


DEFAULTS: list[tuple[Any, Any, bool]] = [
    ("int", 2**31 - 1, True),
    ("int", 2**31, False),
    ("int", 1.0, False),
    ("int", True, False),
    ("long", -(2**63), True),
    ("long", 2**63, False),
    ("boolean", False, True),
    ("float", 1, True),
    ("float", 1e39, False),
    ("double", 1e308, True),
    ("double", 10**400, False),
    ("string", "", True),
    ("string", "\ud83d", False),
    ({"type": "map", "values": "int"}, {"\ud83d": 1}, False),
    (logical("int", "time-millis"), 86_399_999, True),
    (logical("int", "time-millis"), 86_400_000, False),
    (logical("long", "time-micros"), 86_399_999_999, True),
    (logical("long", "time-micros"), -1, False),
    (logical("long", "timestamp-nanos"), 2**63 - 1, True),
    (logical("long", "timestamp-nanos"), 2**63, False),
    (fixed(12, logicalType="duration"), "\u00ff" * 12, True),
    (fixed(12, logicalType="duration"), "\u00ff" * 11, False),
    (["int", "string"], "x", True),
    (["null", "int", "string"], None, True),
    (["int", "string"], 1.5, False),
    ("bytes", "\u00ff", True),
    ("bytes", "\u0100", False),
    (fixed(2), "ab", True),
    (fixed(2), "a", False),
    (logical("bytes", "decimal", precision=2), "\u0063", True),
    (logical("bytes", "decimal", precision=2), "\u0064", False),
    (logical("bytes", "decimal", precision=2), "\u0001\u0000", False),
    (logical("string", "uuid"), "6f1f3dd8-6f9e-4f0c-9d3b-0d2f6a1c2b3d", True),
    (logical("string", "uuid"), "none", False),
    (logical("int", "date"), 2_932_896, True),
    (logical("int", "date"), 2_932_897, False),
    (logical("long", "timestamp-millis"), 253_402_300_799_999, True),
    (logical("long", "timestamp-millis"), 253_402_300_800_000, False),
    (logical("long", "local-timestamp-micros"), -62_135_596_800_000_000, True),
    (logical("long", "local-timestamp-micros"), -62_135_596_800_000_001, False),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, "A", True),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, "B", False),
    ({"type": "array", "items": "int"}, [1, 2], True),
    ({"type": "array", "items": "int"}, [1, "x"], False),
    ({"type": "map", "values": "int"}, {"a": 1}, True),
    ({"type": "map", "values": "int"}, {"a": None}, False),
    (["null", "int"], None, True),
    (["null", "int"], 5, True),
    (["int", "null"], None, True),
    (["null", "int"], "x", False),
    (record(("x", "int"), name="R"), {"x": 1}, True),
    (record(("x", "int"), name="R"), {}, False),
    (record({"name": "x", "type": "int", "default": 1}, name="R"), {}, True),
    (record(("x", "int"), name="R"), {"x": "a"}, False),
    (record(("x", "int"), name="R"), [], False),
]


@pytest.mark.parametrize(("kind", "default", "good"), DEFAULTS)
def test_a_default_that_no_column_can_hold_is_refused(kind: Any, default: Any, good: bool) -> None:
    """The sink fills older events with it: it would fail on the first of them."""
    text = json.dumps(record({"name": "a", "type": kind, "default": default}))
    try:
        schema = AvroSchema.parse(text)
    except ValueError as error:
        pytest.fail(str(error))
    except Exception:  # noqa: BLE001 - fastavro itself finds the simplest of them
        assert not good
        return
    found = unsupported(schema)
    assert (
        not found
        if good
        else [(path, what) for path, what, _ in found] == [("a", "the default is no value of the field's type")]
    )


def test_masked_leaf_looks_behind_what_holds_it() -> None:
    def leaf(kind: Any) -> str:
        return masked_leaf(parse(("a", kind)).record.fields[0].type)

    assert leaf("string") == "string"
    assert leaf(["null", {"type": "array", "items": ["null", {"type": "map", "values": "long"}]}]) == "long"
    assert leaf(logical("bytes", "decimal", precision=9, scale=2)) == "decimal(9, 2)"
    assert leaf({"type": "array", "items": record(("x", "int"), name="R")}) == "struct"
    assert leaf(["null", {"type": "array", "items": ["int", "string"]}]) == "struct"
    assert leaf(["null", fixed(12, logicalType="duration")]) == "struct"
    assert leaf({"type": "map", "values": logical("int", "time-millis")}) == "string"
    assert leaf(logical("long", "timestamp-nanos")) == "long"


@pytest.mark.parametrize("kind", [["int", "string"], fixed(12, logicalType="duration"), record(("x", "int"), name="R")])
def test_what_is_a_struct_as_a_column_is_no_leaf(kind: Any) -> None:
    with pytest.raises(ValueError, match="no column type"):
        leaf_type(parse(("a", kind)).record.fields[0].type)
    struct, optional = shape(parse(("a", kind)).record.fields[0].type)
    assert isinstance(struct, Record)
    assert not optional


UNIONS: list[tuple[Any, bool, str]] = [
    (["int", "string"], True, "struct<int: optional int, string: optional string>"),
    (["null", "int", "string"], False, "struct<int: optional int, string: optional string>"),
    (
        ["int", "null", logical("long", "timestamp-micros")],
        False,
        "struct<int: optional int, long: optional timestamptz>",
    ),
    (["string"], True, "struct<string: optional string>"),
    (
        [{"type": "array", "items": ["int", "bytes"]}, {"type": "map", "values": "int"}],
        True,
        "struct<array: optional list<struct<int: optional int, bytes: optional binary>>, map: optional map<string, int>>",  # noqa: E501
    ),
    (
        [record(("x", "int"), name="a.R"), record(("y", "int"), name="b.R"), fixed(2, name="b.S")],
        True,
        "struct<a_R: optional struct<x: required int>, b_R: optional struct<y: required int>, S: optional fixed[2]>",
    ),
]


@pytest.mark.parametrize(("kind", "required", "expected"), UNIONS)
def test_a_union_is_a_struct_of_optional_branches(kind: Any, required: bool, expected: str) -> None:
    schema = parse(("a", kind), ("l", {"type": "array", "items": ["null", "int", "string"]}))
    assert not unsupported(schema)
    column, several = table_schema(schema, {}).fields[:2]
    assert column.required == required
    assert _unnumbered(str(column.field_type)) == expected
    assert isinstance(several.field_type, ListType)
    assert not several.field_type.element_required


def test_a_column_says_what_its_type_does_not() -> None:
    nanos = ["null", logical("long", "timestamp-nanos")]
    schema = parse(
        ("a", nanos),
        {"name": "b", "type": nanos, "doc": "when it was paid"},
        ("c", logical("long", "local-timestamp-nanos")),
        ("d", "long"),
        ("e", ["string", logical("long", "timestamp-nanos")]),
    )
    assert not unsupported(schema)
    columns = table_schema(schema, {})
    docs = [columns.find_field(name).doc for name in ("a", "b", "c", "d", "e.long")]
    utc = "nanoseconds since 1970-01-01 UTC"
    assert docs == [utc, "when it was paid", "nanoseconds since 1970-01-01, local time without a zone", None, utc]


BASES: dict[str, Any] = {
    **{name: name for name in ("null", "boolean", "int", "long", "float", "double", "bytes", "string")},
    "fixed(12)": fixed(12),
    "fixed(16)": fixed(16),
    "enum": {"type": "enum", "name": "E", "symbols": ["A"]},
    "array": {"type": "array", "items": "int"},
    "map": {"type": "map", "values": "int"},
    "record": record(("x", "int"), name="R"),
}
# Avro 1.12 specification, "Logical Types".
LOGICALS = {
    "decimal": {"bytes": "decimal(9, 2)", "fixed(12)": "decimal(9, 2)", "fixed(16)": "decimal(9, 2)"},
    "big-decimal": {},
    "uuid": {"string": "uuid", "fixed(16)": "uuid"},
    "date": {"int": "date"},
    "time-millis": {"int": "string"},
    "time-micros": {"long": "string"},
    "timestamp-millis": {"long": "timestamptz"},
    "timestamp-micros": {"long": "timestamptz"},
    "timestamp-nanos": {"long": "long"},
    "local-timestamp-millis": {"long": "timestamp"},
    "local-timestamp-micros": {"long": "timestamp"},
    "local-timestamp-nanos": {"long": "long"},
    "duration": {"fixed(12)": "struct<months: required long, days: required long, millis: required long>"},
}


@pytest.mark.parametrize("name", LOGICALS)
@pytest.mark.parametrize("base", BASES)
def test_each_type_with_each_logical_type_is_mapped_or_refused(base: str, name: str) -> None:
    """A logical type on a type that does not carry it is as if it were not there."""
    kind = BASES[base] if isinstance(BASES[base], dict) else {"type": BASES[base]}
    schema = parse(("a", {**kind, "logicalType": name, "precision": 9, "scale": 2}))
    if base == "null":
        assert [found.rule for found in refusals(schema)] == ["UNSUPPORTED_TYPE"]
        return
    assert not refusals(schema)
    alone = _unnumbered(str(table_schema(parse(("a", kind)), {}).fields[0].field_type))
    assert _unnumbered(str(table_schema(schema, {}).fields[0].field_type)) == LOGICALS[name].get(base, alone)


DOCUMENTED: dict[str, list[Any]] = {
    "boolean": ["boolean"],
    "int, long": ["int", "long"],
    "float, double": ["float", "double"],
    "bytes, string": ["bytes", "string"],
    "decimal (bytes, fixed)": [
        logical("bytes", "decimal", precision=9, scale=2),
        fixed(4, logicalType="decimal", precision=9, scale=2),
    ],
    "uuid (string, fixed 16)": [logical("string", "uuid"), fixed(16, logicalType="uuid")],
    "date": [logical("int", "date")],
    "time-millis, -micros": [logical("int", "time-millis"), logical("long", "time-micros")],
    "timestamp-millis, -micros": [logical("long", "timestamp-millis"), logical("long", "timestamp-micros")],
    "local-timestamp-m…": [logical("long", "local-timestamp-millis"), logical("long", "local-timestamp-micros")],
    "timestamp-nanos": [logical("long", "timestamp-nanos")],
    "local-timestamp-nanos": [logical("long", "local-timestamp-nanos")],
    "duration": [fixed(12, logicalType="duration")],
    "enum": [{"type": "enum", "name": "E", "symbols": ["A"]}],
    "fixed(N)": [fixed(3)],
    "array, map, record": [BASES["array"], BASES["map"], BASES["record"]],
    '["null", X], [X, "null"]': [["null", "int"], ["int", "null"]],
    "any other union": [["int", "string"], ["null", "int", "string"], ["int"]],
}


def test_the_documented_table_is_the_one_that_holds() -> None:
    lines = (types.__doc__ or "").split("==\n")
    rows = [re.split(r"  +", line.strip()) for line in lines[2].splitlines()[:-1] if not line.startswith(" ")]
    assert [row[0] for row in rows] == list(DOCUMENTED)
    for avro, column, *_ in rows:
        kinds = DOCUMENTED[avro]
        same = column == "X, optional" or len(column.split(", ")) != len(kinds)
        for kind, name in zip(kinds, [column] * len(kinds) if same else column.split(", "), strict=True):
            found = table_schema(parse(("a", kind)), {}).fields[0]
            if name == "X, optional":
                assert not found.required
                assert str(found.field_type) == "int"
                continue
            assert re.split(r"[(<\[]", str(found.field_type))[0] == name.partition("(")[0]


WIDE = parse(
    ("id", "long"),
    {"name": "tier", "type": "string", "default": "x", "doc": "why"},
    ("contact", record(("email", "string"), ("tags", {"type": "array", "items": "string"}), name="C")),
    ("items", {"type": "array", "items": record(("sku", "string"), name="I")}),
    ("by", {"type": "map", "values": ["null", "I"]}),
)


def test_a_table_has_fresh_ids_the_events_order_and_the_metadata_columns() -> None:
    schema = table_schema(WIDE, {})
    names = [field.name for field in schema.fields]
    assert names[:5] == ["id", "tier", "contact", "items", "by"]
    assert set(names[5:]) == METADATA_NAMES
    ids = list(schema._lazy_id_to_name)
    assert sorted(ids) == list(range(1, len(ids) + 1))
    tier = schema.find_field("tier")
    assert (tier.required, tier.doc) == (False, "why")
    assert {n for n in METADATA_NAMES if schema.find_field(n).required} == {
        "_kafka_partition",
        "_kafka_offset",
        "_schema_id",
        "_generation",
    }


def test_a_column_whose_mask_is_null_is_optional() -> None:
    masks = {
        "id": Mask.REPLACE_WITH_NULL,
        "contact.email": Mask.REPLACE_WITH_NULL,
        "items[].sku": Mask.REPLACE_WITH_NULL,
        "contact.tags": Mask.HMAC_SHA_256,
    }
    schema = table_schema(WIDE, masks)
    optional = {schema.find_column_name(i) for i in schema._lazy_id_to_name if not schema.find_field(i).required}
    assert {"id", "contact.email", "items.element.sku"} <= optional
    assert not {"contact", "contact.tags", "by.value.sku"} & optional


def test_the_arrow_schema_is_pyicebergs_own_but_for_large_types() -> None:
    schema = table_schema(WIDE, {})
    ours = pa.schema([arrow_field(field) for field in schema.fields])
    theirs = schema_to_pyarrow(schema, include_field_ids=True)
    assert ours.names == theirs.names
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.nullable == other.nullable
        assert mine.metadata[b"PARQUET:field_id"] == other.metadata[b"PARQUET:field_id"]
        small = str(other.type).replace("large_", "")
        assert str(mine.type) == small


def test_ids_of_a_struct_come_before_those_inside_it() -> None:
    ids = count(10)
    struct = ColumnTypes(lambda: next(ids)).struct(WIDE.record)
    assert [field.field_id for field in struct.fields] == [10, 11, 12, 13, 14]
