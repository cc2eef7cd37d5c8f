"""What ``headrace apply`` leaves in a table: the schema ids that it registered, or found to be the contract's.

A table that is made when its subject has versions already begins with the marks of those up to the contract's: an
earlier table that is gone had them, or the product is older than its mesh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.table.update import SetPropertiesUpdate

from headrace.sinks.table_changes import TableChange, change_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product

# One property for each schema id, so that two runs at once add to them without undoing each other.
APPLIED_PROPERTIES = "headrace.applied."


def applied_ids(table: Table) -> frozenset[int]:
    """Return the schema ids that apply has marked; what somebody else wrote there and is no number counts for none."""
    return marked_ids(table.properties)


def marked_ids(properties: Mapping[str, str]) -> frozenset[int]:
    """Return the schema ids that are marked in a table's properties, as `applied_ids`."""
    marks = (name.removeprefix(APPLIED_PROPERTIES) for name in properties if name.startswith(APPLIED_PROPERTIES))
    return frozenset(int(mark) for mark in marks if mark.isascii() and mark.isdecimal())


def marks_of(product: Product, schema_ids: Iterable[int]) -> dict[str, str]:
    """Return the properties that mark schema ids as applied, with the version of the contract that applies them."""
    return {f"{APPLIED_PROPERTIES}{schema_id}": product.contract.version for schema_id in schema_ids}


def mark_applied(catalog: Catalog, product: Product, schema_id: int) -> bool:
    """Mark a schema id as applied in the product's table; False if it is marked already. Safe to run beside others.

    Raises:
        NotApplied: if there is no table.
        Unavailable: if catalog or storage does not answer; the mark may or may not have landed: call again.
    """
    mark = SetPropertiesUpdate(updates=marks_of(product, [schema_id]))

    def decide(table: Table) -> TableChange | None:
        return None if schema_id in applied_ids(table) else TableChange((), (mark,))

    return change_table(catalog, product, decide)
