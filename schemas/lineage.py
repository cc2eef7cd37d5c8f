"""What became of a product's fields from version to version, by the ids of their columns. Pure.

A name is not enough to follow a field: it may be given up in one version and taken by another field in the next. So
versions are folded in order, from the first, into the columns of a table that followed all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.schemas.changes import RefusedChange, column_ids, column_paths, renumbered
from headrace.schemas.evolution import Step, first_step, step
from headrace.schemas.structs import Place, mixed, structs_of
from headrace.schemas.types import record_refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.types import NestedField

    from headrace.schemas.avro import Record


@dataclass(frozen=True, slots=True)
class Lineage:
    """A product's versions, folded.

    Attributes:
        columns: the columns of a table that followed all versions that are not refused.
        steps: what each version asked for, by its number, ascending.
    """

    columns: tuple[NestedField, ...]
    steps: Mapping[int, Step]

    def names(self, target: int, written: int) -> Mapping[str, str | None]:
        """Say where the fields of one version stand in an event of another.

        Args:
            target: the version that the fields are wanted of.
            written: the version that the event was written with.

        Returns:
            For each path of ``target`` the field's own name in the event, in the record that its parent is there; None
            if the event has no such field, even if it has another one of that name.
        """
        return placed_names(self.steps[target].placed, self.steps[written].placed)

    def row_names(self, target: int, written: int, held: int) -> Mapping[str, str | None]:
        """Say where the fields of one version stand in a table's row.

        Args:
            target: the version that the fields are wanted of.
            written: the version that the row's event was written with.
            held: the newest version that the table has followed.

        Returns:
            As `names`: the name of the column, None where the event had no such field.
        """
        own = self.steps[written].placed.values()
        columns = {path: number for path, number in column_paths(self.steps[held].columns).items() if number in own}
        return placed_names(self.steps[target].placed, columns)

    def column_names(self, held: int, written: int) -> Mapping[str, str | None]:
        """Say as `names` does where a table's columns stand in an event; ``held`` is the newest version it followed."""
        return placed_names(column_paths(self.steps[held].columns), self.steps[written].placed)


def placed_names(target: Mapping[str, int], written: Mapping[str, int]) -> Mapping[str, str | None]:
    """Return, for each path of the target, the name of the field of the same column in what was written; None: none."""
    own = {number: path.rpartition(".")[2] for path, number in written.items()}
    return {path: own.get(number) for path, number in target.items()}


def fold(versions: Iterable[tuple[int, Record]], nulled: frozenset[str]) -> Lineage:
    """Follow versions, given with their numbers in ascending order, from nothing.

    A version that no table can follow is passed over: its step says why. What it adds, and a later version adds again
    under the same path, is one field all the same: events of both tell of it.
    """
    columns: tuple[NestedField, ...] = ()
    steps: dict[int, Step] = {}
    last = 0
    waiting: dict[str, int] = {}
    structs: dict[Place, str] = {}
    for number, record in versions:
        # An id is never given twice, not even after a version that was refused: ids tell what is the same field.
        first = last + 1
        made = step(columns, record, nulled, first_id=first) if columns else first_step(record, nulled, first_id=first)
        found = structs_of(record, made.placed)
        made = _held_back(made, columns, record, mixed(structs, found))
        last = max([last, *made.placed.values(), *column_ids(made.columns)])
        again = {new: waiting[path] for path, new in made.placed.items() if new >= first and path in waiting}
        placed = {path: again.get(new, new) for path, new in made.placed.items()}
        steps[number] = made = replace(made, columns=renumbered(made.columns, again), placed=placed)
        if made.refused:
            held = set(column_ids(columns))
            waiting |= {path: new for path, new in placed.items() if new not in held}
        else:
            structs |= {place: sort for place, (sort, _) in found.items()}
            waiting = {path: old for path, old in waiting.items() if old not in placed.values()}
        columns = made.columns
    return Lineage(columns, steps)


def _held_back(made: Step, columns: tuple[NestedField, ...], record: Record, changed: Iterable[RefusedChange]) -> Step:
    """Return the step, refused if the version holds what no table can, or structs of another sort than before."""
    faults = [RefusedChange(each.rule, each.path, "", "", each.what, each.hint) for each in record_refusals(record)]
    faults += changed
    if not faults:
        return made
    told = {each.path for each in faults}
    refused = (*faults, *(each for each in made.refused if each.path not in told))
    return replace(made, changes=(), refused=refused, columns=columns)
