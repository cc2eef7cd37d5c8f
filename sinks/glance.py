"""A glance at the table while a session has nothing to land: somebody may have taken the table back meanwhile.

A batch finds that out when it lands. A topic that rests has none for hours, and what its table has lost would not be
read again until then. The glance is taken in the pipeline's thread, so that nobody waits for a catalog.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import HeadraceError
from headrace.sinks.commit import check_fence
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from headrace.sinks.landing import Desk

__all__ = ["Glance"]

# How often a session that rests looks. Reading a table's metadata takes some 10 ms.
GLANCE_S = 30.0


class Glance:
    """Looks whether the table still is where a session believes it to be. Not for several threads.

    Args:
        desk: the catalog, the product and the branch.
        submit: has something done in the pipeline's thread.
    """

    def __init__(self, desk: Desk, submit: Callable[[Callable[[], Ledger | None]], Future[Ledger | None]]) -> None:
        self._desk = desk
        self._submit = submit
        self._next_s = time.monotonic() + GLANCE_S
        self._looking: tuple[Mapping[int, int], Future[Ledger | None]] | None = None

    def at(self, positions: Mapping[int, int], base: Ledger) -> None:
        """Look, now and then, while nothing is read or lands.

        Args:
            positions: the session's positions: all before them has landed.
            base: the ledger that the session began with.

        Raises:
            Stale: the table is elsewhere: a new session starts from its ledger.
        """
        if self._looking is None:
            if time.monotonic() >= self._next_s:
                self._looking = dict(positions), self._submit(self._ledger)
            return
        seen, look = self._looking
        if not look.done():
            return
        self._looking, self._next_s = None, time.monotonic() + GLANCE_S
        ledger = look.result()
        # Whatever has landed or was assigned since, the look may not have seen.
        if ledger is not None and seen == positions:
            check_fence(ledger, base, {p: Range(at, at) for p, at in seen.items()}, where=str(self._desk.product.name))

    def _ledger(self) -> Ledger | None:
        """Return the ledger; None: there is none, or what is wrong with it is told when the next batch lands."""
        product = self._desk.product
        try:
            return read_ledger(load_table(self._desk.catalog, product), product, self._desk.branch)
        except HeadraceError:
            return None
