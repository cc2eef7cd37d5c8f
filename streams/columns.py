"""From an event as its writer shaped it to a table's columns: by name, with defaults, promotions and masks. Pure."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import types as ice

from headrace.schemas.avro import (
    Array,
    AvroType,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    optional_of,
)
from headrace.schemas.defaults import branch_of_default
from headrace.schemas.masking import map_items, map_values, nulls, without_nulls
from headrace.schemas.paths import below
from headrace.schemas.shapes import duration, shape, time_text
from headrace.schemas.types import arrow_type
from headrace.streams.naming import SAME_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.schemas.masking import Masker
    from headrace.streams.naming import Names

_EPOCH_DATE = dt.date(1970, 1, 1)
# As many digits as a table's decimal has at most; Python's own default rounds to 28.
_DIGITS = decimal.Context(prec=38)


@dataclass(frozen=True, slots=True)
class Columns:
    """Shapes decoded events into a table's columns.

    Attributes:
        fields: the table's columns, without the metadata columns.
        reader: the newest schema that the table has followed: its defaults fill what an older event lacks.
        masker: puts the masks on, by field path.
    """

    fields: Sequence[ice.NestedField]
    reader: Record
    masker: Masker

    def of(self, events: pa.StructArray, names: Names = SAME_NAMES) -> list[pa.Array]:
        """Return one array a column, in the table's order, masked, of the type that the table's Arrow schema names.

        Args:
            events: the events as decoded with the schema they were written with.
            names: for the path of a column, the field's own name in the record of the events that its parent is there;
                None: the events lack it, even if they have another field of its name. A path that is not in it has the
                same name in both. See :class:`headrace.schemas.lineage.Lineage`.

        Raises:
            pa.ArrowInvalid: if a value does not fit its column; never where the table has followed the event's schema.
        """
        shaping = _Shaping(self.masker, names)
        return [shaping.column(events, field, self.reader, "") for field in self.fields]


@dataclass(frozen=True, slots=True)
class _Shaping:
    masker: Masker
    names: Names

    def column(self, parent: pa.StructArray, field: ice.NestedField, reader: Record | None, path: str) -> pa.Array:
        here = below(path, field.name)
        # The table has the names of the newest version that it has followed, which is the reader.
        known = reader.field(field.name) if reader is not None else None
        name = self.names.get(here, field.name)
        index = -1 if name is None else parent.type.get_field_index(name)
        if index >= 0:
            child = _child(parent, index, required=field.required)
            array = self.shaped(child, field.field_type, known.type if known else None, here)
        else:
            filled = _filled(len(parent), field.field_type, known)
            # A default's own fields are named as the reader names them, and may be masked as well.
            plainly = _Shaping(self.masker, SAME_NAMES)
            array = plainly.shaped(filled, field.field_type, known.type if known else None, here)
        masked = self.masker.masked(here, array)
        return _required(masked, parent) if field.required and masked.null_count else masked

    def shaped(self, array: pa.Array, kind: ice.IcebergType, reader: AvroType | None, path: str) -> pa.Array:
        inner = shape(reader)[0] if reader is not None else None
        match kind:
            case ice.StructType(fields=fields):
                record = inner if isinstance(inner, Record) else None
                children = [self.column(array, field, record, path) for field in fields]
                mask = array.is_null() if array.null_count else None
                return pa.StructArray.from_arrays(children, fields=list(arrow_type(kind)), mask=mask)
            case ice.ListType():
                items = inner.items if isinstance(inner, Array) else None
                return map_items(array, self._nested(kind.element_type, items, f"{path}[]"), arrow_type(kind))
            case ice.MapType():
                values = inner.values if isinstance(inner, Map) else None
                return map_values(array, self._nested(kind.value_type, values, f"{path}{{}}"), arrow_type(kind))
            case _:
                return array.cast(arrow_type(kind))

    def _nested(self, kind: ice.IcebergType, reader: AvroType | None, path: str) -> Callable[[pa.Array], pa.Array]:
        return lambda array: self.shaped(array, kind, reader, path)


def _child(parent: pa.StructArray, index: int, *, required: bool) -> pa.Array:
    # Only flatten() carries the parent's nulls down. A required child must have none of its own: Parquet's writer
    # refuses the column, although the parent's null already says all.
    return parent.field(index) if required or not parent.null_count else parent.flatten()[index]


def _required(array: pa.Array, parent: pa.StructArray) -> pa.Array:
    """Take the nulls out of a required child, if each stands under a null of its parent; any other is a fault."""
    stray = pc.and_(array.is_null(), parent.is_valid())
    return array if pc.any(stray).as_py() else without_nulls(array)


def _filled(length: int, kind: ice.IcebergType, reader: Field | None) -> pa.Array:
    target = arrow_type(kind)
    if reader is None or not reader.has_default or reader.default is None:
        return nulls(length, target)
    value = default_value(reader.default, reader.type)
    return pa.repeat(pa.scalar(value, target), length)


def default_value(default: Any, avro_type: AvroType) -> Any:
    """Return the Python value of a schema's JSON default, as Arrow takes it.

    Source: Avro 1.12 specification, "field default values": bytes and fixed are strings of code points 0 to 255,
    logical types are given as their underlying type; a union's default is of the first of its branches that it fits.
    """
    match avro_type:
        case Union():
            return _union_default(default, avro_type)
        case Record(fields=fields):
            return {field.name: default_value(default.get(field.name, field.default), field.type) for field in fields}
        case Array(items=items):
            return [default_value(item, items) for item in default]
        case Map(values=values):
            return [(key, default_value(value, values)) for key, value in default.items()]
        case Primitive(logical=str(logical)):
            return _logical_default(default, avro_type, logical)
        case Fixed():
            return _fixed_default(default.encode("latin-1"), avro_type)
        case Primitive(name="bytes"):
            return default.encode("latin-1")
        case _:
            return default


def _union_default(default: Any, union: Union) -> Any:
    if default is None:
        return None
    inner, optional = optional_of(union)
    if optional:
        return default_value(default, inner)
    place = branch_of_default(default, union)
    return {branch_record(union).fields[place].name: default_value(default, union.others[place])}


def _fixed_default(raw: bytes, avro_type: Fixed) -> Any:
    if avro_type.logical == "decimal":
        return _decimal(raw, avro_type.scale)
    return duration(raw) if avro_type.logical == "duration" else raw


def _logical_default(default: Any, avro_type: Primitive, logical: str) -> Any:
    if logical == "decimal":
        return _decimal(default.encode("latin-1"), avro_type.scale)
    if logical == "uuid":
        return uuid.UUID(default).bytes
    if logical == "date":
        return _EPOCH_DATE + dt.timedelta(days=default)
    micros = default * 1_000 if logical.endswith("millis") else default
    if logical.startswith("time-"):
        return time_text(micros)
    return micros


def _decimal(raw: bytes, scale: int) -> decimal.Decimal:
    return decimal.Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, _DIGITS)
