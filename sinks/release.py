"""Waiting for a release before anything is read: the table is looked at now and then, and nobody is held up by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Held
from headrace.sinks.hold import check_not_held
from headrace.sinks.patience import HELD_S, HELD_TELL_S

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.patience import Patience

__all__ = ["Release"]


class Release:
    """The release that a session waits for which found its product held when partitions came. Not for several threads.

    Args:
        product: the product.
        catalog: its domain's catalog.
        patience: is told that the product is held, once a minute, and when it is released.
    """

    def __init__(self, product: Product, catalog: Catalog, patience: Patience) -> None:
        self._product = product
        self._catalog = catalog
        self._patience = patience
        self._look_s = 0.0
        self._tell_s = 0.0
        self.awaited = False

    def needed(self, table: Table) -> bool:
        """Tell whether the product is held; if so, the release is awaited from now on."""
        try:
            check_not_held(table, self._product)
        except Held as error:
            self.awaited = True
            if time.monotonic() >= self._tell_s:
                self._tell_s = time.monotonic() + HELD_TELL_S
                self._patience.report(error)
            return True
        return False

    def came(self) -> bool:
        """Tell whether the release has come that was awaited; the table is looked at once a second at most.

        Raises:
            Unavailable: if catalog or storage does not answer.
            NotApplied: if the table is gone.
        """
        if not self.awaited or time.monotonic() < self._look_s:
            return False
        self._look_s = time.monotonic() + HELD_S
        if self.needed(load_table(self._catalog, self._product)):
            return False
        self.awaited = False
        self._patience.recovered()
        return True
