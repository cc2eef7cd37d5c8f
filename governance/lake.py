"""What the catalogs say of the products' tables: read again and again, the longer it takes the less often."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.governance.applied import applied_ids
from headrace.governance.observing import TableState
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import NotApplied
from headrace.sinks.evolution import VERSION_PROPERTY
from headrace.streams.masked import MASK_PROPERTIES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

# A table's metadata grows with its snapshots, and all of it is read: so it may take this part of the time at most.
SHARE = 0.1


class Lake:
    """Looks at tables."""

    def __init__(self) -> None:
        self._catalogs: dict[str, Catalog] = {}
        self._states: dict[str, TableState | None] = {}
        self._next_s: dict[str, float] = {}

    def look(self, mesh: Mesh, product: Product, *, fresh: bool = False) -> TableState | None:
        """Return a table's state, None if there is none; maybe an older one, unless it is to be ``fresh``.

        Raises:
            Unavailable: if catalog or storage does not answer.
            ProductStopped: if the table's metadata is damaged.
            SettingsError: if the catalog's settings make no sense.
        """
        name = str(product.name)
        began_s = time.monotonic()
        if fresh or began_s >= self._next_s.get(name, began_s):
            self._states[name] = self._read(mesh, product)
            ended_s = time.monotonic()
            self._next_s[name] = ended_s + (ended_s - began_s) / SHARE
        return self._states[name]

    def _read(self, mesh: Mesh, product: Product) -> TableState | None:
        domain = mesh.domain_of(product)
        if domain.name not in self._catalogs:
            self._catalogs[domain.name] = open_catalog(mesh.environment, domain)
        try:
            return table_state(load_table(self._catalogs[domain.name], product))
        except NotApplied:
            return None
        except BaseException:
            # A catalog may have credentials that have run out.
            del self._catalogs[domain.name]
            raise


def table_state(table: Table) -> TableState:
    """Return what a table's properties say. What is no number there, counts as none."""
    version = table.properties.get(VERSION_PROPERTY, "")
    masked = (name.removeprefix(MASK_PROPERTIES) for name in table.properties if name.startswith(MASK_PROPERTIES))
    return TableState(
        schema_version=int(version) if version.isascii() and version.isdecimal() else 0,
        masked=tuple(sorted(masked)),
        applied=tuple(sorted(applied_ids(table))),
    )
