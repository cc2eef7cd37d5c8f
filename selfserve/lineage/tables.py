"""What lineage says of a product's table, read from its metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headrace.selfserve.lineage.columns import Masked
from headrace.selfserve.lineage.events import TableFacts
from headrace.streams.masked import is_key_masked, masks_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product

__all__ = ["facts_of"]

_REST_URL = re.compile(r"(?P<scheme>https?://)(?:[^/?#]*@)?(?P<place>[^?#]*)")


def facts_of(table: Table, product: Product, catalog: Catalog) -> TableFacts:
    """Return what a table says of itself.

    Args:
        table: the table, as it is now.
        product: its product; the contract's masks may be newer than what the table notes.
        catalog: the catalog that it was loaded from.

    Raises:
        ProductStopped: if somebody has written a mask that this version of headrace does not know.
    """
    snapshot = table.current_snapshot()
    return TableFacts(
        columns=tuple(table.schema().fields),
        location=table.location(),
        masked=Masked({**product.masks, **masks_of(table)}, is_key_masked(table)),
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        catalog=(catalog.name, type(catalog).__name__.removesuffix("Catalog").lower()),
        home=_home(catalog, table),
    )


def _home(catalog: Catalog, table: Table) -> str:
    """Return where others find a table by its name: a REST catalog's address, else the warehouse, without secrets.

    The address of a SQL catalog is none that others know a table by, and may hold a password where none is expected.
    """
    rest = _REST_URL.match(catalog.properties.get("uri", ""))
    if rest is not None:
        return (rest["scheme"] + rest["place"]).rstrip("/")
    return catalog.properties.get("warehouse") or table.location()
