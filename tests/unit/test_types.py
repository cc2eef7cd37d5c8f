"""One table of types: what has a column, of which type, and what is refused with a way out."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow

from headrace.schemas.avro import AvroSchema
from headrace.schemas.masks import Mask
from headrace.schemas.types import (
    METADATA_NAMES,
    RESERVED_COLUMNS,
    ColumnTypes,
    arrow_field,
    leaf_type,
    masked_leaf,
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
    return {"type": "fixed", "name": "F", "size": size, **more}


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
    ("a union", ["int", "string"], "a", "several branches"),
    ("a union with null", ["null", "int", "string"], "a", "several branches"),
    ("a union of one", ["int"], "a", "several branches"),
    ("an empty union", [], "a", "several branches"),
    ("null", "null", "a", "null alone"),
    ("a list of null", {"type": "array", "items": "null"}, "a[]", "null alone"),
    ("a record without fields", record(name="R"), "a", "without fields"),
    ("a time of day", logical("int", "time-millis"), "a", "time-millis"),
    ("micros of a day", logical("long", "time-micros"), "a", "time-micros"),
    ("nanoseconds", logical("long", "timestamp-nanos"), "a", "timestamp-nanos"),
    ("local nanoseconds", logical("long", "local-timestamp-nanos"), "a", "local-timestamp-nanos"),
    ("a duration", fixed(12, logicalType="duration"), "a", "duration"),
    ("39 digits", logical("bytes", "decimal", precision=39), "a", "decimal precision 39"),
    ("no digits", logical("bytes", "decimal", precision=0), "a", "decimal precision 0"),
    ("a decimal of 40 bytes", fixed(40, logicalType="decimal", precision=9), "a", "decimal of 40 bytes"),
    ("a fixed of nothing", fixed(0), "a", "no bytes"),
    ("in a map's list", {"type": "map", "values": {"type": "array", "items": ["int", "long"]}}, "a{}[]", "several"),
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
    assert found_path == path
    assert what in found_what
    assert hint


def test_all_is_found_in_one_run() -> None:
    schema = parse(("a", "null"), ("b", "int"), ("B", "int"), ("_partition", "int"), ("_kafka_offset", "long"))
    assert [path for path, *_ in unsupported(schema)] == ["a", "B", "_partition", "_kafka_offset"]


def test_names_are_reserved_at_the_top_alone() -> None:
    inner = record(*((name, "int") for name in sorted(RESERVED_COLUMNS | METADATA_NAMES)), name="R")
    assert not unsupported(parse(("a", inner)))
    twins = record(("x", "int"), ("X", "int"), name="R")
    assert [path for path, *_ in unsupported(parse(("a", {"type": "array", "items": twins})))] == ["a[].X"]


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


def test_a_leaf_without_a_column_is_no_leaf() -> None:
    with pytest.raises(ValueError, match="no column type"):
        leaf_type(parse(("a", ["int", "string"])).record.fields[0].type)


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
