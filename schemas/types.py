"""One table of types: Avro to Iceberg to Arrow. What has no place in it is refused when the files are checked.

==========================  ====================  =================================================================
Avro                        Iceberg               note
==========================  ====================  =================================================================
boolean                     boolean
int, long                   int, long
float, double               float, double         NaN and infinities too
bytes, string               binary, string
decimal (bytes, fixed)      decimal(P,S)          P at most 38, Iceberg's limit
uuid (string, fixed 16)     uuid
date                        date
time-millis, -micros        string                ``HH:MM:SS.ffffff``, always 15 characters: sorts, and casts to TIME
timestamp-millis, -micros   timestamptz           microseconds since 1970 UTC
local-timestamp-m…          timestamp             microseconds, without zone
timestamp-nanos             long                  nanoseconds since 1970 UTC: no digit is lost
local-timestamp-nanos       long                  nanoseconds since 1970, without zone
duration                    struct                months, days, millis: a long each
enum                        string
fixed(N)                    fixed(N)
array, map, record          list, map, struct
["null", X], [X, "null"]    X, optional
any other union             struct                an optional field a branch (`branch_record`), exactly one of them set
==========================  ====================  =================================================================

A union's struct is optional if null is a branch. A time of day is a string because Spark refuses a table that has
Iceberg's ``time``, nanoseconds are a long (the years 1677 to 2262) because a table of Iceberg's format v2 holds
microseconds. A logical type on a type that may not carry it is ignored, as the specification demands. Of dates and
timestamps a table holds the years 1 to 9999, of times of day what is below 24 hours, of a map one value a key:
`headrace.streams.storable`.

Refused: ``null`` alone, records without fields, ``fixed`` of no bytes or, as a decimal, of more than 32, decimals of
more than 38 digits, names (of a union's branches too) that are equal or differ in case only, names of the table's own
columns, defaults that are no value of their field's type; recursive types already by `headrace.schemas.avro`.
Sources: Avro 1.12 "Logical Types", Iceberg table specification "Primitive Types".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pyiceberg import types as ice

from headrace.schemas.arrow_types import arrow_field, arrow_type
from headrace.schemas.avro import (
    Array,
    AvroType,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    optional_of,
)
from headrace.schemas.defaults import fits_default
from headrace.schemas.own_columns import METADATA_COLUMNS, METADATA_NAMES, RESERVED_COLUMNS, metadata_fields
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.schemas.avro import AvroSchema

__all__ = [
    "MAX_DECIMAL_BYTES",
    "MAX_DECIMAL_PRECISION",
    "METADATA_COLUMNS",
    "METADATA_NAMES",
    "RESERVED_COLUMNS",
    "ColumnTypes",
    "Unsupported",
    "arrow_field",
    "arrow_type",
    "column_doc",
    "leaf_type",
    "masked_leaf",
    "metadata_fields",
    "record_refusals",
    "refusals",
    "unsupported",
]

# Iceberg specification: decimals have a precision of at most 38.
MAX_DECIMAL_PRECISION = 38
# 16 bytes hold 38 digits; the decoder's library reads up to 32.
MAX_DECIMAL_BYTES = 32
_PRIMITIVES: dict[str, ice.IcebergType] = {
    "boolean": ice.BooleanType(),
    "int": ice.IntegerType(),
    "long": ice.LongType(),
    "float": ice.FloatType(),
    "double": ice.DoubleType(),
    "bytes": ice.BinaryType(),
    "string": ice.StringType(),
}
_LOGICAL: dict[str, ice.IcebergType] = {
    "uuid": ice.UUIDType(),
    "date": ice.DateType(),
    "timestamp-millis": ice.TimestamptzType(),
    "timestamp-micros": ice.TimestamptzType(),
    "local-timestamp-millis": ice.TimestampType(),
    "local-timestamp-micros": ice.TimestampType(),
    "time-millis": ice.StringType(),
    "time-micros": ice.StringType(),
    "timestamp-nanos": ice.LongType(),
    "local-timestamp-nanos": ice.LongType(),
}
# What a long of nanoseconds means cannot be seen in its type.
_NANOS = {
    "timestamp-nanos": "nanoseconds since 1970-01-01 UTC",
    "local-timestamp-nanos": "nanoseconds since 1970-01-01, local time without a zone",
}


class Unsupported(NamedTuple):
    """What of a schema no table can hold.

    Attributes:
        rule: a stable code: ``UNSUPPORTED_TYPE``, ``EMPTY_STRUCT``, ``FIELD_NAME_CASE_COLLISION``, ``RESERVED_NAME`` or
            ``INVALID_DEFAULT``.
        path: where it stands.
        what: what is wrong.
        hint: what to write instead.
    """

    rule: str
    path: str
    what: str
    hint: str


def refusals(schema: AvroSchema) -> list[Unsupported]:
    """Return what of the schema no table can hold; empty if all is well."""
    return record_refusals(schema.record)


def record_refusals(record: Record) -> list[Unsupported]:
    """Return what of an event's record no table can hold; empty if all is well."""
    return list(_refusals(record, ""))


def unsupported(schema: AvroSchema) -> list[tuple[str, str, str]]:
    """Return what of the schema no table can hold: path, what is wrong, what to write instead; empty if all is well."""
    return [(found.path, found.what, found.hint) for found in refusals(schema)]


def _refusals(avro_type: AvroType, path: str) -> Iterator[Unsupported]:
    match avro_type:
        case Record():
            yield from _record_refusals(avro_type, path)
        case Array(items=items):
            yield from _refusals(items, f"{path}[]")
        case Map(values=values):
            yield from _refusals(values, f"{path}{{}}")
        case Union():
            inner, optional = optional_of(avro_type)
            yield from _refusals(inner, path) if optional else _union_refusals(avro_type, path)
        case _:
            yield from _leaf_refusals(avro_type, path)


def _leaf_refusals(leaf: Primitive | Fixed | Enum, path: str) -> Iterator[Unsupported]:
    rule = "UNSUPPORTED_TYPE"
    match leaf:
        case Primitive(name="null"):
            yield Unsupported(rule, path, "null alone has no column type", 'use ["null", X]')
        case Primitive(logical="decimal", precision=precision) | Fixed(logical="decimal", precision=precision) if not (
            1 <= precision <= MAX_DECIMAL_PRECISION
        ):
            fitting = f"choose a precision from 1 to {MAX_DECIMAL_PRECISION}"
            yield Unsupported(rule, path, f"decimal precision {precision}", fitting)
        case Fixed(logical="decimal", size=size) if size > MAX_DECIMAL_BYTES:
            yield Unsupported(rule, path, f"a decimal of {size} bytes", f"{MAX_DECIMAL_BYTES} bytes hold any precision")
        case Fixed(size=0):
            yield Unsupported(rule, path, "a fixed of no bytes has no column type", "leave it out")
        case _:
            pass


def _union_refusals(union: Union, path: str) -> Iterator[Unsupported]:
    if not union.others:
        yield from _leaf_refusals(Primitive("null"), path)
    seen: dict[str, str] = {}
    for branch in branch_record(union).fields:
        here = f"{path}.{branch.name}"
        twin = seen.get(branch.name.lower())
        if twin is not None:
            what = f"two branches of the union would be the columns {twin} and {branch.name}"
            yield Unsupported("FIELD_NAME_CASE_COLLISION", here, what, "rename one of the types, or make them one")
        seen[branch.name.lower()] = branch.name
        yield from _refusals(branch.type, here)


def _record_refusals(record: Record, path: str) -> Iterator[Unsupported]:
    if not record.fields:
        yield Unsupported(
            "EMPTY_STRUCT", path, "a record without fields has no column type", "give it a field, or leave it out"
        )
    seen: dict[str, str] = {}
    for field in record.fields:
        here = below(path, field.name)
        twin = seen.setdefault(field.name.lower(), field.name)
        if twin != field.name:
            hint = "SQL engines cannot tell them apart: rename one"
            yield Unsupported("FIELD_NAME_CASE_COLLISION", here, f"differs from {twin} in case only", hint)
        if not path and field.name.lower() in RESERVED_COLUMNS | METADATA_NAMES:
            what = "this name is reserved for the table's own columns"
            yield Unsupported("RESERVED_NAME", here, what, "rename the field")
        found = list(_refusals(field.type, here))
        yield from found
        if field.has_default and not found and not fits_default(field.default, field.type):
            what = "the default is no value of the field's type"
            yield Unsupported("INVALID_DEFAULT", here, what, "correct it: older events are filled with it")


@dataclass(frozen=True, slots=True)
class ColumnTypes:
    """Makes the Iceberg types of a schema's fields.

    Attributes:
        next_id: gives fresh field ids.
        nulled: paths of fields whose mask is null: their columns are optional whatever the schema says.
    """

    next_id: Callable[[], int]
    nulled: frozenset[str] = frozenset()

    def struct(self, record: Record, path: str = "") -> ice.StructType:
        """Return a record's struct; ``path`` is where the record stands. It must have passed :func:`unsupported`."""
        ids = [self.next_id() for _ in record.fields]
        return ice.StructType(*(self.field(f, i, path) for f, i in zip(record.fields, ids, strict=True)))

    def field(self, field: Field, field_id: int, path: str) -> ice.NestedField:
        """Return the column of one field of the record at ``path``."""
        here = below(path, field.name)
        return ice.NestedField(
            field_id=field_id,
            name=field.name,
            field_type=self.type(field.type, here),
            # A default makes a column optional: a v2 table has no defaults, so rows from before the field are null.
            required=not (shape(field.type)[1] or field.has_default or here in self.nulled),
            doc=column_doc(field),
        )

    def type(self, avro_type: AvroType, path: str) -> ice.IcebergType:
        """Return the type of what stands at ``path``, as its column has it (`headrace.schemas.shapes`)."""
        inner, _ = shape(avro_type)
        match inner:
            case Record():
                return self.struct(inner, path)
            case Array(items=items):
                element_id = self.next_id()
                return ice.ListType(
                    element_id=element_id,
                    element_type=self.type(items, f"{path}[]"),
                    element_required=not shape(items)[1],
                )
            case Map(values=values):
                key_id, value_id = self.next_id(), self.next_id()
                return ice.MapType(
                    key_id=key_id,
                    key_type=ice.StringType(),
                    value_id=value_id,
                    value_type=self.type(values, f"{path}{{}}"),
                    value_required=not shape(values)[1],
                )
            case _:
                return leaf_type(inner)


def column_doc(field: Field) -> str | None:
    """Return a column's doc string: the field's own, else what its type does not say."""
    inner, _ = optional_of(field.type)
    return field.doc or (_NANOS.get(inner.logical or "") if isinstance(inner, Primitive) else None)


def leaf_type(avro_type: AvroType) -> ice.IcebergType:
    """Return the Iceberg type of an Avro type that holds no other, neither in Avro nor as a column (`shape`).

    Raises:
        ValueError: if there is none; :func:`unsupported` names it beforehand.
    """
    match avro_type:
        case Enum():
            return ice.StringType()
        case Primitive(logical="decimal", precision=digits) | Fixed(logical="decimal", precision=digits) if (
            1 <= digits <= MAX_DECIMAL_PRECISION
        ):
            return ice.DecimalType(digits, avro_type.scale)
        case Primitive(logical=str(logical)) | Fixed(logical=str(logical)) if logical in _LOGICAL:
            return _LOGICAL[logical]
        case Fixed(size=size, logical=None):
            return ice.FixedType(size)
        case Primitive(name=name, logical=None) if name in _PRIMITIVES:
            return _PRIMITIVES[name]
        case _:
            raise ValueError(f"no column type for {avro_type}")


def masked_leaf(avro_type: AvroType) -> str:
    """Return the name of the column type that a field's mask meets, behind optional, array and map.

    A record, a union of several branches and a duration are structs and give ``struct``: only
    ``replace-with-null`` fits them.
    """
    inner, _ = shape(avro_type)
    match inner:
        case Array(items=items):
            return masked_leaf(items)
        case Map(values=values):
            return masked_leaf(values)
        case Record():
            return "struct"
        case _:
            return str(leaf_type(inner))
