"""Which column is a schema's field? By name, else by an alias that names the column of old. Pure.

Avro leaves open what an alias means that is another field's name: Java swaps the two, others match by name first. So
such aliases are refused, and so is an alias that would make one of two columns that are there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.changes import RefusedChange
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyiceberg.types import NestedField

    from headrace.schemas.avro import Field, Record


@dataclass(frozen=True, slots=True)
class Matched:
    """The column of each field that has one, by the field's name, and what keeps a field from having one."""

    columns: Mapping[str, NestedField]
    refused: tuple[RefusedChange, ...]


def match_columns(columns: Sequence[NestedField], record: Record, path: str) -> Matched:
    """Find the columns of a record's fields; ``path`` is the record's own."""
    by_name = {column.name: column for column in columns}
    found = {each.name: by_name[each.name] for each in record.fields if each.name in by_name}
    refused = list(_ambiguous(record, path))
    taken = set(found)
    for each in record.fields:
        former = [by_name[alias] for alias in dict.fromkeys(each.aliases) if alias in by_name and alias not in taken]
        if not former:
            continue
        if each.name in by_name or len(former) > 1:
            refused.append(_both(each, former, path))
        else:
            found[each.name] = former[0]
            taken.add(former[0].name)
    refused += _twins(columns, record, found, path)
    return Matched(found, tuple(refused))


def _ambiguous(record: Record, path: str) -> Iterator[RefusedChange]:
    """Yield aliases that are another field's name, or another field's alias too."""
    names = {each.name for each in record.fields}
    claimed: dict[str, str] = {}
    for each in record.fields:
        for alias in dict.fromkeys(each.aliases):
            other = claimed.setdefault(alias, each.name)
            if other != each.name or (alias in names and alias != each.name):
                holder = other if other != each.name else alias
                yield RefusedChange(
                    "ALIAS_AMBIGUOUS",
                    below(path, each.name),
                    holder,
                    each.name,
                    f"the alias {alias} stands for the field {holder} too",
                    "take the alias out: readers of Avro do not agree on what it means",
                )


def _both(each: Field, former: Sequence[NestedField], path: str) -> RefusedChange:
    names = " and ".join(dict.fromkeys([*(column.name for column in former), each.name][:2]))
    return RefusedChange(
        "ALIAS_OF_EXISTING_COLUMN",
        below(path, each.name),
        former[0].name,
        each.name,
        f"the table has the columns {names} already, and an alias cannot make them one",
        "take the alias out; queries can join the two: coalesce(new, old)",
    )


def _twins(
    columns: Sequence[NestedField], record: Record, found: Mapping[str, NestedField], path: str
) -> Iterator[RefusedChange]:
    """Yield fields whose names differ from another field's, or from a column's that stays, in case only."""
    renamed = {column.name for name, column in found.items() if column.name != name}
    names = {column.name.lower(): column.name for column in columns if column.name not in renamed}
    own = {each.name for each in record.fields}
    for each in record.fields:
        twin = names.setdefault(each.name.lower(), each.name)
        if twin != each.name:
            alias = "" if twin in own else f", or the alias {twin} if it is the same"
            yield RefusedChange(
                "FIELD_NAME_CASE_COLLISION",
                below(path, each.name),
                twin,
                each.name,
                f"differs from {twin} in case only",
                f"SQL engines cannot tell them apart: give the field another name{alias}",
            )
