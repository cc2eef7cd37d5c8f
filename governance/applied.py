"""What ``headrace apply`` leaves in a table: the schema ids that it registered, or found to be the contract's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertTableUUID, SetPropertiesUpdate

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.errors import Unavailable

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product

# One property for each schema id, so that two runs at once add to them without undoing each other.
APPLIED_PROPERTIES = "headrace.applied."


def applied_ids(table: Table) -> frozenset[int]:
    """Return the schema ids that apply has marked; what somebody else wrote there and is no number counts for none."""
    marks = (name.removeprefix(APPLIED_PROPERTIES) for name in table.properties if name.startswith(APPLIED_PROPERTIES))
    return frozenset(int(mark) for mark in marks if mark.isascii() and mark.isdecimal())


def mark_applied(catalog: Catalog, product: Product, schema_id: int) -> bool:
    """Mark a schema id as applied in the product's table; False if it is marked already. Safe to run beside others.

    Raises:
        NotApplied: if there is no table.
        Unavailable: if catalog or storage does not answer; the mark may or may not have landed: call again.
    """
    # Another commit may land first: bounded, because each failure means that somebody made progress.
    for _ in range(10):
        table = load_table(catalog, product)
        if schema_id in applied_ids(table):
            return False
        # The table must be the same one; whatever else changes in it meanwhile does not touch this property.
        requirements = (AssertTableUUID(uuid=table.metadata.table_uuid),)
        update = SetPropertiesUpdate(updates={f"{APPLIED_PROPERTIES}{schema_id}": product.contract.version})
        with catalog_errors(f"table {product.name}"):
            try:
                catalog.commit_table(table, requirements, (update,))
            except CommitFailedException:
                continue
        return True
    raise Unavailable("others change the table all the time", where=f"table {product.name}", hint="headrace apply")
