"""Schemas spelt out: of the same bytes, but with nothing left to resolve, to ignore or to guess. Pure."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from headrace.schemas.avro_types import (
    Array,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    is_null,
    optional_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def plain(record: Record) -> dict[str, Any]:
    """Return a schema, as JSON values, for which an encoder or decoder converts nothing: without logical types.

    A value of a union of several branches is ``{branch: value}`` there, named as the column's field (`branch_record`):
    each branch is spelt as a record of one field, which has no bytes of its own. So the branch is seen when the union
    is read, and is not guessed when it is written.
    """
    return Speller(lambda _: {}, wraps_branches=True).record(record)


class Speller:
    """Spells resolved types out in the plainest JSON: only what the bytes depend on, each named type by a fresh name.

    Args:
        logical: what to say of a leaf's logical type.
        wraps_branches: whether the branches of a union of several become records, as `plain` says.
    """

    def __init__(self, logical: Callable[[Primitive | Fixed], dict[str, Any]], *, wraps_branches: bool = False) -> None:
        self._logical = logical
        self._wraps = wraps_branches
        self._names = (f"T{number}" for number in count())

    def record(self, record: Record) -> dict[str, Any]:
        """Return a record's schema."""
        members = [{"name": field.name, "type": self.type(field.type)} for field in record.fields]
        return {"type": "record", "name": next(self._names), "fields": members}

    def type(self, avro_type: AvroType) -> Any:
        """Return a type's schema."""
        match avro_type:
            case Record():
                return self.record(avro_type)
            case Array(items=items):
                return {"type": "array", "items": self.type(items)}
            case Map(values=values):
                return {"type": "map", "values": self.type(values)}
            case Union(branches=branches):
                wrapped = self._wraps and not optional_of(avro_type)[1]
                return self._wrapped(avro_type) if wrapped else [self.type(branch) for branch in branches]
            case Enum(symbols=symbols):
                return {"type": "enum", "name": next(self._names), "symbols": symbols}
            case Fixed():
                own = self._logical(avro_type)
                return {"type": "fixed", "name": next(self._names), "size": avro_type.size, **own}
            case Primitive():
                # A null that is not spelt plainly makes DataFusion read an optional field as a union of two branches.
                own = self._logical(avro_type)
                return {"type": avro_type.name, **own} if own else avro_type.name

    def _wrapped(self, union: Union) -> list[Any]:
        columns = iter(branch_record(union).fields)
        spelt: list[Any] = []
        for branch in union.branches:
            if is_null(branch):
                spelt.append("null")
                continue
            name = next(self._names)
            members = [{"name": next(columns).name, "type": self.type(branch)}]
            spelt.append({"type": "record", "name": name, "fields": members})
        return spelt
