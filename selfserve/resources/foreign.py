"""What somebody else has put into a product's subject or table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.types import ListType, MapType, NestedField, StructType

from headrace.schemas.changes import shown
from headrace.schemas.types import METADATA_NAMES
from headrace.selfserve.resources.difference import Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pyiceberg.schema import Schema

    from headrace.governance.observing import Version
    from headrace.schemas.product import Product
    from headrace.schemas.verdicts import Verdicts

__all__ = ["foreign_columns", "foreign_versions"]


def foreign_versions(
    product: Product, versions: Iterable[Version], known: Collection[int | None]
) -> tuple[Difference, ...]:
    """Return the versions of a subject that came past `apply`.

    Args:
        product: the product.
        versions: the subject's versions; those that were deleted do not count.
        known: the ids that apply has marked, and that of the contract's schema.
    """
    return tuple(
        Difference(
            Kind.NEVER,
            "foreign-version",
            f"subject {product.subject}",
            "version",
            old=f"{version.version} (schema id {version.schema_id})",
            why="it is not the contract's schema, and no apply has registered it",
            next=f"make it the contract's: put it into {product.name}'s schema.avsc, then headrace apply; or delete "
            f"version {version.version} of {product.subject} in the registry",
        )
        for version in versions
        if not version.deleted and version.schema_id not in known
    )


def foreign_columns(product: Product, schema: Schema, verdicts: Verdicts, followed: int) -> tuple[Difference, ...]:
    """Return what is otherwise in a table's columns than in those of a table that followed the same versions.

    Args:
        product: the product.
        schema: the table's columns.
        verdicts: the subject's versions, judged.
        followed: the newest version that the table has followed.
    """
    held = verdicts.held(followed)
    if held is None:
        return ()
    wanted = verdicts.lineage.steps[held.version].columns
    there = tuple(field for field in schema.fields if field.name not in METADATA_NAMES)
    return tuple(_compared(f"table {product.name}", there, wanted, ""))


def _compared(
    thing: str, there: Iterable[NestedField], wanted: Iterable[NestedField], path: str
) -> Iterator[Difference]:
    left = {field.name: field for field in wanted}
    for field in there:
        below = f"{path}{field.name}"
        own = left.pop(field.name, None)
        if own is None:
            yield Difference(
                Kind.NEVER,
                "column-added",
                thing,
                f"column {below}",
                old=shown(field.field_type),
                why="no version of the subject has it: another engine has added it",
                next="drop it with that engine, or add a field of this name and type to schema.avsc, then apply",
            )
        else:
            yield from _inside(thing, field, own, below)
    for field in left.values():
        yield Difference(
            Kind.NEVER,
            "column-missing",
            thing,
            f"column {path}{field.name}",
            new=shown(field.field_type),
            why="another engine has dropped or renamed it: events of this field cannot be written",
            next="roll the table's schema back with that engine; a column that is made anew has no old values",
        )


def _inside(thing: str, field: NestedField, own: NestedField, path: str) -> Iterator[Difference]:
    match field.field_type, own.field_type:
        case StructType(fields=fields), StructType(fields=wanted):
            yield from _compared(thing, fields, wanted, f"{path}.")
        case ListType() as kind, ListType() as wanted_list:
            yield from _inside(thing, kind.element_field, wanted_list.element_field, f"{path}[]")
        case MapType() as kind, MapType() as wanted_map:
            yield from _inside(thing, kind.value_field, wanted_map.value_field, f"{path}{{}}")
        case kind, wanted_kind if shown(kind) != shown(wanted_kind):
            yield Difference(
                Kind.NEVER,
                "column-type",
                thing,
                f"column {path}",
                shown(kind),
                shown(wanted_kind),
                "another engine has changed its type",
                "widen the field in schema.avsc too, then headrace apply: Iceberg narrows no column",
            )
        case _:
            pass
