"""Holding a product: its sinks commit nothing to the table until an operator releases it.

A hold is a property of the table, and a snapshot without rows lands with it in the same commit. That snapshot moves the
branch's head, so a batch that a sink had staged before is refused by its own requirement on the head: once a hold has
been set, no row is committed that was not there. A property alone could not do that, because a commit's requirements
cannot name properties.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertTableUUID, RemovePropertiesUpdate, SetPropertiesUpdate

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.errors import Held, ProductStopped, Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableUpdate

    from headrace.schemas.product import Product

HOLD_PROPERTY = "headrace.hold"
# What a hold says when nobody said anything.
NO_REASON = "no reason given"
# A note for colleagues, not a document; some catalogs bound a request's size.
MAX_REASON_CHARACTERS = 500
# Each conflict means that somebody else changed the table meanwhile.
_REPEATS = 20


@dataclass(frozen=True, slots=True)
class Hold:
    """A product that is held.

    Attributes:
        reason: why, in the operator's words.
        since: since when; None: somebody has set the property by hand, and it does not say.
    """

    reason: str
    since: datetime | None

    def to_json(self) -> str:
        """Return what the table's property says."""
        since = self.since.astimezone(UTC).isoformat(timespec="seconds") if self.since else None
        return json.dumps({"reason": self.reason, "since": since}, ensure_ascii=False, separators=(",", ":"))

    def __str__(self) -> str:
        since = f" since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"held{since}: {self.reason}"


def hold_of(table: Table) -> Hold | None:
    """Return the table's hold; None: it is not held. A property that makes no sense is a hold all the same."""
    text = table.properties.get(HOLD_PROPERTY)
    if text is None:
        return None
    try:
        document = json.loads(text)
        since = None if document["since"] is None else datetime.fromisoformat(document["since"])
        if since is not None:
            # A year that this brings out of Python's is no time either.
            since = since.replace(tzinfo=since.tzinfo or UTC).astimezone(UTC)
        return Hold(_readable(str(document["reason"])), since)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Hold(_readable(text), None)


def _readable(reason: str) -> str:
    """Return a reason that UTF-8 can write, of bounded length; a command line may hold bytes that are no text."""
    return reason.encode("utf-8", "replace").decode().strip()[:MAX_REASON_CHARACTERS] or NO_REASON


def check_not_held(table: Table, product: Product) -> None:
    """Check that nobody holds the product.

    Raises:
        Held: with the reason.
    """
    found = hold_of(table)
    if found is not None:
        raise Held(
            str(found),
            where=f"table {product.name}",
            hint=f"it goes on by itself after `headrace release {product.name}`",
        )


def hold(catalog: Catalog, product: Product, reason: str, now: datetime) -> Hold | None:
    """Hold a product. When this returns, no sink commits rows to its table any more.

    Returns:
        The hold that was there before, which stays as it is; None: it was not held.

    Raises:
        Unavailable: it may or may not be held now: asking again finds out.
        NotApplied: there is no table.
        ProductStopped: the table is damaged.
    """
    before: Hold | None = None
    text = Hold(_readable(reason), now).to_json()

    def decide(table: Table) -> Draft | None:
        nonlocal before
        before = hold_of(table)
        if before is not None:
            return None
        try:
            ledger = read_ledger(table, product)
        except ProductStopped:
            # Its sink stands still anyway. A snapshot that says nothing of the ledger changes nothing about it.
            return Draft(None, properties={HOLD_PROPERTY: text})
        return Draft(
            ledger.adding_nothing() if ledger else None, properties={HOLD_PROPERTY: text}, beginning=ledger is None
        )

    if _without_branch(load_table(catalog, product)):
        # A snapshot would make a new branch, without the rows of the one that somebody has removed.
        return _change(catalog, product, SetPropertiesUpdate(updates={HOLD_PROPERTY: text}), held=True)
    land(catalog, product, decide)
    return before


def release(catalog: Catalog, product: Product) -> Hold | None:
    """Release a product; return the hold that was there, None: it was not held.

    Raises:
        Unavailable: it may or may not be released now: asking again finds out.
        NotApplied: there is no table.
        ProductStopped: the table is damaged.
    """
    return _change(catalog, product, RemovePropertiesUpdate(removals=[HOLD_PROPERTY]), held=False)


def _without_branch(table: Table) -> bool:
    return table.metadata.current_snapshot() is None and table.metadata.next_sequence_number() > 1


def _change(catalog: Catalog, product: Product, update: TableUpdate, *, held: bool) -> Hold | None:
    """Change the property alone until the table is held or is not; return the hold that was there first."""
    found: Hold | None = None
    doubt: Exception | None = None
    for attempt in range(_REPEATS):
        table = load_table(catalog, product)
        there = hold_of(table)
        found = there if attempt == 0 else found
        if (there is not None) is held:
            return found
        if doubt is not None and not isinstance(doubt, CommitFailedException):
            raise doubt
        try:
            with catalog_errors(f"table {product.name}"):
                catalog.commit_table(table, (AssertTableUUID(uuid=table.metadata.table_uuid),), (update,))
        except Exception as error:  # noqa: BLE001 - whatever was raised says nothing certain: the table is asked next
            doubt = error
        else:
            return found
    raise Unavailable("others change the table all the time", where=f"table {product.name}", hint="try again")
