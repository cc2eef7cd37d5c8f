"""The end of a replay: its branch takes main's place, unless that would undo what somebody else has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.catalog import catalog_errors
from headrace.schemas.errors import Bug, ProductStopped, Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.past_snapshots import REPLAYED_KEY, ancestors_of
from headrace.sinks.replay.boundary import BRANCH, changes_since, harmless, head_of, note_of
from headrace.sinks.replay.cut import gone, rows_that_stay
from headrace.sinks.replay.plan import anew
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.ledger import Ledger


def swap(catalog: Catalog, product: Product, head: int | None) -> int:
    """Put the branch in main's place, if main's head is still the one given; return main's new snapshot.

    Raises:
        Unavailable: main or the branch has moved, or something does not answer: run the replay again.
        ProductStopped: the table is damaged.
    """

    def decide(table: Table) -> Draft:
        note, branch = note_of(table.metadata), head_of(table.metadata)
        if note is None or not note.cut:
            raise gone(product)
        main, built = read_ledger(table, product), read_ledger(table, product, BRANCH)
        if main is None or built is None or table.metadata.current_snapshot_id != head or not _holds(built, main):
            raise Unavailable(
                "main has moved although it was held, and nothing was changed",
                where=f"table {product.name}",
                hint="run the replay again: it goes on where it is",
            )
        return Draft(built.adding_nothing(), base=branch, retired=(BRANCH,), notes={REPLAYED_KEY: note.begin})

    landed = land(catalog, product, decide)
    if landed is None:
        raise Bug("a swap ended without a snapshot")
    return landed


def check_unchanged(table: Table, product: Product) -> None:
    """Check that nobody but sinks has changed main's rows since the branch began: a swap would undo it.

    Each of main's snapshots since is looked at. Where some have expired, so are all others that are left, and the rows
    that the replay leaves alone are counted, on main and on the branch.

    Raises:
        ProductStopped: somebody has.
        Unavailable: the branch is gone, or storage does not answer.
    """
    metadata, note = table.metadata, note_of(table.metadata)
    if note is None:
        raise gone(product)
    for snapshot in ancestors_of(metadata, metadata.current_snapshot_id):
        if snapshot.snapshot_id == note.base:
            return
        if not harmless(snapshot):
            raise _changed(product, f"by snapshot {snapshot.snapshot_id}")
    for snapshot in changes_since(metadata):
        raise _changed(product, f"by snapshot {snapshot.snapshot_id}")
    with catalog_errors(f"table {product.name}"):
        here = rows_that_stay(table, metadata.current_snapshot_id, note.boundary)
        there = rows_that_stay(table, head_of(table.metadata), note.boundary)
    if here != there:
        raise _changed(product, f"from {there:,} to {here:,} rows")


def _holds(built: Ledger, main: Ledger) -> bool:
    same = (built.topic_id, built.generation) == (main.topic_id, main.generation)
    return same and all(built.next(partition) >= at.next for partition, at in main.positions.items())


def _changed(product: Product, how: str) -> ProductStopped:
    return ProductStopped(
        f"the rows that the replay leaves alone were changed meanwhile ({how}), and it would undo that",
        where=f"table {product.name}",
        hint=anew(product),
    )
