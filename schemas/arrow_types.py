"""Iceberg's types as Arrow has them: what headrace writes into a table's files. Pure."""

from __future__ import annotations

import pyarrow as pa
from pyiceberg import types as ice

_ARROW: dict[type[ice.IcebergType], pa.DataType] = {
    ice.BooleanType: pa.bool_(),
    ice.IntegerType: pa.int32(),
    ice.LongType: pa.int64(),
    ice.FloatType: pa.float32(),
    ice.DoubleType: pa.float64(),
    ice.StringType: pa.string(),
    ice.BinaryType: pa.binary(),
    ice.DateType: pa.date32(),
    ice.TimeType: pa.time64("us"),
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
