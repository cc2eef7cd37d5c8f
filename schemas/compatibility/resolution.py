"""Can a reader's schema read what a writer's wrote? Avro's rules, each break with its path. Pure.

Source: Avro 1.12 specification, "Schema Resolution" and "Aliases"; the names of the rules are those of the Avro
project's own checkers. Where the specification leaves a choice, Java's checker decides, because registries run it:
names match by their last part or by an alias of the reader's, and a union reads a value if *any* of its branches does.
Where a field's name and its aliases find two fields of the writer's, Java's checker gives up; here the name comes
first, then the aliases in order, and the table's layer refuses the schema.

Avro's own checker for Python (``avro.compatibility``) is no part of this: it gives reasons and places as two sets
without order, no place inside a union, and one place of a named type that stands at several. It is an oracle in the
tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union, is_null
from headrace.schemas.compatibility.findings import ABSENT
from headrace.schemas.compatibility.graph import branches_of, kind_of, shown
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.compatibility.graph import Graph

__all__ = ["Mismatch", "former_field", "mismatches"]

# What a writer's type may be read as, besides itself (specification, "the writer's schema may be promoted").
PROMOTIONS: Mapping[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
_TYPE_MISMATCH = "TYPE_MISMATCH"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that keeps a reader from reading some event of a writer.

    Attributes:
        rule: the Avro project's name of it, such as ``TYPE_MISMATCH``.
        path: the place in the reader's schema.
        written: the writer's side, in short.
        wanted: the reader's side, in short.
    """

    rule: str
    path: str
    written: str
    wanted: str


def mismatches(writer: Graph, reader: Graph) -> tuple[Mismatch, ...]:
    """Return what keeps a reader from reading a writer's events; empty if every event can be read."""
    found = _Resolution(writer, reader).of(writer.record, reader.record, "")
    return tuple(dict.fromkeys(found))


def former_field(fields: Mapping[str, Field], field: Field) -> Field | None:
    """Return which of a record's fields, by their names, another version's field is: by its name, else by an alias."""
    return next((fields[name] for name in (field.name, *field.aliases) if name in fields), None)


class _Resolution:
    """Walks a writer's and a reader's types side by side."""

    def __init__(self, writer: Graph, reader: Graph) -> None:
        self._writer = writer
        self._reader = reader
        # What was found in each pair of records, by paths inside them: a type may stand at many places, and a union may
        # try each of them several times. Nothing, while it is sought, for records that contain themselves.
        self._known: dict[tuple[str, str], tuple[Mismatch, ...]] = {}

    def of(self, writer: AvroType, reader: AvroType, path: str) -> Iterator[Mismatch]:
        """Yield what is wrong with one pair of types."""
        if isinstance(writer, Union):
            # Each event holds one of the branches: the reader must take all of them.
            for branch in writer.branches:
                for found in self.of(branch, reader, path):
                    # At the union itself, the whole of it says more than the branch.
                    here = found.rule == _TYPE_MISMATCH and found.path == path
                    yield Mismatch(found.rule, path, shown(writer), found.wanted) if here else found
        elif isinstance(reader, Union):
            yield from self._into_union(writer, reader, path)
        else:
            yield from self._plain(writer, reader, path)

    def _into_union(self, writer: AvroType, reader: Union, path: str) -> Iterator[Mismatch]:
        nearest: tuple[Mismatch, ...] = ()
        nulls = tuple((path, branch) for branch in reader.branches if is_null(branch))
        for place, branch in (*nulls, *branches_of(reader, path)):
            if not self._like(writer, branch):
                continue
            found = tuple(self.of(writer, branch, place))
            if not found:
                return
            nearest = nearest or found
        yield from nearest or (Mismatch("MISSING_UNION_BRANCH", path, shown(writer), shown(reader)),)

    def _like(self, writer: AvroType, branch: AvroType) -> bool:
        """Tell whether a branch is meant for such values, so that what is wrong inside is what is wrong."""
        match writer, branch:
            case Record() | Enum() | Fixed(), Record() | Enum() | Fixed():
                return kind_of(writer) == kind_of(branch) and self._same_name(writer, branch)
            case Primitive(name=written), Primitive(name=name):
                return written == name or name in PROMOTIONS.get(written, frozenset())
            case _:
                return kind_of(writer) == kind_of(branch)

    def _plain(self, writer: AvroType, reader: AvroType, path: str) -> Iterator[Mismatch]:
        match writer, reader:
            case Record(), Record():
                yield from self._records(writer, reader, path)
            case Array(items=written), Array(items=items):
                yield from self.of(written, items, f"{path}[]")
            case Map(values=written), Map(values=values):
                yield from self.of(written, values, f"{path}{{}}")
            case Enum(), Enum():
                yield from self._names(writer, reader, path)
                lacking = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
                if lacking and reader.default is None:
                    yield Mismatch("MISSING_ENUM_SYMBOLS", path, ",".join(writer.symbols), ",".join(reader.symbols))
            case Fixed(), Fixed():
                yield from self._names(writer, reader, path)
                if writer.size != reader.size:
                    yield Mismatch("FIXED_SIZE_MISMATCH", path, f"fixed({writer.size})", f"fixed({reader.size})")
            case _ if not (isinstance(writer, Primitive) and isinstance(reader, Primitive)) or not self._like(
                writer, reader
            ):
                yield Mismatch(_TYPE_MISMATCH, path, shown(writer), shown(reader))

    def _records(self, writer: Record, reader: Record, path: str) -> Iterator[Mismatch]:
        pair = writer.name, reader.name
        if pair not in self._known:
            self._known[pair] = ()
            found = self._fields(self._writer.record_of(writer), self._reader.record_of(reader))
            self._known[pair] = tuple(dict.fromkeys(found))
        for each in self._known[pair]:
            yield replace(each, path=below(path, each.path) if each.path else path)

    def _fields(self, writer: Record, reader: Record) -> Iterator[Mismatch]:
        yield from self._names(writer, reader, "")
        fields = {field.name: field for field in writer.fields}
        for field in reader.fields:
            written = former_field(fields, field)
            if written is not None:
                yield from self.of(written.type, field.type, field.name)
            elif not field.has_default:
                yield Mismatch("READER_FIELD_MISSING_DEFAULT_VALUE", field.name, ABSENT, shown(field.type))

    def _names(self, writer: Record | Enum | Fixed, reader: Record | Enum | Fixed, path: str) -> Iterator[Mismatch]:
        if not self._same_name(writer, reader):
            yield Mismatch("NAME_MISMATCH", path, writer.name, reader.name)

    def _same_name(self, writer: Record | Enum | Fixed, reader: Record | Enum | Fixed) -> bool:
        last = writer.name.rpartition(".")[2] == reader.name.rpartition(".")[2]
        return last or writer.name in self._reader.aliases.get(reader.name, frozenset())
