"""What may happen to a table's columns, as values, and what may not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pyiceberg import types as ice

from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class AddColumn:
    """Add an optional column.

    Attributes:
        path: the field's path in the schema (``items[].qty``).
        at: its place in the table as it was: ``element`` and ``value`` lead into lists and maps.
        type: its type; field ids inside are of no meaning.
        doc: what it is about.
        after: the sibling that it stands behind, by its name in the table as it was; None: it stands first.
    """

    path: str
    at: tuple[str, ...]
    type: ice.IcebergType
    doc: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Widen:
    """Widen a column: int to long, float to double, or a decimal's precision."""

    path: str
    at: tuple[str, ...]
    old: ice.PrimitiveType
    type: ice.PrimitiveType


@dataclass(frozen=True, slots=True)
class MakeOptional:
    """Make a required column optional."""

    path: str
    at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a column another name; it keeps its field id, so that rows from before show under the new one."""

    path: str
    at: tuple[str, ...]
    old: str
    name: str


@dataclass(frozen=True, slots=True)
class Reorder:
    """Put the columns of a record into another order: ``order`` names all of them as the table did before."""

    path: str
    at: tuple[str, ...]
    order: tuple[str, ...]


Change: TypeAlias = AddColumn | Widen | MakeOptional | Rename | Reorder


@dataclass(frozen=True, slots=True)
class RefusedChange:
    """What a version asks for and no table can do.

    Attributes:
        rule: a stable code, such as ``UNSUPPORTED_TYPE_CHANGE``.
        path: the field's path in the schema.
        old: what the table has, in short.
        new: what the schema has, in short.
        what: what is wrong, for people.
        hint: what to do instead.
    """

    rule: str
    path: str
    old: str
    new: str
    what: str
    hint: str


def described(change: Change) -> tuple[str, ...]:
    """Return a change in the words of people: ``("widen", "n", "int", "long")``."""
    match change:
        case AddColumn(path=path, type=kind):
            return "add", path, shown(kind), "optional"
        case Widen(path=path, old=old, type=kind):
            return "widen", path, shown(old), shown(kind)
        case MakeOptional(path=path):
            return "make_optional", path
        case Rename(path=path, old=old):
            return "rename", old, path
        case Reorder(path=path):
            return ("reorder", path) if path else ("reorder",)


def shown(kind: ice.IcebergType) -> str:
    """Return a type in short, without field ids: ``decimal(10,2)``, ``list<string>``, ``struct<a:int,b:string>``."""
    match kind:
        case ice.StructType(fields=fields):
            return f"struct<{','.join(f'{field.name}:{shown(field.field_type)}' for field in fields)}>"
        case ice.ListType():
            return f"list<{shown(kind.element_type)}>"
        case ice.MapType():
            return f"map<{shown(kind.key_type)},{shown(kind.value_type)}>"
        case _:
            return str(kind).replace(" ", "")


def column_ids(columns: Iterable[ice.NestedField]) -> Iterator[int]:
    """Yield the ids of columns and of all that stands inside them."""
    for column in columns:
        yield column.field_id
        yield from column_ids(_inside(column.field_type))


def column_paths(columns: Iterable[ice.NestedField], path: str = "") -> Mapping[str, int]:
    """Return the ids of columns at every depth by their paths, written as a schema's; map keys have none."""
    found: dict[str, int] = {}
    for column in columns:
        here = below(path, column.name)
        found[here] = column.field_id
        found |= _paths_inside(column.field_type, here)
    return found


def _paths_inside(kind: ice.IcebergType, path: str) -> Mapping[str, int]:
    match kind:
        case ice.StructType(fields=fields):
            return column_paths(fields, path)
        case ice.ListType():
            return _paths_inside(kind.element_type, f"{path}[]")
        case ice.MapType():
            return _paths_inside(kind.value_type, f"{path}{{}}")
        case _:
            return {}


def renumbered(columns: Iterable[ice.NestedField], ids: Mapping[int, int]) -> tuple[ice.NestedField, ...]:
    """Return columns with other ids in place of those that have one, at every depth."""
    return tuple(
        ice.NestedField(
            field_id=ids.get(column.field_id, column.field_id),
            name=column.name,
            field_type=_renumbered(column.field_type, ids),
            required=column.required,
            doc=column.doc,
        )
        for column in columns
    )


def _renumbered(kind: ice.IcebergType, ids: Mapping[int, int]) -> ice.IcebergType:
    inside = renumbered(_inside(kind), ids)
    match kind:
        case ice.StructType():
            return ice.StructType(*inside)
        case ice.ListType():
            (items,) = inside
            return ice.ListType(items.field_id, items.field_type, element_required=items.required)
        case ice.MapType():
            key, value = inside
            return ice.MapType(
                key.field_id, key.field_type, value.field_id, value.field_type, value_required=value.required
            )
        case _:
            return kind


def _inside(kind: ice.IcebergType) -> tuple[ice.NestedField, ...]:
    match kind:
        case ice.StructType(fields=fields):
            return fields
        case ice.ListType():
            return (kind.element_field,)
        case ice.MapType():
            return kind.key_field, kind.value_field
        case _:
            return ()
