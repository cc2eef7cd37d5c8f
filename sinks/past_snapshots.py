"""The states that a table's main branch has had and that the table still keeps: what an operator may go back to. Pure.

A snapshot of another branch is none of them: it may hold half a table, or rows that nobody was meant to see yet. One
that was main's head counts, whether or not main was rolled back from it since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import ProductStopped, UserError
from headrace.streams.ledger import BEGINNING_KEY, BRANCH_KEY, REDRIVE_KEY, SUMMARY_KEY
from headrace.streams.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from headrace.schemas.product import Product
    from headrace.streams.ledger import Ledger

# In the summary of a snapshot that took a table back to another one: which, and how.
ROLLBACK_KEY = "headrace.rollback"
# In the summary of a snapshot that put a replay's rows in the place of main's: where the replay began.
REPLAYED_KEY = "headrace.replayed"
_NOTES = {
    ROLLBACK_KEY: "rollback to {}",
    REPLAYED_KEY: "replay from {}",
    REDRIVE_KEY: "dead letters redriven",
}
# How other engines sign their snapshots, if they do.
_ENGINE = "engine-name"


@dataclass(frozen=True, slots=True)
class PastSnapshot:
    """A state that main has had.

    Attributes:
        snapshot_id: its id.
        committed_ms: when it was made, milliseconds since 1970 UTC.
        operation: Iceberg's word for what it did.
        added_rows: how many rows it added; None: its summary does not say.
        rows: how many rows the table had then; None: likewise.
        ledger: how far the table was; None: nothing was committed yet, or it is not known any more.
        known: whether that is known.
        standing: ``current``, ``main`` (one of those that led to it) or ``left`` (main was taken away from it).
        author: who made it.
    """

    snapshot_id: int
    committed_ms: int
    operation: str
    added_rows: int | None
    rows: int | None
    ledger: Ledger | None
    known: bool
    standing: str
    author: str


def past_snapshots(metadata: TableMetadata) -> Sequence[PastSnapshot]:
    """Return main's states, the newest first."""
    line = line_of(metadata)
    # Catalogs cut the log off where a snapshot was expired. What has a ledger and names no branch was made for main.
    mains = line | {entry.snapshot_id for entry in metadata.snapshot_log}
    mains.update(each.snapshot_id for each in metadata.snapshots if SUMMARY_KEY in said_by(each))
    found = [
        _past(snapshot, metadata, line)
        for snapshot in metadata.snapshots
        if snapshot.snapshot_id in mains and BRANCH_KEY not in said_by(snapshot)
    ]
    return sorted(found, key=lambda each: each.committed_ms, reverse=True)


def line_of(metadata: TableMetadata) -> set[int]:
    """Return what led to main's head, as far as the table still knows it.

    Parents tell it up to the first that was expired; behind that, the log does: what main was taken back from is none.
    """
    line: list[int] = []
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    for entry in metadata.snapshot_log:
        snapshot = by_id.get(entry.snapshot_id)
        back = entry.snapshot_id if entry.snapshot_id in line else _goes_on_from(snapshot, metadata)
        if back in line:
            del line[line.index(back) + 1 :]
        if snapshot is not None and entry.snapshot_id not in line:
            line.append(entry.snapshot_id)
    return {*line, *(each.snapshot_id for each in ancestors_of(metadata, metadata.current_snapshot_id))}


def _goes_on_from(snapshot: Snapshot | None, metadata: TableMetadata) -> int | None:
    """Return the state that a rollback or a replay went on from; None: it is neither, or that has been expired."""
    if snapshot is None or said_by(snapshot).keys().isdisjoint({ROLLBACK_KEY, REPLAYED_KEY}):
        return None
    # Between a replay's snapshot and what its branch began at lie the branch's own.
    chain = [each for each in ancestors_of(metadata, snapshot.parent_snapshot_id) if BRANCH_KEY not in said_by(each)]
    return chain[0].snapshot_id if chain else None


def ancestors_of(metadata: TableMetadata, snapshot_id: int | None) -> Iterator[Snapshot]:
    """Yield a snapshot and those that it came from, as far as the table still has them, the newest first."""
    while snapshot_id is not None:
        snapshot = metadata.snapshot_by_id(snapshot_id)
        if snapshot is None:
            return
        yield snapshot
        snapshot_id = snapshot.parent_snapshot_id


def said_by(snapshot: Snapshot) -> Mapping[str, str]:
    """Return what a snapshot's summary says."""
    return snapshot.summary.additional_properties if snapshot.summary else {}


def by_id(metadata: TableMetadata, snapshot_id: int, product: Product) -> PastSnapshot:
    """Return the state of a snapshot.

    Raises:
        UserError: if it never was main's, or the table does not keep it any more.
    """
    for past in past_snapshots(metadata):
        if past.snapshot_id == snapshot_id:
            return past
    raise _none(product, f"main has no snapshot {snapshot_id}, or it was expired")


def at_moment(metadata: TableMetadata, moment: datetime, product: Product) -> PastSnapshot:
    """Return the state that main had at a moment: the newest of those that are left from before it.

    Raises:
        UserError: if there is none.
    """
    wanted_ms = int(moment.timestamp() * 1_000)
    kept = {past.snapshot_id: past for past in past_snapshots(metadata)}
    # The log says when main came to a snapshot. Some catalogs cut it off where a snapshot was expired.
    became = [(entry.timestamp_ms, entry.snapshot_id) for entry in metadata.snapshot_log if entry.snapshot_id in kept]
    logged = {snapshot_id for _, snapshot_id in became}
    became += [(past.committed_ms, past.snapshot_id) for past in kept.values() if past.snapshot_id not in logged]
    before = [(at_ms, place, snapshot_id) for place, (at_ms, snapshot_id) in enumerate(became) if at_ms <= wanted_ms]
    if not before:
        raise _none(product, f"the table keeps no snapshot from {moment:%Y-%m-%d %H:%M:%S} UTC or before")
    return kept[max(before)[-1]]


def ledger_at(metadata: TableMetadata, snapshot_id: int) -> tuple[Ledger | None, bool]:
    """Return how far the table was at a snapshot (None: nothing was committed yet), and whether that is known.

    Raises:
        ProductStopped: if the ledger there cannot be read.
    """
    found = walk(metadata.snapshot_by_id(snapshot_id), metadata.snapshot_by_id)
    return found.ledger, found.ledger is not None or found.whole


def _past(snapshot: Snapshot, metadata: TableMetadata, line: set[int]) -> PastSnapshot:
    said = said_by(snapshot)
    try:
        ledger, known = ledger_at(metadata, snapshot.snapshot_id)
    except ProductStopped:
        ledger, known = None, False
    current = snapshot.snapshot_id == metadata.current_snapshot_id
    return PastSnapshot(
        snapshot_id=snapshot.snapshot_id,
        committed_ms=snapshot.timestamp_ms,
        operation=snapshot.summary.operation.value if snapshot.summary else "",
        added_rows=_number(said.get("added-records", "0" if snapshot.summary else None)),
        rows=_number(said.get("total-records")),
        ledger=ledger,
        known=known,
        standing="current" if current else "main" if snapshot.snapshot_id in line else "left",
        author=_author(said),
    )


def _author(said: Mapping[str, str]) -> str:
    for key, text in _NOTES.items():
        if key in said:
            return f"headrace: {text.format(said[key])}"
    if SUMMARY_KEY in said or BEGINNING_KEY in said:
        return "headrace"
    return said.get(_ENGINE, "another engine")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _none(product: Product, what: str) -> UserError:
    return UserError(
        what, where=f"table {product.name}", hint=f"`headrace snapshots {product.name}` lists what there is"
    )
