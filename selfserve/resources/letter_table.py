"""The table of a product's dead letters: that it is there, its properties, and that nobody has changed its columns."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.table.update import SetPropertiesUpdate

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import NotApplied
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.sinks.dead_letters.table import LETTERS_OF, changed_columns, ensure_letter_table, filed, letter_properties
from headrace.sinks.table_changes import TableChange, change_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.product import Domain, Product
    from headrace.selfserve.resources.clients import Clients

__all__ = ["LetterTable"]

# Not a property that a table keeps, but what is asked for when it is made.
_AT_CREATION = "format-version"


@dataclass(frozen=True, slots=True)
class LetterTableThere:
    """The table as it is: its properties, and the columns that were changed so that no letter can be entered."""

    properties: Mapping[str, str]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LetterTable:
    """A product's table of dead letters as headrace makes it."""

    domain: Domain
    product: Product

    @property
    def thing(self) -> str:
        """What it is called."""
        return f"table {filed(self.product).name}"

    def read(self, clients: Clients) -> LetterTableThere | None:
        """Return the table as it is; None: there is no such table."""
        with suppress(NotApplied):
            table = load_table(clients.catalog(self.domain), filed(self.product))
            return LetterTableThere(dict(table.properties), changed_columns(table.schema()))
        return None

    def diff(self, there: LetterTableThere | None) -> tuple[Difference, ...]:
        """Return what differs."""
        if there is None:
            return (Difference(Kind.CREATE, "letter-table-missing", self.thing),)
        if LETTERS_OF not in there.properties:
            return (
                Difference(
                    Kind.NEVER,
                    "letter-table-foreign",
                    self.thing,
                    why=f"headrace has not made it, and enters the dead letters of {self.product.name} in a table of "
                    "this name",
                    next="move it away, then headrace apply",
                ),
            )
        return (*self._columns(there), *self._properties(there.properties))

    def _columns(self, there: LetterTableThere) -> tuple[Difference, ...]:
        if not there.changed:
            return ()
        return (
            Difference(
                Kind.NEVER,
                "letter-table-columns",
                self.thing,
                why=f"somebody has changed its columns ({', '.join(there.changed)}), so that no dead letter of "
                f"{self.product.name} can be entered",
                next="take that change back, or move the table away, then headrace apply",
            ),
        )

    def _properties(self, there: Mapping[str, str]) -> tuple[Difference, ...]:
        wanted = letter_properties(self.product)
        return tuple(
            Difference(Kind.CHANGE, "letter-table-property", self.thing, name, there.get(name), value)
            for name, value in wanted.items()
            if name != _AT_CREATION and there.get(name) != value
        )

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Make the table, or set one of its properties."""
        catalog = clients.catalog(self.domain)
        if difference.kind is Kind.CREATE:
            ensure_letter_table(catalog, self.product)
        elif difference.kind is Kind.CHANGE:
            update = SetPropertiesUpdate(updates={difference.what: str(difference.new)})

            def change(table: Table) -> TableChange | None:
                there = table.properties.get(difference.what)
                return None if there == difference.new else TableChange((), (update,))

            change_table(catalog, filed(self.product), change)
