"""What the keeper does: one kind of upkeep each, such as compaction or the deletion of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyiceberg.table import Table


class Task(Protocol):
    """One kind of upkeep of one table. The keeper calls both methods, in its own thread, one after the other."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    def due(self, now_s: float) -> bool:
        """Tell whether it is to be done now, on the keeper's monotonic clock. Asked now and then; quick."""
        ...

    def run(self, table: Table, /) -> None:
        """Do it.

        Args:
            table: the table, just loaded; nobody holds the product.

        Raises:
            HeadraceError: it is logged, and the task is asked again later, each time twice as late.
        """
        ...
