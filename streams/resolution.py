"""Can events of one version be read as another? Avro's schema resolution by name, as far as a table has it too. Pure.

Fields that the reader's version does not have are dropped, defaults fill those that the writer's lacks, and numbers
widen as Iceberg lets a column widen. Source: Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Enum, Map, Record, optional_of
from headrace.schemas.types import leaf_type

if TYPE_CHECKING:
    from collections.abc import Iterator


def unreadable(writer: Record, reader: Record) -> list[tuple[str, str]]:
    """Return what keeps a reader from reading a writer's events: path and what is wrong; empty if nothing does.

    Both must have passed `headrace.schemas.types.unsupported`.
    """
    return list(_record(writer, reader, ""))


def has_strange_symbols(writer: AvroType, reader: AvroType) -> bool:
    """Tell whether a writer's enums, at any depth, have symbols that the reader's do not have."""
    match optional_of(writer)[0], optional_of(reader)[0]:
        case Enum(symbols=written), Enum(symbols=symbols):
            return not set(written) <= set(symbols)
        case Record(fields=fields), Record() as known:
            return any(
                has_strange_symbols(each.type, field.type) for each in fields if (field := known.field(each.name))
            )
        case Array(items=written), Array(items=items):
            return has_strange_symbols(written, items)
        case Map(values=written), Map(values=values):
            return has_strange_symbols(written, values)
        case _:
            return False


def _record(writer: Record, reader: Record, path: str) -> Iterator[tuple[str, str]]:
    for field in reader.fields:
        below = f"{path}.{field.name}" if path else field.name
        written = writer.field(field.name)
        if written is not None:
            yield from _type(written.type, field.type, below)
        elif not field.has_default:
            yield below, "it is not in them, and has no default"


def _type(writer: AvroType, reader: AvroType, path: str) -> Iterator[tuple[str, str]]:
    inner, may_be_null = optional_of(writer)
    wanted, takes_null = optional_of(reader)
    if may_be_null and not takes_null:
        yield path, "it may be null in them"
    match inner, wanted:
        case Record(), Record():
            yield from _record(inner, wanted, path)
        case Array(items=written), Array(items=items):
            yield from _type(written, items, f"{path}[]")
        case Map(values=written), Map(values=values):
            yield from _type(written, values, f"{path}{{}}")
        case (Record() | Array() | Map(), _) | (_, Record() | Array() | Map()):
            yield path, f"it is {_named(inner)} in them, {_named(wanted)} here"
        case _:
            # A table has an enum as texts, so a text reads it; of texts only some are symbols.
            texts = isinstance(wanted, Enum) and not isinstance(inner, Enum)
            if texts or not _widens(leaf_type(inner), leaf_type(wanted)):
                yield path, f"it is {_named(inner)} in them, {_named(wanted)} here"


def _widens(narrow: ice.IcebergType, wide: ice.IcebergType) -> bool:
    """Tell whether every value of the one type is one of the other."""
    match narrow, wide:
        case (ice.IntegerType(), ice.LongType()) | (ice.FloatType(), ice.DoubleType()):
            return True
        case ice.DecimalType(precision=digits, scale=scale), ice.DecimalType():
            return scale == wide.scale and digits <= wide.precision
        case _:
            return narrow == wide


def _named(avro_type: AvroType) -> str:
    match avro_type:
        case Record() | Array() | Map() | Enum():
            return type(avro_type).__name__.lower()
        case _:
            return str(leaf_type(avro_type))
