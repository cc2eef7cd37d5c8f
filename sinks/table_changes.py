"""Changes of a table's metadata that come with no row, by an operator's command: each lands once, or says to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertTableUUID

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableRequirement, TableUpdate

    from headrace.schemas.product import Product

# Each conflict means that somebody else changed the table meanwhile, so that not all of them can conflict.
_REPEATS = 10


@dataclass(frozen=True, slots=True)
class TableChange:
    """A change of a table as it is: what must not have changed meanwhile, and what is changed."""

    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


def change_table(catalog: Catalog, product: Product, decide: Callable[[Table], TableChange | None]) -> bool:
    """Commit what ``decide`` asks for, given the table as it is now, until that lands or nothing is asked for.

    Safe to repeat and to run beside others: the table must be the same one, and what the requirements name unchanged.

    Returns:
        Whether this call changed the table.

    Raises:
        NotApplied: if there is no table.
        Unavailable: if catalog or storage does not answer; the change may or may not have landed: call again.
    """
    for _ in range(_REPEATS):
        table = load_table(catalog, product)
        change = decide(table)
        if change is None:
            return False
        requirements = (AssertTableUUID(uuid=table.metadata.table_uuid), *change.requirements)
        with catalog_errors(f"table {product.name}"):
            try:
                catalog.commit_table(table, requirements, change.updates)
            except CommitFailedException:
                continue
        return True
    raise Unavailable("others change the table all the time", where=f"table {product.name}", hint="headrace apply")
