"""Avro schemas as values: parsed once, named references resolved, PII tags read.

Paths inside a schema are written ``order.items[].price`` and ``labels{}``: a dot for a record's field, ``[]`` for an
array's items, ``{}`` for a map's values. Optional unions (``["null", X]`` in either order) add nothing to a path; a
branch of a union of several is written like a field (``payer.Company``), as :func:`branch_record` names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from headrace.schemas.avro_resolver import MAX_DEPTH, Resolver, refuse_excess
from headrace.schemas.avro_types import (
    Array,
    AvroType,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    is_null,
    optional_of,
)
from headrace.schemas.errors import SchemaError
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Array",
    "AvroSchema",
    "AvroType",
    "Enum",
    "Field",
    "Fixed",
    "Map",
    "Primitive",
    "Record",
    "Union",
    "branch_record",
    "is_null",
    "optional_of",
]

PII_TAG = "PII"
MAX_SCHEMA_BYTES = 1 << 20


@dataclass(frozen=True)
class AvroSchema:
    """An event's schema: a record, with all references resolved.

    Attributes:
        text: the JSON text, white space removed, order kept: what is registered.
        record: the resolved record.
    """

    text: str
    record: Record

    @classmethod
    def parse(cls, text: str, *, where: str | None = None) -> AvroSchema:
        """Parse a schema's JSON text.

        Raises:
            SchemaError: if it is no JSON, no valid Avro, no record at the top, recursive, nested deeper than 32, or of
                more than 10,000 fields with all references followed.
        """
        if len(text) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"the schema is larger than {MAX_SCHEMA_BYTES:,} characters", where=where)
        try:
            document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}: {error.msg}"
            raise SchemaError(f"this is not JSON: {place}", where=where, hint="a schema is one JSON object") from None
        except RecursionError:
            raise SchemaError(f"nested deeper than {MAX_DEPTH}", where=where) from None
        except ValueError as error:
            raise SchemaError(f"this is not JSON: {error}", where=where) from None
        if not isinstance(document, dict) or document.get("type") != "record":
            raise SchemaError("an event's schema is a record", where=where, hint='start with {"type": "record", …}')
        try:
            resolved = Resolver(where).resolve(document, "", None, ())
            refuse_excess(resolved, where)
            fastavro.parse_schema(document)
        except RecursionError:
            raise SchemaError(f"nested deeper than {MAX_DEPTH}", where=where) from None
        except (SchemaParseException, UnknownType, ValueError) as error:
            raise SchemaError(f"this is not valid Avro: {error}", where=where) from None
        except (TypeError, KeyError, AttributeError):
            raise SchemaError("this is not valid Avro: an attribute is of the wrong kind", where=where) from None
        if not isinstance(resolved, Record):
            raise SchemaError("an event's schema is a record", where=where)
        return cls(json.dumps(document, ensure_ascii=False, separators=(",", ":")), resolved)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The schema as JSON values. Treat it as read-only."""
        document: dict[str, Any] = json.loads(self.text)
        return document

    @cached_property
    def parsed(self) -> Any:
        """The schema as fastavro wants it."""
        return fastavro.parse_schema(self.document)

    @cached_property
    def pii(self) -> Mapping[str, str | None]:
        """Every field tagged PII, by path, with its category (``user.contact.email``) or None where none is named."""
        return {
            path: next((tag for tag in field.tags if tag != PII_TAG), None)
            for path, field in self.walk()
            if PII_TAG in field.tags
        }

    def walk(self) -> Iterator[tuple[str, Field]]:
        """Yield every field with its path, parents before children."""
        yield from _walk(self.record, "")

    def at(self, path: str) -> Field | None:
        """Return the field at a dotted path, None where there is none."""
        return next((field for found, field in self.walk() if found == path), None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Take an object whose keys differ: of two equal ones a person may see the one, a tag say, and Avro the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _walk(avro_type: AvroType, path: str) -> Iterator[tuple[str, Field]]:
    match avro_type:
        case Record(fields=fields):
            for field in fields:
                here = below(path, field.name)
                yield here, field
                yield from _walk(field.type, here)
        case Array(items=items):
            yield from _walk(items, f"{path}[]")
        case Map(values=values):
            yield from _walk(values, f"{path}{{}}")
        case Union():
            inner, optional = optional_of(avro_type)
            if optional:
                yield from _walk(inner, path)
            else:
                for branch in branch_record(avro_type).fields:
                    yield from _walk(branch.type, f"{path}.{branch.name}")
        case _:
            pass
