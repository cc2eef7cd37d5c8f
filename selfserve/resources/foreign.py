"""What somebody else has put into a product's subject or table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.types import ListType, MapType, NestedField, StructType

from headrace.schemas.changes import shown
from headrace.schemas.types import METADATA_NAMES
from headrace.schemas.verdicts import TablePast
from headrace.selfserve.resources.difference import Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pyiceberg.table.metadata import TableMetadata

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
            next=f"where the table can follow it, put it into {product.name}'s schema.avsc, then headrace apply; or "
            f"delete version {version.version} of {product.subject} in the registry, softly: "
            "its number must not come again",
        )
        for version in versions
        if not version.deleted and version.schema_id not in known
    )


def foreign_columns(
    product: Product, metadata: TableMetadata, verdicts: Verdicts, followed: int
) -> tuple[Difference, ...]:
    """Return what is otherwise in a table's columns than in those of a table that followed the same versions.

    Args:
        product: the product.
        metadata: the table's.
        verdicts: the subject's versions, judged.
        followed: the newest version that the table has followed.
    """
    held = verdicts.held(followed)
    if held is None:
        return ()
    wanted = verdicts.lineage.steps[held.version].columns
    there = tuple(field for field in metadata.schema().fields if field.name not in METADATA_NAMES)
    return tuple(_Comparison(f"table {product.name}", TablePast.of(metadata).renamed).of(there, wanted, ""))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Compares columns.

    Attributes:
        thing: the table.
        renamed: of each column that was called otherwise its path and those that it had.
    """

    thing: str
    renamed: Mapping[str, Collection[str]]

    def of(self, there: Sequence[NestedField], wanted: Iterable[NestedField], path: str) -> Iterator[Difference]:
        """Yield what differs between the columns of one struct that are there, and those that are wanted."""
        lacking = {field.name: field for field in wanted}
        own = [(field, lacking.pop(field.name, None)) for field in there]
        for field, same in own:
            below = f"{path}{field.name}"
            if same is not None:
                yield from self._inside(field, same, below)
                continue
            before = next((name for name in lacking if f"{path}{name}" in self.renamed.get(below, ())), None)
            if before is None:
                yield self._added(below, shown(field.field_type))
            else:
                yield self._renamed(below, field.name, lacking.pop(before).name)
        for field in lacking.values():
            yield Difference(
                Kind.NEVER,
                "column-missing",
                self.thing,
                f"column {path}{field.name}",
                new=shown(field.field_type),
                why="another engine has dropped it: values of this field are in no row that is written now",
                next="set the table's schema back to one that has it with that engine; where there is none, add the "
                "column anew, without old values",
            )

    def _added(self, path: str, kind: str) -> Difference:
        return Difference(
            Kind.NEVER,
            "column-added",
            self.thing,
            f"column {path}",
            old=kind,
            why="no version of the subject has it: another engine has added it, or its version was deleted for good",
            next="add a field of this name and type to schema.avsc, then headrace apply; or drop it with an engine, if "
            "nobody needs its values",
        )

    def _renamed(self, path: str, now: str, before: str) -> Difference:
        return Difference(
            Kind.NEVER,
            "column-renamed",
            self.thing,
            f"column {path}",
            now,
            before,
            "another engine has renamed it: events that have this field wait",
            f"rename it back to {before} with that engine; it holds the values that were written before",
        )

    def _inside(self, field: NestedField, own: NestedField, path: str) -> Iterator[Difference]:
        match field.field_type, own.field_type:
            case StructType(fields=fields), StructType(fields=wanted):
                yield from self.of(fields, wanted, f"{path}.")
            case ListType() as kind, ListType() as wanted_list:
                yield from self._inside(kind.element_field, wanted_list.element_field, f"{path}[]")
            case MapType() as kind, MapType() as wanted_map:
                yield from self._inside(kind.value_field, wanted_map.value_field, f"{path}{{}}")
            case kind, wanted_kind if shown(kind) != shown(wanted_kind):
                yield Difference(
                    Kind.NEVER,
                    "column-type",
                    self.thing,
                    f"column {path}",
                    shown(kind),
                    shown(wanted_kind),
                    "another engine has changed its type",
                    "widen the field in schema.avsc too, then headrace apply: Iceberg narrows no column",
                )
            case _:
                pass
