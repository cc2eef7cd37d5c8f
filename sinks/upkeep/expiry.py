"""Expiring snapshots inside of an append's own commit.

Removed on its own, on a handle that is not fresh any more, snapshots take a branch with them that was rolled back to
one of them meanwhile. An append's commit requires that the branch's head still is the handle's, so removal is part of
it and stands nowhere else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType

from headrace.sinks.replay.boundary import changes_since
from headrace.sinks.upkeep.sightings import Sightings
from headrace.sinks.upkeep.tiers import History, Rank, Shot, expired_of
from headrace.streams.ledger import BEGINNING_KEY, BRANCH_KEY, SUMMARY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from headrace.schemas.upkeep import Upkeep

__all__ = ["Expiry", "history_of", "may_delete"]

# Iceberg's property that keeps all files of a table, and with them its snapshots: other tables share its files.
_GC_ENABLED = "gc.enabled"
# Write-audit-publish: what a staged snapshot says, and what the one says that published its files.
_STAGED, _PUBLISHED = "wap.id", "published-wap-id"


def may_delete(metadata: TableMetadata) -> bool:
    """Tell whether snapshots and files of this table may be removed: Iceberg's ``gc.enabled``, true by default."""
    return metadata.properties.get(_GC_ENABLED, "true").strip().lower() != "false"


class Expiry:
    """Says which snapshots the append's commit on a handle removes. Made once for a product, for all its sessions.

    Attributes:
        seen: what was in the table at each commit, for those who look after its files.
    """

    def __init__(self, upkeep: Upkeep, now_s: Callable[[], float] = time.time) -> None:
        """Keep the contract's settings; the time is in seconds since 1970 UTC."""
        self.seen = Sightings()
        self._tiers = upkeep.tiers
        self._now_s = now_s

    def __call__(self, table: Table) -> tuple[int, ...]:
        """Return the snapshots to remove, for a commit to `main` that is staged on this very handle."""
        metadata = table.metadata
        self.seen.see(metadata)
        if not self._tiers or not may_delete(metadata):
            return ()
        return expired_of(history_of(metadata), self._tiers, int(self._now_s() * 1_000))


def history_of(metadata: TableMetadata) -> History:
    """Return a table's snapshots, and what names them, for :mod:`headrace.sinks.upkeep.tiers`."""
    refs = metadata.refs.items()
    branches = {
        ref.snapshot_id for name, ref in refs if name != MAIN_BRANCH and ref.snapshot_ref_type is SnapshotRefType.BRANCH
    }
    named = {ref.snapshot_id for _, ref in refs} - branches
    # A replay asks them, before its branch takes the place of `main`, whether it would undo anything.
    named.update(each.snapshot_id for each in changes_since(metadata))
    # The log names what has been the head. Catalogs cut it off where a snapshot has expired, and so do the parents end:
    # but what carries a ledger and names no branch was made for `main`.
    mains = {entry.snapshot_id for entry in metadata.snapshot_log}
    mains.update(
        each.snapshot_id for each in metadata.snapshots if SUMMARY_KEY in _said(each) and BRANCH_KEY not in _said(each)
    )
    by_id = {each.snapshot_id: each for each in metadata.snapshots}
    snapshot = metadata.snapshot_by_name(MAIN_BRANCH)
    while snapshot is not None:
        mains.add(snapshot.snapshot_id)
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else by_id.get(parent)
    published = {_said(each).get(_PUBLISHED) for each in metadata.snapshots}
    shots = []
    for each in metadata.snapshots:
        waits = _said(each).get(_STAGED)
        staged = waits is not None and waits not in published and each.snapshot_id not in mains
        shots.append(_shot(each, staged=staged))
    return History(shots, branches, named, mains)


def _said(snapshot: Snapshot) -> Mapping[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _shot(snapshot: Snapshot, *, staged: bool) -> Shot:
    said = _said(snapshot)
    parent, sequence = snapshot.parent_snapshot_id, snapshot.sequence_number or 0
    rank = Rank.HALF if BRANCH_KEY in said else Rank.OWN if SUMMARY_KEY in said else Rank.FOREIGN
    ends = SUMMARY_KEY in said or BEGINNING_KEY in said or (parent is None and sequence == 1)
    return Shot(snapshot.snapshot_id, parent, sequence, snapshot.timestamp_ms, rank, ends, staged)
