"""Avro's types as frozen values, with named references resolved. Pure.

Source: Apache Avro specification 1.12, "Schema Declaration".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Primitive:
    """A primitive type with its logical type, if the specification knows that logical type for it."""

    name: str
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Fixed:
    """A fixed type of ``size`` bytes."""

    name: str
    size: int
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum with its symbols in order. ``default`` is what a reader takes a symbol for that it does not have."""

    name: str
    symbols: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """An array."""

    items: AvroType


@dataclass(frozen=True, slots=True)
class Map:
    """A map from strings."""

    values: AvroType


@dataclass(frozen=True, slots=True)
class Union:
    """A union with its branches in order."""

    branches: tuple[AvroType, ...]

    @property
    def nullable(self) -> bool:
        """Whether one branch is null."""
        return any(is_null(branch) for branch in self.branches)

    @property
    def others(self) -> tuple[AvroType, ...]:
        """The branches that are not null."""
        return tuple(branch for branch in self.branches if not is_null(branch))


@dataclass(frozen=True, slots=True)
class Field:
    """A record's field. ``default`` is the schema's JSON default; ``has_default`` tells null from none."""

    name: str
    type: AvroType
    doc: str
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    has_default: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its fields in order."""

    name: str
    fields: tuple[Field, ...]
    doc: str

    def field(self, name: str) -> Field | None:
        """Return the field of that name."""
        return next((field for field in self.fields if field.name == name), None)


AvroType: TypeAlias = Primitive | Fixed | Enum | Array | Map | Union | Record


def is_null(avro_type: AvroType) -> bool:
    """Tell whether the type is Avro's null."""
    return isinstance(avro_type, Primitive) and avro_type.name == "null"


def optional_of(avro_type: AvroType) -> tuple[AvroType, bool]:
    """Return the type behind ``["null", X]`` in either order and whether it was optional; other types as they are."""
    if isinstance(avro_type, Union) and avro_type.nullable and len(avro_type.others) == 1:
        return avro_type.others[0], True
    return avro_type, False


def branch_record(union: Union) -> Record:
    """Return a union of several branches as its column sees it: a record with an optional field a branch, in order.

    A branch is named by its type: ``long``, ``array``, ``map``, or a named type's last name; two named types of one
    last name go by their full names with ``_`` for ``.``. Logical types do not count. ``null`` is no branch: it is the
    column's own null.
    """
    names = [_branch_name(branch) for branch in union.others]
    return Record(
        "union",
        tuple(
            Field(
                name=_branch_name(branch, full=names.count(name) > 1),
                type=Union((Primitive("null"), branch)),
                doc="",
                aliases=(),
                tags=(),
                has_default=False,
                default=None,
            )
            for name, branch in zip(names, union.others, strict=True)
        ),
        "",
    )


def _branch_name(branch: AvroType, *, full: bool = False) -> str:
    match branch:
        case Record(name=name) | Enum(name=name) | Fixed(name=name):
            return name.replace(".", "_") if full else name.rpartition(".")[2]
        case Primitive(name=name):
            return name
        case _:
            return type(branch).__name__.lower()
