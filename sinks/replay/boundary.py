"""Where a replay begins, and which rows it builds anew: those of the table's generation from there on. Pure.

A replay is built on a branch of its own. The branch's first snapshot notes what was asked for, so that a replay that
was broken off can go on; the second one leaves out the rows that are built anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from pyiceberg.table.refs import MAIN_BRANCH

from headrace.schemas.errors import ProductStopped
from headrace.sinks.past_snapshots import REPLAYED_KEY, ROLLBACK_KEY, ancestors_of, said_by
from headrace.streams.ledger import BRANCH_KEY, SUMMARY_KEY, Accepted, Ledger, Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

Longs: TypeAlias = npt.NDArray[np.int64]

BRANCH = "headrace-replay"
NOTE_KEY = "headrace.replay"
_NEVER = np.iinfo(np.int64).max


class Fate(Enum):
    """What becomes of a data file."""

    STAYS = auto()
    GOES = auto()
    SPLITS = auto()


@dataclass(frozen=True, slots=True)
class Extent:
    """The bounds of a data file's columns, both inclusive."""

    generations: tuple[int, int]
    partitions: tuple[int, int]
    offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a replay begins.

    Attributes:
        generation: the table's generation: rows of others stay.
        offsets: by partition, the first offset that is read again.
    """

    generation: int
    offsets: Mapping[int, int]

    def goes(self, generations: Longs, partitions: Longs, offsets: Longs) -> npt.NDArray[np.bool_]:
        """Tell, row by row, which are built anew. Those of a partition that is not read stay."""
        limits = np.full(len(partitions), _NEVER)
        for partition, first in self.offsets.items():
            limits[partitions == partition] = first
        goes: npt.NDArray[np.bool_] = (generations == self.generation) & (offsets >= limits)
        return goes

    def fate(self, extent: Extent | None) -> Fate:
        """Return what becomes of a file; None: its bounds are not known, so its rows are looked at."""
        if extent is None:
            return Fate.SPLITS
        low, high = extent.partitions
        read = [first for partition, first in self.offsets.items() if low <= partition <= high]
        generations = range(extent.generations[0], extent.generations[1] + 1)
        if self.generation not in generations or not read or extent.offsets[1] < min(read):
            return Fate.STAYS
        if len(generations) == 1 and len(read) == high - low + 1 and extent.offsets[0] >= max(read):
            return Fate.GOES
        return Fate.SPLITS

    def ledger(self, now: Ledger, last_rows: Mapping[int, int]) -> Ledger:
        """Return the ledger of a table without the rows that are built anew.

        What was accepted as lost from here on is read again, as far as Kafka has it.

        Args:
            now: the ledger of the table with these rows.
            last_rows: by partition, the highest offset of the rows that stay.
        """
        accepted = {
            partition: tuple(
                Accepted(gap.first, min(gap.end, self.offsets[partition]), gap.at_s)
                for gap in gaps
                if gap.first < self.offsets[partition]
            )
            for partition, gaps in now.accepted.items()
            if partition in self.offsets
        }
        moved = {partition: Position(first, last_rows.get(partition)) for partition, first in self.offsets.items()}
        return replace(
            now,
            # Partitions that came after the replay was planned: all their rows stay, so that none is read again.
            positions={**now.positions, **moved},
            added={},
            accepted={partition: gaps for partition, gaps in {**now.accepted, **accepted}.items() if gaps},
        )


@dataclass(frozen=True, slots=True)
class Note:
    """What the branch says of its replay.

    Attributes:
        begin: what was asked for: ``earliest``, a moment, or a snapshot's id.
        boundary: where it begins.
        base: main's snapshot that the branch began at.
        cut: whether the rows that are built anew have been left out.
    """

    begin: str
    boundary: Boundary
    base: int
    cut: bool = field(default=False)

    def to_json(self) -> str:
        """Return what the snapshot's summary says."""
        return json.dumps(
            {
                "from": self.begin,
                "generation": self.boundary.generation,
                "offsets": {str(p): offset for p, offset in sorted(self.boundary.offsets.items())},
                "base": self.base,
                "cut": self.cut,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Note | None:
        """Return the note; None: it makes no sense."""
        try:
            said = json.loads(text)
            offsets = {int(p): int(offset) for p, offset in said["offsets"].items()}
            return cls(
                str(said["from"]), Boundary(int(said["generation"]), offsets), int(said["base"]), bool(said["cut"])
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def head_of(metadata: TableMetadata) -> int | None:
    """Return the head of the replay's branch; None: there is no such branch."""
    branch = metadata.refs.get(BRANCH)
    return branch.snapshot_id if branch else None


def note_of(metadata: TableMetadata) -> Note | None:
    """Return what the table's replay branch says; None: there is no such branch, or it is none of a replay's.

    That there is a note proves that the branch goes on from it: each snapshot since was made on this branch.
    """
    for snapshot in ancestors_of(metadata, head_of(metadata)):
        said = said_by(snapshot)
        if said.get(BRANCH_KEY) != BRANCH:
            return None
        if NOTE_KEY in said:
            return Note.from_json(said[NOTE_KEY])
    return None


def changes_since(metadata: TableMetadata) -> Iterator[Snapshot]:
    """Yield snapshots that changed main's rows, other than a sink's, since the replay's branch began.

    None of them expires for as long as the branch is there (`headrace.sinks.upkeep.expiry`), so that it does not undo
    them when it takes main's place. Others' expiry may remove them all the same.
    """
    built = ancestors_of(metadata, head_of(metadata))
    began = [each.sequence_number or 0 for each in built if NOTE_KEY in said_by(each)]
    if not began:
        return
    mains = {each.snapshot_id for each in ancestors_of(metadata, metadata.current_snapshot_id)}
    heads = [ref.snapshot_id for name, ref in metadata.refs.items() if name != MAIN_BRANCH]
    others = {each.snapshot_id for head in heads for each in ancestors_of(metadata, head)} - mains
    for snapshot in metadata.snapshots:
        since = (snapshot.sequence_number or 0) > min(began) and snapshot.snapshot_id not in others
        if since and BRANCH_KEY not in said_by(snapshot) and not harmless(snapshot):
            yield snapshot


def harmless(snapshot: Snapshot) -> bool:
    """Tell whether a snapshot is a sink's, or changed no row."""
    said = said_by(snapshot)
    if ROLLBACK_KEY in said or REPLAYED_KEY in said or snapshot.summary is None:
        return False
    operation, text = snapshot.summary.operation.value, said.get(SUMMARY_KEY)
    if operation == "replace":
        return True
    try:
        reads = text is not None and bool(Ledger.from_json(text).added)
    except ProductStopped:
        reads = False
    return operation == "append" and (reads or said.get("added-records", "0") == "0")
