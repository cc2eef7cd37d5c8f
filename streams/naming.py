"""Where one version's fields stand in events of other versions, and in a table's rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from headrace.schemas.avro import Array, Map, Record, Union, optional_of
from headrace.schemas.changes import column_paths
from headrace.schemas.lineage import Lineage, placed_names
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.avro import AvroType, Field
    from headrace.schemas.registered import RegisteredSchema

# For each path of the version that is read as: the field's own name in the record that its parent is there; None: what
# is read has no such field, even if it has another one of that name. A path that is not in it has the same name.
Names: TypeAlias = "Mapping[str, str | None]"
SAME_NAMES: Names = MappingProxyType({})
# Branches by the names of their types, and which other branch's values each can hold: as a table's columns widen.
_NARROWER = {"long": "int", "double": "float"}


@dataclass(frozen=True, slots=True)
class Naming:
    """Names of one version's fields elsewhere.

    Attributes:
        lineage: of all versions that are known.
        pinned: the version that events are read as, one of them.
    """

    lineage: Lineage
    pinned: RegisteredSchema

    def in_event(self, written: RegisteredSchema) -> Names:
        """Return the names of fields in events of a version."""
        return self._with_branches(self.lineage.names(self.pinned.version, written.version), written)

    def in_row(self, written: RegisteredSchema | None, held: int) -> Names:
        """Return the names of fields in rows of the table.

        Args:
            written: the version that the rows' events were written with; None: the registry has lost it, and nobody
                knows which columns its events had a value for: then all of them count.
            held: the newest version that the table has followed.
        """
        if written is not None:
            names = self.lineage.row_names(self.pinned.version, written.version, self._held(held))
            return self._with_branches(names, written)
        return self._in_columns(held)

    def columns(self, held: int) -> frozenset[str]:
        """Return the table's columns that hold fields of the pinned version, by their names in the table."""
        names = self._in_columns(held)
        return frozenset(name for path, name in names.items() if "." not in path and name is not None)

    def _with_branches(self, names: Names, written: RegisteredSchema) -> Names:
        # A branch is called alike in events and rows, and none is ever renamed.
        in_events = self.lineage.names(self.pinned.version, written.version)
        return {**names, **dict(widened_branches(written.schema.record, self.pinned.schema.record, in_events))}

    def _in_columns(self, held: int) -> Names:
        columns = column_paths(self.lineage.steps[self._held(held)].columns)
        return placed_names(self.lineage.steps[self.pinned.version].placed, columns)

    def _held(self, held: int) -> int:
        # The registry may have lost versions. A table that nobody has noted a version in was made for the first.
        known = [version for version in self.lineage.steps if version <= held]
        return max(known) if known else min(self.lineage.steps)


def written_field(record: Record, field: Field, path: str, names: Names) -> Field | None:
    """Return a writer's field that is the reader's field at ``path``; None: it has none."""
    name = names.get(path, field.name)
    return None if name is None else record.field(name)


def widened_branches(writer: AvroType, reader: AvroType, names: Names, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield, by path, which narrower branch of a writer's union is a branch of the reader's, at any depth.

    A table has a column a branch, so an int's is not a long's that comes later. Avro reads the one as the other.
    Where the reader has the narrower branch too, or the writer the wider one, each is its own.
    """
    match shape(writer)[0], shape(reader)[0]:
        case Record() as known, Record(fields=fields) as read_as:
            both_unions = is_union(writer) and is_union(reader)
            for field in fields:
                here = below(path, field.name)
                found = written_field(known, field, here, names)
                narrower = _NARROWER.get(field.name, "") if both_unions and found is None else ""
                if found is not None:
                    yield from widened_branches(found.type, field.type, names, here)
                elif known.field(narrower) is not None and read_as.field(narrower) is None:
                    yield here, narrower
        case Array(items=written), Array(items=items):
            yield from widened_branches(written, items, names, f"{path}[]")
        case Map(values=written), Map(values=values):
            yield from widened_branches(written, values, names, f"{path}{{}}")


def is_union(avro_type: AvroType) -> bool:
    """Tell whether a type is a union of several branches, which a column sees as a record."""
    return isinstance(optional_of(avro_type)[0], Union)
