"""From what DataFusion makes of unions, times and durations to what a column sees of them. Column-wise and pure.

DataFusion decodes a union of several branches as Arrow's dense union, which neither Parquet nor pyarrow's own kernels
take. Each becomes a struct (`headrace.schemas.shapes`) right behind the decoder, so that nobody else meets one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.schemas.avro import (
    Array,
    AvroType,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    is_null,
    optional_of,
)
from headrace.schemas.masking import map_items, map_values
from headrace.schemas.shapes import DURATION

Reshape: TypeAlias = Callable[[pa.Array], pa.Array]

# Logical types that DataFusion is not told of: it reads them as the numbers or bytes that they are.
AS_WRITTEN = frozenset({"time-millis", "time-micros", "timestamp-nanos", "local-timestamp-nanos", "duration"})
_DURATION_FIELDS = [pa.field(field.name, pa.int64(), nullable=False) for field in DURATION.fields]


def reshaper(avro_type: AvroType) -> Reshape | None:
    """Return what makes columns of decoded values; None where the decoder's own arrays will do.

    Unions and durations become structs, times of day Arrow's ``time64`` of microseconds (`storable` looks whether they
    are within a day). Nulls stay nulls.
    """
    inner, _ = optional_of(avro_type)
    match inner:
        case Record(fields=fields):
            inside = [reshaper(field.type) for field in fields]
            return partial(_record, inside) if any(inside) else None
        case Array(items=items):
            item = reshaper(items)
            return partial(map_items, change=item) if item else None
        case Map(values=values):
            value = reshaper(values)
            return partial(map_values, change=value) if value else None
        case Union():
            return _union(inner)
        case Fixed(logical="duration"):
            return _duration
        case Primitive(logical="time-millis" | "time-micros" as logical):
            return partial(_time, unit_us=1_000 if logical == "time-millis" else 1)
        case _:
            return None


def has_unions(avro_type: AvroType) -> bool:
    """Tell whether there is, at any depth, a union that is more than an optional type."""
    inner, _ = optional_of(avro_type)
    match inner:
        case Record(fields=fields):
            return any(has_unions(field.type) for field in fields)
        case Array(items=below) | Map(values=below):
            return has_unions(below)
        case _:
            return isinstance(inner, Union)


def _record(inside: list[Reshape | None], array: pa.StructArray) -> pa.StructArray:
    children, fields = [], []
    for place, change in enumerate(inside):
        child, field = array.field(place), array.type.field(place)
        children.append(change(child) if change else child)
        # A union that may be null was none to Arrow: a dense union has no nulls of its own.
        fields.append(pa.field(field.name, children[-1].type) if change else field)
    return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null() if array.null_count else None)


def _union(union: Union) -> Reshape:
    places = [place for place, branch in enumerate(union.branches) if not is_null(branch)]
    branches = [
        (place, field.name, reshaper(field.type))
        for place, field in zip(places, branch_record(union).fields, strict=True)
    ]

    def change(array: pa.UnionArray) -> pa.StructArray:
        codes = np.asarray(array.type_codes)
        offsets = np.asarray(array.offsets)
        children, fields = [], []
        for place, name, reshape in branches:
            values = array.field(place)
            values = reshape(values) if reshape else values
            children.append(values.take(pa.array(offsets, mask=codes != place)))
            fields.append(pa.field(name, children[-1].type))
        none = ~np.isin(codes, places)
        return pa.StructArray.from_arrays(children, fields=fields, mask=pa.array(none) if none.any() else None)

    return change


def _time(array: pa.Array, unit_us: int) -> pa.Array:
    # An int of milliseconds times a thousand is a long; a long that is no time at all stays as it is.
    micros = array.cast(pa.int64())
    return (pc.multiply(micros, unit_us) if unit_us > 1 else micros).view(pa.time64("us"))


def _duration(array: pa.FixedSizeBinaryArray) -> pa.StructArray:
    rows, width = len(array), len(DURATION.fields)
    data = array.buffers()[1]
    numbers = np.frombuffer(data, "<u4") if rows else np.empty(0, "<u4")
    own = numbers[array.offset * width : (array.offset + rows) * width].reshape(rows, width).astype(np.int64)
    children = [pa.array(own[:, place]) for place in range(width)]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(children, fields=_DURATION_FIELDS, mask=mask)


def reader_schema(spelt: Mapping[str, Any], inferred: pa.Schema) -> pa.Schema:
    """Return the schema that DataFusion reads a record with unions with.

    What it infers lacks the metadata that its reader puts on the fields inside of unions, and it then refuses to make
    the one of the other. So they are put there: the name of a named type, an enum's symbols, a decimal's digits, a
    UUID's logical type.

    Args:
        spelt: the record's schema as DataFusion is given it: all named types are defined where they stand.
        inferred: what it infers from that.
    """
    fields = zip(spelt["fields"], inferred, strict=True)
    return pa.schema([_marked(member["type"], field) for member, field in fields])


def _marked(spelt: Any, field: pa.Field) -> pa.Field:
    if isinstance(spelt, list) and len(spelt) == 2 and "null" in spelt:
        return _marked(next(branch for branch in spelt if branch != "null"), field)
    if isinstance(spelt, str):
        return field
    kind = field.type
    if isinstance(spelt, list):
        children = [_marked(branch, kind.field(place)) for place, branch in enumerate(spelt)]
        return field.with_type(pa.dense_union(children, kind.type_codes))
    match spelt["type"]:
        case "record":
            members = zip(spelt["fields"], kind, strict=True)
            kind = pa.struct([_marked(member["type"], child) for member, child in members])
        case "array":
            kind = pa.list_(_marked(spelt["items"], kind.value_field))
        case "map":
            kind = pa.map_(kind.key_field, _marked(spelt["values"], kind.item_field))
        case _:
            pass
    return field.with_type(kind).with_metadata(_metadata(spelt) or None)


def _metadata(spelt: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if "name" in spelt:
        found["avro.name"] = spelt["name"]
    if "symbols" in spelt:
        found["avro.enum.symbols"] = json.dumps(spelt["symbols"], separators=(",", ":"))
    if spelt.get("logicalType") == "decimal":
        found |= {key: str(spelt[key]) for key in ("precision", "scale")}
    if spelt.get("logicalType") == "uuid":
        found["logicalType"] = "uuid"
    return found
