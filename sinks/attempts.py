"""Attempts at one commit: however often it must be sent, it lands at most once, and its fate is looked up.

Whatever a request raises says nothing certain. Each attempt has a snapshot id that was known before it was sent, and a
requirement on the branch's head: so the table's history tells which attempt landed, and no two of them can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException

from headrace.schemas.catalog import catalog_errors, load_table, on_handle
from headrace.schemas.errors import Bug, HeadraceError, Unavailable
from headrace.sinks.commit import has_landed, stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.commit import Staged
    from headrace.sinks.draft import Draft

# Each conflict means that somebody else made progress, so a person's commit gets through before this many.
_REPEATS = 20


class Answer(Enum):
    """What is known right after an attempt was sent.

    LANDED: the reply is the table with its snapshot. REFUSED: the table had moved, so somebody else was quicker; but a
    request that was delivered twice is refused the second time, so the table is asked all the same. UNKNOWN: only the
    table can tell.
    """

    LANDED = auto()
    REFUSED = auto()
    UNKNOWN = auto()


@dataclass(slots=True)
class Attempts:
    """The attempts at one commit.

    Attributes:
        catalog: the catalog of the product's domain.
        product: the product.
        refused: how many of them were refused because the table had moved.
    """

    catalog: Catalog
    product: Product
    refused: int = 0
    _sent: list[int] = field(default_factory=list)
    _doubt: Exception | None = None

    def landed(self, table: Table) -> int | None:
        """Return the id of the snapshot of the attempt that is in the table's history; None: none is."""
        return next((snapshot_id for snapshot_id in self._sent if has_landed(table, snapshot_id)), None)

    def raise_doubt(self) -> None:
        """Raise what the last attempt raised, now that it is certain that it did not land; a conflict is no error.

        Raises:
            HeadraceError: what it raised.
            Bug: nobody foresaw it.
        """
        doubt, self._doubt = self._doubt, None
        if doubt is None or isinstance(doubt, CommitFailedException):
            return
        if isinstance(doubt, HeadraceError):
            raise doubt
        raise Bug(f"a commit failed in an unforeseen way ({type(doubt).__name__})") from doubt

    def stage(self, table: Table, draft: Draft) -> Staged:
        """Stage an attempt on a handle; see :func:`headrace.sinks.commit.stage`."""
        with on_handle(self.catalog, self.product, table):
            staged = stage(table, draft)
        self._sent.append(staged.snapshot_id)
        return staged

    def send(self, table: Table, staged: Staged) -> Answer:
        """Send an attempt. Whatever is raised is kept as a doubt: unless it is known to have landed, ask the table."""
        try:
            with catalog_errors(f"table {self.product.name}"):
                reply = self.catalog.commit_table(table, staged.requirements, staged.updates)
        except Exception as error:  # noqa: BLE001 - whatever was raised says nothing certain
            self._doubt = error = _judged(error)
            if isinstance(error, CommitFailedException):
                self.refused += 1
                return Answer.REFUSED
            return Answer.UNKNOWN
        return Answer.LANDED if has_landed(reply, staged.snapshot_id) else Answer.UNKNOWN


def _judged(error: Exception) -> Exception:
    """Return what an error is: of two commits to two branches the second has a sequence number that is taken."""
    taken = isinstance(error, ValueError) and "snapshot with sequence number" in str(error)
    return CommitFailedException("its sequence number is taken") if taken else error


def land(catalog: Catalog, product: Product, decide: Callable[[Table], Draft | None]) -> int | None:
    """Land a snapshot once, whatever happens to the requests; return its id.

    Args:
        catalog: the catalog of the product's domain.
        product: the product.
        decide: is asked on each freshly loaded handle, which the commit is bound to: what to land, None: nothing (any
            more). What it raises ends the matter.

    Raises:
        Unavailable: it may or may not have landed: asking again finds out.
        ProductStopped: the ledger is too large, or the table is damaged.
    """
    attempts = Attempts(catalog, product)
    for _ in range(_REPEATS):
        table = load_table(catalog, product)
        if (landed := attempts.landed(table)) is not None:
            return landed
        attempts.raise_doubt()
        draft = decide(table)
        if draft is None:
            return None
        staged = attempts.stage(table, draft)
        if attempts.send(table, staged) is Answer.LANDED:
            return staged.snapshot_id
    raise Unavailable("others commit to the table all the time", where=f"table {product.name}", hint="try again")
