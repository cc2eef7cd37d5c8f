"""Which fields a table has ever masked: its properties say so, and outlast what a registry loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import ProductStopped
from headrace.schemas.masks import Mask

if TYPE_CHECKING:
    from pyiceberg.table import Table

# One property for each masked field, by its path: a registry may lose the version that tagged it. Several workers add
# to them at once, which a single property of them all would not outlast.
MASK_PROPERTIES = "headrace.mask."


def masks_of(table: Table) -> dict[str, Mask]:
    """Return the masks of all fields that were ever masked in the table, by path. A field is never taken out again.

    Raises:
        ProductStopped: if somebody has written a mask that this version of headrace does not know.
    """
    found = {}
    for name, mask in table.properties.items():
        if name.startswith(MASK_PROPERTIES):
            try:
                found[name.removeprefix(MASK_PROPERTIES)] = Mask(mask)
            except ValueError:
                raise ProductStopped(
                    f"the table's property {name} names no mask that this headrace knows",
                    where=f"table {'.'.join(table.name()[-2:])}",
                    hint="upgrade headrace, or correct the property",
                ) from None
    return found
