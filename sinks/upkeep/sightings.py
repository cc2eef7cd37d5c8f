"""The snapshots that a worker has seen in its table: what became of those that are gone, only memory can tell.

Whoever removed a snapshot, this worker, another one or another engine: what it needed must be known from before. A
process forgets when it dies; what it would have known, the sweep finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from pyiceberg.table.snapshots import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

__all__ = ["Gone", "Sightings"]

# Of a table that is committed to each second, those of an hour in which nobody could look.
_MOST = 4_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot as it was seen first.

    Attributes:
        manifest_list: its manifest list.
        parent_id: its parent's id.
        appends: it added files to its parent's and removed none.
        sequence: its sequence number.
    """

    manifest_list: str
    parent_id: int | None
    appends: bool
    sequence: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> Seen:
        """Return what is remembered of a snapshot."""
        appends = snapshot.summary is not None and snapshot.summary.operation is Operation.APPEND
        return cls(snapshot.manifest_list, snapshot.parent_snapshot_id, appends, snapshot.sequence_number or 0)

    def behind(self, parent: Seen) -> Seen:
        """Return it as if its parent had been left out: the child of its parent's parent."""
        return replace(self, parent_id=parent.parent_id, appends=self.appends and parent.appends)


@dataclass(frozen=True, slots=True)
class Gone:
    """A snapshot that the table does not have any more.

    Attributes:
        snapshot_id: its id.
        manifest_list: its manifest list.
        outlived: its data files are all in a snapshot that the table has.
    """

    snapshot_id: int
    manifest_list: str
    outlived: bool


class Sightings:
    """Remembers snapshots, and files of statistics. Made once for a product; threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: UUID | None = None
        self._seen: dict[int, Seen] = {}
        self._statistics: set[str] = set()

    def see(self, metadata: TableMetadata) -> None:
        """Remember a table's snapshots. Those of another table, of the same name, are forgotten."""
        with self._lock:
            if self._table != metadata.table_uuid:
                self._table, self._seen, self._statistics = metadata.table_uuid, {}, set()
            for snapshot in metadata.snapshots:
                if snapshot.snapshot_id not in self._seen:
                    self._seen[snapshot.snapshot_id] = Seen.of(snapshot)
            self._statistics |= statistics_of(metadata)
            for oldest in list(self._seen)[: max(len(self._seen) - _MOST, 0)]:
                del self._seen[oldest]

    def gone_from(self, metadata: TableMetadata) -> tuple[Gone, ...]:
        """Return the snapshots that were seen and that the table does not have any more, until they are forgotten.

        An append adds files and removes none (the specification's "Snapshots"): what it appended to lives on in it.
        What landed after the table was loaded is not gone: others may have seen a newer one.
        """
        there = {snapshot.snapshot_id for snapshot in metadata.snapshots}
        # Tables of format 1 count no sequence: their snapshots' numbers are all 0.
        newest = max(metadata.next_sequence_number() - 1, 0)
        outlived: set[int] = set()
        with self._lock:
            if self._table != metadata.table_uuid:
                return ()
            for snapshot_id in there:
                seen = self._seen.get(snapshot_id)
                while seen is not None and seen.appends and seen.parent_id is not None:
                    if seen.parent_id in there or seen.parent_id in outlived:
                        break
                    outlived.add(seen.parent_id)
                    seen = self._seen.get(seen.parent_id)
            return tuple(
                Gone(snapshot_id, seen.manifest_list, snapshot_id in outlived)
                for snapshot_id, seen in self._seen.items()
                if snapshot_id not in there and seen.sequence <= newest
            )

    def statistics_gone_from(self, metadata: TableMetadata) -> set[str]:
        """Return the files of statistics that were seen and that the table does not name any more."""
        with self._lock:
            return self._statistics - statistics_of(metadata) if self._table == metadata.table_uuid else set()

    def forget(self, gone: Iterable[Gone], statistics: Iterable[str] = ()) -> None:
        """Forget what has been taken care of. The others' descent from one another stays known."""
        with self._lock:
            left_out = {each.snapshot_id: self._seen.pop(each.snapshot_id, None) for each in gone}
            for snapshot_id, seen in self._seen.items():
                linked = seen
                while linked.parent_id is not None and (parent := left_out.get(linked.parent_id)) is not None:
                    linked = linked.behind(parent)
                self._seen[snapshot_id] = linked
            self._statistics.difference_update(statistics)


def statistics_of(metadata: TableMetadata) -> set[str]:
    """Return the files of statistics that a table names."""
    return {each.statistics_path for each in (*metadata.statistics, *metadata.partition_statistics)}
