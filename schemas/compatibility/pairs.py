"""What of an old version is what of a new one: fields by name or alias, branches of unions by kind and name. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union
from headrace.schemas.compatibility.graph import Again, branches_of, kind_of
from headrace.schemas.compatibility.resolution import former_field
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.compatibility.graph import Graph

__all__ = ["FieldPair", "TypePair", "fields_of", "leaves_of", "pairs_of"]


@dataclass(frozen=True, slots=True)
class TypePair:
    """Two types without union around them, ``old`` of the old version and ``new`` at ``path`` of the new one."""

    path: str
    old: AvroType
    new: AvroType


@dataclass(frozen=True, slots=True)
class FieldPair:
    """A field of both versions, by its path in each of them."""

    old_path: str
    path: str
    old: Field
    new: Field


Pair = TypePair | FieldPair


def pairs_of(old: Graph, new: Graph) -> Iterator[Pair]:
    """Yield all fields and types that both versions have, outermost first."""
    yield from _Walk(old, new).of((old.record, new.record), "", "")


def fields_of(old: Graph, new: Graph) -> tuple[FieldPair, ...]:
    """Return all fields that both versions have."""
    return tuple(pair for pair in pairs_of(old, new) if isinstance(pair, FieldPair))


def leaves_of(old: Graph, new: Graph) -> tuple[TypePair, ...]:
    """Return all pairs of types that hold no others."""
    leaf = Primitive | Fixed | Enum
    return tuple(
        pair
        for pair in pairs_of(old, new)
        if isinstance(pair, TypePair) and isinstance(pair.old, leaf) and isinstance(pair.new, leaf)
    )


class _Walk:
    def __init__(self, old: Graph, new: Graph) -> None:
        self._old = old
        self._new = new
        # Records that contain themselves are walked once.
        self._again: set[tuple[str, str]] = set()

    def of(self, types: tuple[AvroType, AvroType], old_path: str, path: str) -> Iterator[Pair]:
        old, new = types
        if isinstance(old, Union) or isinstance(new, Union):
            for was, place, pair in _branch_pairs(old, new, old_path, path):
                yield from self.of(pair, was, place)
            return
        yield TypePair(path, old, new)
        match old, new:
            case Record(), Record():
                yield from self._records(old, new, old_path, path)
            case Array(items=before), Array(items=after):
                yield from self.of((before, after), f"{old_path}[]", f"{path}[]")
            case Map(values=before), Map(values=after):
                yield from self.of((before, after), f"{old_path}{{}}", f"{path}{{}}")
            case _:
                pass

    def _records(self, old: Record, new: Record, old_path: str, path: str) -> Iterator[Pair]:
        if isinstance(old, Again) or isinstance(new, Again):
            if (old.name, new.name) in self._again:
                return
            self._again.add((old.name, new.name))
        before = {field.name: field for field in self._old.record_of(old).fields}
        for field in self._new.record_of(new).fields:
            former = former_field(before, field)
            if former is not None:
                pair = FieldPair(below(old_path, former.name), below(path, field.name), former, field)
                yield pair
                yield from self.of((former.type, field.type), pair.old_path, pair.path)


def _branch_pairs(
    old: AvroType, new: AvroType, old_path: str, path: str
) -> Iterator[tuple[str, str, tuple[AvroType, AvroType]]]:
    """Yield the branches that mean the same, with their paths; null is nobody's."""
    before = list(branches_of(old, old_path)) if isinstance(old, Union) else [(old_path, old)]
    after = branches_of(new, path) if isinstance(new, Union) else ((path, new),)
    if len(before) == len(after) == 1:
        yield before[0][0], after[0][0], (before[0][1], after[0][1])
        return
    for place, branch in after:
        twins = [each for each in before if _kind(each[1]) == _kind(branch)]
        # Two branches may have one last name, in namespaces of their own.
        twin = next((each for each in twins if _name(each[1]) == _name(branch)), twins[0] if twins else None)
        if twin is not None:
            yield twin[0], place, (twin[1], branch)


def _kind(avro_type: AvroType) -> tuple[str, str]:
    return kind_of(avro_type), _name(avro_type).rpartition(".")[2]


def _name(avro_type: AvroType) -> str:
    return avro_type.name if isinstance(avro_type, Record | Enum | Fixed) else ""
