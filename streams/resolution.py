"""Can events of one version be read as another? As far as a table that followed both could hold them as one. Pure.

Which field is which says the lineage (`headrace.schemas.lineage`), which number holds which the table's own rule
(`headrace.schemas.evolution.widens`): what is read from the topic is what is read from the table. So some of what
Avro's rules allow is not read: an int as a double, a value without union as a branch of one, two branches as one.
Fields that the reader's version does not have are dropped, defaults fill those that the writer's lacks. Source: Avro
1.12 specification, "Schema Resolution"; Iceberg table specification, "Schema Evolution".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.avro import Array, AvroType, Enum, Map, Primitive, Record
from headrace.schemas.evolution import widens
from headrace.schemas.paths import below
from headrace.schemas.shapes import DURATION, shape
from headrace.schemas.types import leaf_type
from headrace.streams.naming import SAME_NAMES, Names, is_union, written_field

if TYPE_CHECKING:
    from collections.abc import Iterator


def unreadable(writer: Record, reader: Record, names: Names = SAME_NAMES) -> list[tuple[str, str]]:
    """Return what keeps a reader from reading a writer's events: path and what is wrong; empty if nothing does.

    Both must have passed `headrace.schemas.types.unsupported`.

    Args:
        writer: the record that the events were written with.
        reader: the record that they are read as.
        names: where the reader's fields stand in the events.
    """
    return list(_record(writer, reader, "", names))


def has_strange_symbols(writer: AvroType, reader: AvroType, names: Names = SAME_NAMES, path: str = "") -> bool:
    """Tell whether a writer's enums, at any depth, have symbols that the reader's do not have."""
    match shape(writer)[0], shape(reader)[0]:
        case Enum(symbols=written), Enum(symbols=symbols):
            return not set(written) <= set(symbols)
        case Record() as known, Record(fields=fields):
            return any(
                has_strange_symbols(found.type, field.type, names, below(path, field.name))
                for field in fields
                if (found := written_field(known, field, below(path, field.name), names))
            )
        case Array(items=written), Array(items=items):
            return has_strange_symbols(written, items, names, f"{path}[]")
        case Map(values=written), Map(values=values):
            return has_strange_symbols(written, values, names, f"{path}{{}}")
        case _:
            return False


def _record(writer: Record, reader: Record, path: str, names: Names) -> Iterator[tuple[str, str]]:
    for field in reader.fields:
        here = below(path, field.name)
        written = written_field(writer, field, here, names)
        if written is not None:
            yield from _type(written.type, field.type, here, names)
        elif not field.has_default:
            yield here, "it is not in them, and has no default"


def _type(writer: AvroType, reader: AvroType, path: str, names: Names) -> Iterator[tuple[str, str]]:
    inner, may_be_null = shape(writer)
    wanted, takes_null = shape(reader)
    if may_be_null and not takes_null:
        yield path, "it may be null in them"
    match inner, wanted:
        case Record(), Record() if is_union(writer) == is_union(reader):
            yield from (
                _branches(inner, wanted, path, names) if is_union(writer) else _record(inner, wanted, path, names)
            )
        case Array(items=written), Array(items=items):
            yield from _type(written, items, f"{path}[]", names)
        case Map(values=written), Map(values=values):
            yield from _type(written, values, f"{path}{{}}", names)
        case _ if not _holds(inner, wanted):
            yield path, f"it is {_named(writer)} in them, {_named(reader)} here"


def _branches(writer: Record, reader: Record, path: str, names: Names) -> Iterator[tuple[str, str]]:
    """Compare unions as records by branch: a branch that only the writer has would be read as no value at all."""
    read = set()
    for field in reader.fields:
        written = written_field(writer, field, below(path, field.name), names)
        if written is not None:
            read.add(written.name)
            yield from _type(written.type, field.type, below(path, field.name), names)
    for branch in writer.fields:
        if branch.name not in read:
            yield below(path, branch.name), "it may be of this branch in them, which is not here"


def _holds(narrow: AvroType, wide: AvroType) -> bool:
    """Tell whether every value of the one type is one of the other."""
    if isinstance(narrow, Record | Array | Map) or isinstance(wide, Record | Array | Map):
        return False
    # A table has enums and times of day as texts, so a text reads them; of texts only some are symbols or times.
    if _text(wide) and _text(narrow) != _text(wide):
        return False
    held, wanted = leaf_type(narrow), leaf_type(wide)
    return held == wanted or widens(held, wanted)


def _text(leaf: AvroType) -> str:
    """Return what a column's texts are, if not any texts."""
    match leaf:
        case Enum():
            return "enum"
        case Primitive(logical=str(logical)) if logical.startswith("time-"):
            return "time"
        case _:
            return ""


def _named(avro_type: AvroType) -> str:
    if is_union(avro_type):
        return "union"
    match shape(avro_type)[0]:
        case Record() as inner if inner is DURATION:
            return "duration"
        case Record() | Array() | Map() | Enum() as inner:
            return type(inner).__name__.lower()
        case inner:
            return _text(inner) or str(leaf_type(inner))
