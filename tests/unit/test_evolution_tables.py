"""What is predicted is what happens: real tables with rows follow each change, and DuckDB reads old and new rows."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
import pytest
from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroSchema, AvroType, Enum, Fixed, Map, Record, Union, optional_of
from headrace.schemas.changes import described
from headrace.schemas.errors import ProductStopped
from headrace.schemas.evolution import first_step, step
from headrace.schemas.types import METADATA_NAMES
from headrace.streams.decode import Decoder
from tests.support.lake import Lake
from tests.unit.test_evolution import ALLOWED, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyiceberg.schema import Schema

CASES = Path(__file__).parents[3] / "shared" / "cases" / "evolution.json"


def cases(verdict: str) -> list[tuple[str, AvroSchema, AvroSchema, list[list[str]], list[list[str]]]]:
    found = json.loads(CASES.read_text())["cases"] if CASES.exists() else []
    parsed = [
        (
            c["name"],
            AvroSchema.parse(json.dumps(c["old"])),
            AvroSchema.parse(json.dumps(c["new"])),
            c["diff"],
            c["findings"],
        )
        for c in found
        if c["table"] == verdict and c["name"] != "record made empty of fields"
    ]
    assert parsed or not found
    return parsed


FOLLOWED = [
    *((f"shared: {name}", old, new, diff) for name, old, new, diff, _ in cases("ok")),
    *(
        (name, parse(("id", "string"), *old), parse(("id", "string"), *new), [list(d) for d in diff])
        for name, old, new, diff in ALLOWED
    ),
]


@pytest.mark.parametrize(("old", "new", "diff"), [row[1:] for row in FOLLOWED], ids=[row[0] for row in FOLLOWED])
def test_a_table_changes_as_predicted_and_keeps_its_rows(
    tmp_path: Path, old: AvroSchema, new: AvroSchema, diff: list[list[str]]
) -> None:
    predicted = step(first_step(old.record, frozenset()).columns, new.record, frozenset())
    assert not predicted.refused
    assert [list(described(change)) for change in predicted.changes] == diff
    lake = Lake(tmp_path, old)
    lake.follow(old)
    lake.add(events(old, 1), 1)
    before = lake.table.schema()
    stored = lake.rows()
    lake.follow(old, new)
    after = lake.table.schema()
    assert sorted(observed(before, after)) == sorted(diff)
    assert [shape(field) for field in after.fields if field.name not in METADATA_NAMES] == [
        shape(field) for field in predicted.columns
    ]
    lake.add(events(new, 2), 2)
    lake.add(events(old, 3), 1)
    first, second, third = lake.rows()
    # The row from before shows under its columns' ids, and so does an old event that comes late.
    for row in (first, third):
        assert {k: v for k, v in row.items() if k not in METADATA_NAMES} == {
            field.name: moved(stored[0], before, field) if row is first else row[field.name]
            for field in after.fields
            if field.name not in METADATA_NAMES
        }
    for field in after.fields:
        if field.name in METADATA_NAMES:
            continue
        written = new.record.field(field.name)
        if written is None:
            assert second[field.name] is None
        else:
            assert second[field.name] is not None
        known = before.find_column_name(field.field_id)
        if known is not None:
            assert third[field.name] is not None
            assert isinstance(third[field.name], type(first[field.name]))


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not beside this clone")
@pytest.mark.parametrize("case", cases("refused"), ids=lambda case: str(case[0]))
def test_what_is_refused_never_changes_a_table(tmp_path: Path, case: Any) -> None:
    _, old, new, _, findings = case
    rules = {rule for layer, rule in findings if layer == "table"}
    predicted = step(first_step(old.record, frozenset()).columns, new.record, frozenset())
    assert {refused.rule for refused in predicted.refused} == rules
    lake = Lake(tmp_path, old)
    lake.follow(old)
    lake.add(events(old, 1), 1)
    place = lake.table.metadata_location
    with suppress(ProductStopped):
        lake.follow(old, new)
    assert lake.reload().metadata_location == place


def events(schema: AvroSchema, seed: int) -> pa.StructArray:
    """One event with a value in every field, as the sink decodes it."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema.parsed, datum(schema.record, count(seed)))
    decoded = Decoder(schema, 1).decode(pa.array([b"\x00\x00\x00\x00\x01" + body.getvalue()], pa.binary()))
    assert not decoded.refused
    return decoded.events


def datum(avro_type: AvroType, numbers: Iterator[int]) -> Any:
    """Return a value of a type; logical types as what lies under them."""
    inner, _ = optional_of(avro_type)
    match inner:
        case Record(fields=fields):
            return {field.name: datum(field.type, numbers) for field in fields}
        case Array(items=items):
            return [datum(items, numbers)]
        case Map(values=values):
            return {"k": datum(values, numbers)}
        case Union():
            return datum(inner.others[-1], numbers)
        case Enum(symbols=symbols):
            return symbols[0]
        case Fixed(size=size):
            return next(numbers).to_bytes(size, "big")
        case _:
            return PLAIN[inner.name](next(numbers))


PLAIN: dict[str, Callable[[int], Any]] = {
    "int": int,
    "long": int,
    "boolean": bool,
    "float": lambda number: number + 0.5,
    "double": lambda number: number + 0.5,
    "bytes": lambda number: number.to_bytes(2, "big"),
    "string": lambda number: f"s{number}",
}


# --- what pyiceberg shows of two schemas, by field id ---


def observed(before: Schema, after: Schema) -> list[list[str]]:
    old, new = {f.field_id: (path, f) for path, f in walk(before)}, {f.field_id: (path, f) for path, f in walk(after)}
    assert old.keys() <= new.keys()
    found: list[list[str]] = []
    for number, (path, field) in new.items():
        parent = path.rpartition(".")[0]
        if number not in old:
            if not any(
                path.startswith(other)
                for other in (f"{p}{s}" for i, (p, _) in new.items() if i not in old for s in ".[{")
            ):
                assert not field.required
                found.append(["add", path, text(field.field_type), "optional"])
            continue
        _, was = old[number]
        if was.name != field.name:
            found.append(["rename", f"{parent}.{was.name}" if parent else was.name, path])
        if was.required and not field.required:
            found.append(["make_optional", path])
        assert was.required or not field.required
        if was.field_type.is_primitive and was.field_type != field.field_type:
            found.append(["widen", path, text(was.field_type), text(field.field_type)])
    for path, fields in structs(after.as_struct(), ""):
        kept = [f.field_id for f in fields if f.field_id in old and f.name not in METADATA_NAMES]
        if kept != sorted(kept, key=list(old).index):
            found.append(["reorder", path] if path else ["reorder"])
    return found


def walk(schema: Schema) -> Iterator[tuple[str, ice.NestedField]]:
    def inside(kind: ice.IcebergType, path: str) -> Iterator[tuple[str, ice.NestedField]]:
        match kind:
            case ice.StructType(fields=fields):
                for field in fields:
                    below = f"{path}.{field.name}" if path else field.name
                    yield below, field
                    yield from inside(field.field_type, below)
            case ice.ListType():
                yield f"{path}[]", kind.element_field
                yield from inside(kind.element_type, f"{path}[]")
            case ice.MapType():
                yield f"{path}{{}}", kind.value_field
                yield from inside(kind.value_type, f"{path}{{}}")
            case _:
                pass

    return inside(schema.as_struct(), "")


def structs(kind: ice.IcebergType, path: str) -> Iterator[tuple[str, tuple[ice.NestedField, ...]]]:
    match kind:
        case ice.StructType(fields=fields):
            yield path, fields
            for field in fields:
                yield from structs(field.field_type, f"{path}.{field.name}" if path else field.name)
        case ice.ListType():
            yield from structs(kind.element_type, f"{path}[]")
        case ice.MapType():
            yield from structs(kind.value_type, f"{path}{{}}")
        case _:
            pass


def text(kind: ice.IcebergType) -> str:
    return str(kind).replace(" ", "")


def shape(field: ice.NestedField) -> Any:
    """Return a column without its ids."""
    match field.field_type:
        case ice.StructType(fields=fields):
            kind: Any = [shape(each) for each in fields]
        case ice.ListType() as listed:
            kind = ["list", shape(listed.element_field)]
        case ice.MapType() as mapped:
            kind = ["map", shape(mapped.value_field)]
        case plain:
            kind = text(plain)
    return field.name, field.required, kind


def moved(row: dict[str, Any], before: Schema, field: ice.NestedField) -> Any:
    """Return what a stored row shows in a column of the table's later schema."""
    name = before.find_column_name(field.field_id)
    return None if name is None else by_ids(row[name], before.find_field(field.field_id).field_type, field.field_type)


def by_ids(value: Any, was: ice.IcebergType, kind: ice.IcebergType) -> Any:
    if value is None:
        return None
    match was, kind:
        case ice.StructType(fields=old), ice.StructType(fields=new):
            known = {field.field_id: field for field in old}
            return {
                field.name: by_ids(
                    value[known[field.field_id].name], known[field.field_id].field_type, field.field_type
                )
                if field.field_id in known
                else None
                for field in new
            }
        case ice.ListType(), ice.ListType():
            return [by_ids(each, was.element_type, kind.element_type) for each in value]
        case ice.MapType(), ice.MapType():
            return [(key, by_ids(each, was.value_type, kind.value_type)) for key, each in value]
        case _:
            return value
