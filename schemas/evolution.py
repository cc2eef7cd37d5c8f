"""What a schema's version asks of an existing table. Pure: one function predicts the change, and the sink makes it.

A table follows every version of its subject, so that events of any version have a place in it: columns are added
(always optional: rows from before have no value), widened as Iceberg allows, and made optional. Nothing is ever
removed or narrowed. Source: Iceberg table specification, "Schema Evolution".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Field, Map, Record, optional_of
from headrace.schemas.errors import SchemaError
from headrace.schemas.types import METADATA_NAMES, ColumnTypes, leaf_type

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class AddColumn:
    """Add an optional column. ``path`` names it from the top (``element`` and ``value`` lead into lists and maps)."""

    path: tuple[str, ...]
    type: ice.IcebergType
    doc: str | None


@dataclass(frozen=True, slots=True)
class Widen:
    """Widen a column: int to long, float to double, or a decimal's precision."""

    path: tuple[str, ...]
    type: ice.PrimitiveType


@dataclass(frozen=True, slots=True)
class MakeOptional:
    """Make a required column optional."""

    path: tuple[str, ...]


Change: TypeAlias = AddColumn | Widen | MakeOptional


def changes(columns: tuple[ice.NestedField, ...], record: Record, nulled: frozenset[str]) -> tuple[Change, ...]:
    """Return what must change in a table so that it can hold events of a schema; empty if it can already.

    Args:
        columns: the table's columns.
        record: the schema's record.
        nulled: paths of fields whose mask is null.

    Raises:
        SchemaError: if no change that Iceberg allows makes room for the schema (``path`` names the field).
    """
    events = tuple(column for column in columns if column.name not in METADATA_NAMES)
    return tuple(_Comparison(nulled).struct(events, record, (), ""))


@dataclass(frozen=True, slots=True)
class _Comparison:
    nulled: frozenset[str]

    def struct(
        self, columns: tuple[ice.NestedField, ...], record: Record, at: tuple[str, ...], path: str
    ) -> Iterator[Change]:
        by_name = {column.name: column for column in columns}
        by_case = {column.name.lower(): column.name for column in columns}
        for field in record.fields:
            below = f"{path}.{field.name}" if path else field.name
            column = by_name.pop(field.name, None)
            if column is None:
                twin = by_case.setdefault(field.name.lower(), field.name)
                if twin != field.name:
                    raise SchemaError(
                        f"differs from the table's column {twin} in case only",
                        path=below,
                        hint="SQL engines cannot tell them apart: give the field another name",
                    )
                yield self._addition(field, (*at, field.name), below)
                continue
            optional = optional_of(field.type)[1] or field.has_default or below in self.nulled
            if column.required and optional:
                yield MakeOptional((*at, field.name))
            yield from self._inside(column.field_type, field.type, (*at, field.name), below)
        for missing in by_name.values():
            if missing.required:
                yield MakeOptional((*at, missing.name))

    def _addition(self, field: Field, at: tuple[str, ...], path: str) -> AddColumn:
        ids = count(1)
        kind = ColumnTypes(lambda: next(ids), self.nulled).type(field.type, path)
        return AddColumn(at, kind, field.doc or None)

    def _inside(self, kind: ice.IcebergType, avro_type: AvroType, at: tuple[str, ...], path: str) -> Iterator[Change]:
        inner, _ = optional_of(avro_type)
        match kind, inner:
            case ice.StructType(fields=fields), Record():
                yield from self.struct(fields, inner, at, path)
            case ice.ListType(), Array(items=items):
                if kind.element_required and optional_of(items)[1]:
                    yield MakeOptional((*at, "element"))
                yield from self._inside(kind.element_type, items, (*at, "element"), f"{path}[]")
            case ice.MapType(), Map(values=values):
                if kind.value_required and optional_of(values)[1]:
                    yield MakeOptional((*at, "value"))
                yield from self._inside(kind.value_type, values, (*at, "value"), f"{path}{{}}")
            case ice.PrimitiveType(), Array() | Map() | Record():
                raise _no_room(kind, type(inner).__name__.lower(), path)
            case ice.PrimitiveType(), _:
                yield from _leaf(kind, leaf_type(inner), at, path)
            case _:
                raise _no_room(kind, type(inner).__name__.lower(), path)


def _leaf(column: ice.PrimitiveType, event: ice.IcebergType, at: tuple[str, ...], path: str) -> Iterator[Change]:
    if event == column or _widens(event, column):
        return
    if isinstance(event, ice.PrimitiveType) and _widens(column, event):
        yield Widen(at, event)
        return
    raise _no_room(column, str(event), path)


def _widens(narrow: ice.IcebergType, wide: ice.IcebergType) -> bool:
    """Tell whether Iceberg lets a column of the narrow type become one of the wide type."""
    match narrow, wide:
        case (ice.IntegerType(), ice.LongType()) | (ice.FloatType(), ice.DoubleType()):
            return True
        case ice.DecimalType(precision=p, scale=s), ice.DecimalType(precision=P, scale=S):  # noqa: N806
            return s == S and p <= P
        case _:
            return False


def _no_room(column: ice.IcebergType, event: str, path: str) -> SchemaError:
    return SchemaError(
        f"the table's column is {column}, the schema's field is {event}: no change that Iceberg allows leads there",
        path=path,
        hint="give the field another name, or take the change back",
    )
