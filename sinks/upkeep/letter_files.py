"""Looking after the files of a product's table of dead letters, as after those of its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import NotApplied
from headrace.sinks.dead_letters.table import LETTERS_OF, filed
from headrace.sinks.upkeep.deletion import Deletion
from headrace.sinks.upkeep.sightings import Sightings

if TYPE_CHECKING:
    from threading import Event

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product

__all__ = ["LetterFiles", "letter_table_of"]


@dataclass(frozen=True, slots=True)
class LetterFiles:
    """Deletes files of the table of dead letters, if there is one. See :class:`headrace.sinks.upkeep.task.Task`.

    Attributes:
        catalog: the catalog of the product's domain.
        deletion: looks after the files, under that table's name.
    """

    name: ClassVar[str] = "deletion of letters"

    catalog: Catalog
    deletion: Deletion

    @classmethod
    def of(cls, product: Product, catalog: Catalog, ended: Event) -> LetterFiles:
        """Return the task of a product. What its letters' table has had, only its looks see."""
        return cls(catalog, Deletion(filed(product), Sightings(), ended))

    def due(self, now_s: float) -> bool:
        """Tell whether it is time for a look, on a clock that never goes back."""
        return self.deletion.due(now_s)

    def run(self, _events: Table, /) -> None:
        """Look after the files once; a table of that name that headrace did not make is left alone.

        Raises:
            Unavailable, ProductStopped: as `Deletion.run`.
        """
        table = _made_by_headrace(self.catalog, self.deletion.product)
        if table is not None:
            self.deletion.run(table)


def letter_table_of(catalog: Catalog, product: Product) -> Table | None:
    """Return a product's table of dead letters; None: there is none, or one of that name that headrace did not make.

    Raises:
        Unavailable: catalog or storage does not answer.
        ProductStopped: the table's metadata is damaged.
    """
    return _made_by_headrace(catalog, filed(product))


def _made_by_headrace(catalog: Catalog, letters: Product) -> Table | None:
    try:
        table = load_table(catalog, letters)
    except NotApplied:
        return None
    return table if LETTERS_OF in table.properties else None
