"""Which branch of a union a value is of: chosen by the value's Python type, or named. Pure.

- The branches that a Python type belongs to are tried; of those that take the value, one must be left. ``"A"`` fits
  both a string and an enum that has ``A``: that is an error which names the branches. What a type takes beside its own
  (an int for a double, the text of a UUID or of a time) counts only where no branch has the type for its own.
- A dataclass or a pydantic model of the name of a record is that record, if it fits.
- ``(branch, value)`` names the branch, as the column does or by its full name in Avro. So a tuple is no array here.
- ``{branch: value}``, with other branches None or left out, is what a subscriber is given, and can be published as it
  is. If a map or a record of the union takes it too, the error says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel

from headrace.producers.scalars import Convert, Mismatch, wrong
from headrace.schemas.avro import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union, branch_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How well a Python type stands for an Avro type.
_NAMED, _OWN, _TAKEN = 0, 1, 2
_PLAIN: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (float,),
    "double": (float,),
    "string": (str,),
    "bytes": (bytes,),
}
_LOGICAL: dict[str, tuple[type, ...]] = {
    "decimal": (Decimal,),
    "uuid": (UUID,),
    "date": (date,),
    "time-millis": (time,),
    "time-micros": (time,),
    "timestamp-millis": (datetime,),
    "timestamp-micros": (datetime,),
    "local-timestamp-millis": (datetime,),
    "local-timestamp-micros": (datetime,),
    "timestamp-nanos": (int,),
    "local-timestamp-nanos": (int,),
}
_BESIDE: dict[str, tuple[type, ...]] = {
    "float": (int,),
    "double": (int,),
    "uuid": (str,),
    "time-millis": (str,),
    "time-micros": (str,),
    "timestamp-nanos": (datetime,),
    "local-timestamp-nanos": (datetime,),
}


@dataclass(frozen=True, slots=True)
class _Branch:
    """A branch: its column's name, its type, and its values' check."""

    name: str
    type: AvroType
    convert: Convert

    def datum(self, value: Any) -> dict[str, Any]:
        try:
            return {self.name: self.convert(value)}
        except Mismatch as mismatch:
            mismatch.steps.append(f".{self.name}")
            raise

    def fit(self, value: Any) -> dict[str, Any] | None:
        try:
            return {self.name: self.convert(value)}
        except Mismatch:
            return None


def union_converter(union: Union, convert: Callable[[AvroType, str], Convert], path: str) -> Convert:
    """Return the check of a union's values; the datum that it returns is ``{branch: datum}``.

    Args:
        union: a union that is more than an optional type.
        convert: makes the check of a branch from its type and path.
        path: the union's own.
    """
    branches = [
        _Branch(field.name, branch, convert(branch, f"{path}.{field.name}"))
        for field, branch in zip(branch_record(union).fields, union.others, strict=True)
    ]
    own = {branch.name: branch for branch in branches}
    named = {each.type.name: each for each in branches if isinstance(each.type, Record | Enum | Fixed)} | own

    def converted(value: Any) -> Any:
        if value is None and union.nullable:
            return None
        if isinstance(value, tuple):
            return _explicit(value, named)
        if isinstance(value, Mapping) and (branch := _shown(value, own)) is not None:
            return _of_struct(value, branch, branches)
        return _chosen(value, branches)

    return converted


def _explicit(value: tuple[Any, ...], named: Mapping[str, _Branch]) -> dict[str, Any]:
    if len(value) != 2 or not isinstance(value[0], str):
        raise Mismatch("a tuple in place of a union is (branch, value); an array there must be a list")
    if value[0] not in named:
        raise Mismatch(f"the union has no such branch; it has {_listed(named.values())}")
    return named[value[0]].datum(value[1])


def _shown(value: Mapping[Any, Any], own: Mapping[str, _Branch]) -> _Branch | None:
    """Return the branch that a mapping names as a subscriber's events do; None if it does not."""
    if not all(name in own for name in value):
        return None
    given = [name for name, each in value.items() if each is not None]
    return own[given[0]] if len(given) == 1 else None


def _of_struct(value: Mapping[Any, Any], branch: _Branch, branches: Sequence[_Branch]) -> dict[str, Any]:
    others = [each for each in branches if _rank(each.type, value) is not None and each.fit(value) is not None]
    if not others:
        return branch.datum(value[branch.name])
    inner = branch.fit(value[branch.name])
    if inner is None and len(others) == 1:
        return others[0].datum(value)
    raise _ambiguous([branch, *others])


def _chosen(value: Any, branches: Sequence[_Branch]) -> dict[str, Any]:
    ranked = [(rank, branch) for branch in branches if (rank := _rank(branch.type, value)) is not None]
    for rank in (_NAMED, _OWN, _TAKEN):
        found = [(branch, datum) for own, branch in ranked if own == rank and (datum := branch.fit(value)) is not None]
        if len(found) > 1:
            raise _ambiguous([branch for branch, _ in found])
        if found:
            return found[0][1]
    if len(ranked) == 1:
        # Tells what is wrong inside, with its path.
        return ranked[0][1].datum(value)
    raise (
        wrong(value, f"one of {_listed(branches)}")
        if not ranked
        else Mismatch(f"the value fits none of {_listed([branch for _, branch in ranked])}")
    )


def _rank(avro_type: AvroType, value: Any) -> int | None:
    """Return how well the value's Python type stands for an Avro type; None: not at all."""
    match avro_type:
        case Record(name=name):
            instance = isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))
            if instance and type(value).__name__ == name.rpartition(".")[2]:
                return _NAMED
            return _OWN if instance or isinstance(value, Mapping) else None
        case Array():
            return _OWN if isinstance(value, list) else None
        case Map() | Fixed(logical="duration"):
            return _OWN if isinstance(value, Mapping) else None
        case Enum():
            return _OWN if isinstance(value, str) else None
        case Primitive() | Fixed():
            return _leaf_rank(avro_type, value)
        case _:
            return None


def _leaf_rank(leaf: Primitive | Fixed, value: Any) -> int | None:
    kind = leaf.logical or ("bytes" if isinstance(leaf, Fixed) else leaf.name)
    if isinstance(value, bool) and kind != "boolean":
        return None
    if isinstance(value, datetime) and kind == "date":
        return None
    if isinstance(value, _LOGICAL.get(kind) or _PLAIN[kind]):
        return _OWN
    return _TAKEN if isinstance(value, _BESIDE.get(kind, ())) else None


def _ambiguous(branches: Sequence[_Branch]) -> Mismatch:
    return Mismatch(f"the value fits {_listed(branches)}: say which, as (branch, value)")


def _listed(branches: Any) -> str:
    return ", ".join(dict.fromkeys(branch.name for branch in branches))
