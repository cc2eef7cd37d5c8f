"""Whether a column that is a struct holds a record or a union of several branches: itself, it does not say. Pure.

A record that becomes one branch of a union, or the other way round, would leave its fields beside the branches: nothing
would be lost, and every query would go quiet. So the change is refused like any other that leads to another type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from headrace.schemas.avro import Array, AvroType, Map, Record, Union, optional_of
from headrace.schemas.changes import RefusedChange
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A struct's place: the id of the field's column, and the lists and maps (``[]``, ``{}``) between the two.
Place: TypeAlias = tuple[int, str]


def structs_of(record: Record, placed: Mapping[str, int]) -> Mapping[Place, tuple[str, str]]:
    """Return what each struct of a version holds, ``record`` or ``union``, and its path, by its place.

    Args:
        record: the version's record.
        placed: the ids of its fields' columns by path.
    """
    return {
        (placed[field], path[len(field) :]): (sort, path)
        for field, path, sort in _structs(record, "")
        if field in placed
    }


def mixed(known: Mapping[Place, str], found: Mapping[Place, tuple[str, str]]) -> Iterator[RefusedChange]:
    """Yield structs that held the other sort of thing before."""
    for place, (sort, path) in found.items():
        old = known.get(place, sort)
        if old != sort:
            yield RefusedChange(
                "UNSUPPORTED_TYPE_CHANGE",
                path,
                old,
                sort,
                f"the table's column holds a {old}, the schema's field is a {sort}",
                "give the field another name, or take the change back",
            )


def _structs(record: Record, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield every struct's field, its own path, and what it holds."""
    for each in record.fields:
        field = below(path, each.name)
        yield from _inside(each.type, field, field)


def _inside(avro_type: AvroType, field: str, path: str) -> Iterator[tuple[str, str, str]]:
    inner, _ = optional_of(avro_type)
    match inner:
        case Array(items=items):
            yield from _inside(items, field, f"{path}[]")
        case Map(values=values):
            yield from _inside(values, field, f"{path}{{}}")
        case Record() | Union():
            yield field, path, "union" if isinstance(inner, Union) else "record"
            record = shape(inner)[0]
            if isinstance(record, Record):
                yield from _structs(record, path)
        case _:
            pass
