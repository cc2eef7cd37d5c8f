"""One table of types: Avro to Iceberg to Arrow. What has no place in it is refused when the files are checked.

=========================  ================  =========================================================
Avro                       Iceberg           note
=========================  ================  =========================================================
boolean                    boolean
int, long                  int, long
float, double              float, double
bytes, string              binary, string
decimal (bytes, fixed)     decimal(P,S)      P at most 38, Iceberg's limit
uuid (string, fixed 16)    uuid
date                       date
timestamp-millis, -micros  timestamptz       microseconds since 1970 UTC
local-timestamp-*          timestamp         without zone
enum                       string
fixed(N)                   fixed(N)
array, map, record         list, map, struct
["null", X], [X, "null"]   X, optional
=========================  ================  =========================================================

Of dates and timestamps a table holds the years 1 to 9999, of a map one value a key: `headrace.streams.storable`.

Refused: times of day (Spark cannot read a table that has Iceberg's ``time``), nanosecond timestamps (Iceberg format v2
has none), ``duration``, unions of several branches, ``null`` alone, records without fields, ``fixed`` of no bytes or,
as a decimal, of more than 32, names that differ in case only, defaults that are no value of their field's type.
Sources: Avro 1.12 "Logical Types", Iceberg table specification "Primitive Types".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union, optional_of
from headrace.schemas.defaults import fits_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.schemas.avro import AvroSchema

# Iceberg specification: decimals have a precision of at most 38.
MAX_DECIMAL_PRECISION = 38
# 16 bytes hold 38 digits; the decoder's library reads up to 32.
MAX_DECIMAL_BYTES = 32
# Reserved by the Iceberg specification or by an engine: Spark refuses a table that has a column of such a name.
RESERVED_COLUMNS = frozenset({"_file", "_pos", "_deleted", "_spec_id", "_partition", "_row_id"})
METADATA_COLUMNS: tuple[tuple[str, ice.IcebergType, bool, str], ...] = (
    ("_kafka_partition", ice.IntegerType(), True, "partition of the event's topic"),
    (
        "_kafka_offset",
        ice.LongType(),
        True,
        "offset in that partition; with partition and generation, the row's identity",
    ),
    ("_kafka_timestamp", ice.TimestamptzType(), False, "the broker's or producer's timestamp of the event"),
    ("_kafka_key", ice.BinaryType(), False, "the message's key; null where the key holds a masked field"),
    ("_schema_id", ice.IntegerType(), True, "the registry's id of the schema that the event was written with"),
    ("_generation", ice.IntegerType(), True, "counts the topics that this table has followed"),
)
METADATA_NAMES = frozenset(name for name, *_ in METADATA_COLUMNS)

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
}
_REFUSED_LOGICAL = {
    "time-millis": "carry a time of day as a string or as an int of milliseconds: Spark cannot read Iceberg's time",
    "time-micros": "carry a time of day as a string or as a long of microseconds: Spark cannot read Iceberg's time",
    "timestamp-nanos": "use timestamp-micros: tables of Iceberg's format v2 hold microseconds",
    "local-timestamp-nanos": "use local-timestamp-micros: tables of Iceberg's format v2 hold microseconds",
    "duration": "carry a duration as a long of a stated unit, or as a string in ISO 8601",
}


def unsupported(schema: AvroSchema) -> list[tuple[str, str, str]]:
    """Return what of the schema no table can hold: path, what is wrong, what to write instead; empty if all is well."""
    return list(_refusals(schema.record, ""))


def _refusals(avro_type: AvroType, path: str) -> Iterator[tuple[str, str, str]]:
    match avro_type:
        case Record():
            yield from _record_refusals(avro_type, path)
        case Array(items=items):
            yield from _refusals(items, f"{path}[]")
        case Map(values=values):
            yield from _refusals(values, f"{path}{{}}")
        case Union():
            inner, optional = optional_of(avro_type)
            if optional:
                yield from _refusals(inner, path)
            else:
                yield (
                    path,
                    "a union of several branches has no column type",
                    'use ["null", X], or a record with a field a branch',
                )
        case _:
            yield from _leaf_refusals(avro_type, path)


def _leaf_refusals(leaf: Primitive | Fixed | Enum, path: str) -> Iterator[tuple[str, str, str]]:
    match leaf:
        case Primitive(name="null"):
            yield path, "null alone has no column type", 'use ["null", X]'
        case Primitive(logical=str(logical)) | Fixed(logical=str(logical)) if logical in _REFUSED_LOGICAL:
            yield path, f"{logical} has no column type that all engines read", _REFUSED_LOGICAL[logical]
        case Primitive(logical="decimal", precision=precision) | Fixed(logical="decimal", precision=precision) if not (
            1 <= precision <= MAX_DECIMAL_PRECISION
        ):
            yield path, f"decimal precision {precision}", f"choose a precision from 1 to {MAX_DECIMAL_PRECISION}"
        case Fixed(logical="decimal", size=size) if size > MAX_DECIMAL_BYTES:
            yield path, f"a decimal of {size} bytes", f"{MAX_DECIMAL_BYTES} bytes or fewer hold any precision"
        case Fixed(size=0):
            yield path, "a fixed of no bytes has no column type", "leave it out"
        case _:
            pass


def _record_refusals(record: Record, path: str) -> Iterator[tuple[str, str, str]]:
    if not record.fields:
        yield path, "a record without fields has no column type", "give it a field, or leave it out"
    seen: dict[str, str] = {}
    for field in record.fields:
        below = f"{path}.{field.name}" if path else field.name
        twin = seen.setdefault(field.name.lower(), field.name)
        if twin != field.name:
            yield below, f"differs from {twin} in case only", "SQL engines cannot tell them apart: rename one"
        if not path and field.name in RESERVED_COLUMNS | METADATA_NAMES:
            yield below, "this name is reserved for the table's own columns", "rename the field"
        refusals = list(_refusals(field.type, below))
        yield from refusals
        if field.has_default and not refusals and not fits_default(field.default, field.type):
            yield below, "the default is no value of the field's type", "correct it: older events are filled with it"


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
        below = f"{path}.{field.name}" if path else field.name
        return ice.NestedField(
            field_id=field_id,
            name=field.name,
            field_type=self.type(field.type, below),
            # A default makes a column optional: a v2 table has no defaults, so rows from before the field are null.
            required=not (optional_of(field.type)[1] or field.has_default or below in self.nulled),
            doc=field.doc or None,
        )

    def type(self, avro_type: AvroType, path: str) -> ice.IcebergType:
        """Return the type of what stands at ``path``; an optional union gives the type of its other branch."""
        inner, _ = optional_of(avro_type)
        match inner:
            case Record():
                return self.struct(inner, path)
            case Array(items=items):
                element_id = self.next_id()
                return ice.ListType(
                    element_id=element_id,
                    element_type=self.type(items, f"{path}[]"),
                    element_required=not optional_of(items)[1],
                )
            case Map(values=values):
                key_id, value_id = self.next_id(), self.next_id()
                return ice.MapType(
                    key_id=key_id,
                    key_type=ice.StringType(),
                    value_id=value_id,
                    value_type=self.type(values, f"{path}{{}}"),
                    value_required=not optional_of(values)[1],
                )
            case _:
                return leaf_type(inner)


def leaf_type(avro_type: AvroType) -> ice.IcebergType:
    """Return the Iceberg type of an Avro type that holds no other.

    Raises:
        ValueError: if there is none; :func:`unsupported` names it beforehand.
    """
    match avro_type:
        case Enum():
            return ice.StringType()
        case Primitive(logical="decimal") | Fixed(logical="decimal"):
            return ice.DecimalType(avro_type.precision, avro_type.scale)
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

    A record has no such type and gives ``struct``: only ``replace-with-null`` fits it.
    """
    inner, _ = optional_of(avro_type)
    match inner:
        case Array(items=items):
            return masked_leaf(items)
        case Map(values=values):
            return masked_leaf(values)
        case Record():
            return "struct"
        case _:
            return str(leaf_type(inner))


def metadata_fields(next_id: Callable[[], int]) -> tuple[ice.NestedField, ...]:
    """Return the metadata columns that every table carries after the event's own fields."""
    return tuple(
        ice.NestedField(field_id=next_id(), name=name, field_type=kind, required=required, doc=doc)
        for name, kind, required, doc in METADATA_COLUMNS
    )


_ARROW: dict[type[ice.IcebergType], pa.DataType] = {
    ice.BooleanType: pa.bool_(),
    ice.IntegerType: pa.int32(),
    ice.LongType: pa.int64(),
    ice.FloatType: pa.float32(),
    ice.DoubleType: pa.float64(),
    ice.StringType: pa.string(),
    ice.BinaryType: pa.binary(),
    ice.DateType: pa.date32(),
    ice.TimestampType: pa.timestamp("us"),
    ice.TimestamptzType: pa.timestamp("us", tz="UTC"),
    ice.UUIDType: pa.binary(16),
}


def arrow_type(kind: ice.IcebergType) -> pa.DataType:
    """Return the Arrow type that headrace writes for an Iceberg type, with field ids where Parquet wants them."""
    match kind:
        case ice.StructType(fields=fields):
            return pa.struct([arrow_field(field) for field in fields])
        case ice.ListType():
            return pa.list_(arrow_field(kind.element_field))
        case ice.MapType():
            return pa.map_(arrow_field(kind.key_field), arrow_field(kind.value_field))
        case ice.DecimalType(precision=precision, scale=scale):
            return pa.decimal128(precision, scale)
        case ice.FixedType():
            return pa.binary(len(kind))
        case _:
            return _ARROW[type(kind)]


def arrow_field(field: ice.NestedField) -> pa.Field:
    """Return the Arrow field of an Iceberg field; its id rides in the metadata that Parquet's writer reads."""
    return pa.field(
        field.name,
        arrow_type(field.field_type),
        nullable=not field.required,
        metadata={"PARQUET:field_id": str(field.field_id)},
    )
