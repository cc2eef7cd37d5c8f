"""A schema as Avro's rules of resolution need it: with the aliases of named types, and recursive if it is. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from headrace.schemas.avro import (
    MAX_SCHEMA_BYTES,
    Array,
    AvroSchema,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    optional_of,
)
from headrace.schemas.avro_resolver import Resolver, aliases_of, refuse_excess
from headrace.schemas.errors import SchemaError
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Again", "Graph", "branches_of", "graph_of", "kind_of", "parse", "recursions", "shown"]


@dataclass(frozen=True, slots=True)
class Again(Record):
    """A record inside itself: it has the name alone, and `Graph.record_of` gives its fields."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A schema's types.

    Attributes:
        record: the event's record.
        named: its named types by full name.
        aliases: the full names that a named type had before, by its full name.
    """

    record: Record
    named: Mapping[str, AvroType]
    aliases: Mapping[str, frozenset[str]]

    def record_of(self, record: Record) -> Record:
        """Return the record with its fields, which it does not have where it stands inside itself."""
        found = self.named[record.name] if isinstance(record, Again) else record
        return found if isinstance(found, Record) else record


def parse(text: str, *, where: str | None = None) -> AvroSchema:
    """Parse a schema like `AvroSchema.parse`, but take one whose records contain themselves.

    In such a schema an `Again` stands where a record contains itself: it is for `check` alone, and for no table.

    Raises:
        SchemaError: as `AvroSchema.parse`, but for recursion.
    """
    try:
        return AvroSchema.parse(text, where=where)
    except SchemaError as error:
        schema = _recursive(text)
        if schema is None:
            raise error from None
        return schema


def graph_of(schema: AvroSchema) -> Graph:
    """Return the graph of a schema."""
    return _Graphs().of(schema.document)


def recursions(graph: Graph) -> list[str]:
    """Return the paths at which a record contains itself."""
    return list(_recursions(graph.record, ""))


def branches_of(union: Union, path: str) -> tuple[tuple[str, AvroType], ...]:
    """Return a union's branches besides null with their paths: a branch of several is written like a field."""
    if len(union.others) < 2:
        return tuple((path, branch) for branch in union.others)
    named = branch_record(union).fields
    return tuple((below(path, field.name), optional_of(field.type)[0]) for field in named)


def kind_of(avro_type: AvroType) -> str:
    """Return Avro's word for the kind of a type: ``record``, ``array``, ``int`` …."""
    match avro_type:
        case Primitive(name=name):
            return name
        case Record():
            return "record"
        case _:
            return type(avro_type).__name__.lower()


def shown(avro_type: AvroType) -> str:
    """Return a type in short: ``int``, ``decimal(10,2)``, ``array<string>``, ``null|string``, a named type's name."""
    match avro_type:
        case Array(items=items):
            return f"array<{shown(items)}>"
        case Map(values=values):
            return f"map<{shown(values)}>"
        case Union(branches=branches):
            return "|".join(map(shown, branches))
        case Primitive(logical="decimal") | Fixed(logical="decimal"):
            return f"decimal({avro_type.precision},{avro_type.scale})"
        case Primitive(name=name, logical=logical):
            return logical or name
        case Fixed(size=size, logical=logical):
            return logical or f"fixed({size})"
        case Record(name=name):
            return f"record {name}"
        case Enum(name=name):
            return f"enum {name}"


class _Graphs(Resolver):
    """Resolves a schema's references, those of a record to itself too."""

    def __init__(self) -> None:
        super().__init__(None)
        self.aliases: dict[str, frozenset[str]] = {}

    def of(self, document: dict[str, Any]) -> Graph:
        record = self.resolve(document, "", None, ())
        refuse_excess(record, None)
        if not isinstance(record, Record):
            raise SchemaError("an event's schema is a record")
        return Graph(record, self._named, self.aliases)

    def _reference(self, name: str, path: str, namespace: str | None, inside: tuple[str, ...]) -> AvroType:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if full in inside:
            return Again(full, (), "")
        return super()._reference(name, path, namespace, inside)

    def _defined(self, node: dict[str, Any], path: str, namespace: str | None) -> str:
        full = super()._defined(node, path, namespace)
        space = full.rpartition(".")[0]
        # Avro 1.12 specification, "Aliases": relative to the namespace of the name that they are an alias of.
        self.aliases[full] = frozenset(
            f"{space}.{alias}" if space and "." not in alias else alias for alias in aliases_of(node)
        )
        return full


def _recursive(text: str) -> AvroSchema | None:
    """Return the schema if recursion is all that is wrong with it."""
    if len(text) > MAX_SCHEMA_BYTES:
        return None
    try:
        document = json.loads(text, parse_constant=_no_constant)
        graph = _Graphs().of(document)
        fastavro.parse_schema(document)
    except (SchemaError, SchemaParseException, UnknownType, ValueError, RecursionError):
        return None
    except (TypeError, KeyError, AttributeError):
        return None
    if not recursions(graph):
        return None
    return AvroSchema(json.dumps(document, ensure_ascii=False, separators=(",", ":")), graph.record)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _recursions(avro_type: AvroType, path: str) -> Iterator[str]:
    match avro_type:
        case Again():
            yield path
        case Record(fields=fields):
            for field in fields:
                yield from _recursions(field.type, below(path, field.name))
        case Array(items=items):
            yield from _recursions(items, f"{path}[]")
        case Map(values=values):
            yield from _recursions(values, f"{path}{{}}")
        case Union():
            for place, branch in branches_of(avro_type, path):
                yield from _recursions(branch, place)
        case _:
            pass
