"""The way to a table's ledger: back through its snapshots, or by its property where others have expired them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headrace.schemas.errors import DamagedLedger
from headrace.streams.ledger import BEGINNING_KEY, REPAIR_HINT, SUMMARY_KEY, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SnapshotLike", "Walk", "trusted_property", "walk"]


class SnapshotLike(Protocol):
    """What the walk needs of a snapshot."""

    @property
    def snapshot_id(self) -> int: ...  # noqa: D102
    @property
    def parent_snapshot_id(self) -> int | None: ...  # noqa: D102
    @property
    def sequence_number(self) -> int | None: ...  # noqa: D102
    @property
    def summary(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk through a table's history found.

    Attributes:
        ledger: the first ledger on the way; None: none.
        whole: whether the walk ended at the table's beginning. False: the history behind was expired by others, and
            the table's property must be asked.
        snapshot_id: the snapshot that carries the ledger.
    """

    ledger: Ledger | None
    whole: bool
    snapshot_id: int | None = None


def walk(head: SnapshotLike | None, by_id: Callable[[int], SnapshotLike | None]) -> Walk:
    """Walk from a branch's head through the parents to the first snapshot that carries a ledger.

    Snapshots of other engines (a compaction, a delete) carry none and are passed over. The beginning is a snapshot of
    sequence number 1 without a parent, because one whose parent was expired has no parent either; or one that says that
    there was no ledger before it.

    Raises:
        DamagedLedger, ProductStopped: as `Ledger.from_json`.
    """
    snapshot = head
    while snapshot is not None:
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        if (text := said.get(SUMMARY_KEY)) is not None:
            return Walk(Ledger.from_json(text), whole=True, snapshot_id=snapshot.snapshot_id)
        if BEGINNING_KEY in said:
            return Walk(None, whole=True)
        if snapshot.parent_snapshot_id is None:
            return Walk(None, whole=snapshot.sequence_number == 1)
        snapshot = by_id(snapshot.parent_snapshot_id)
        if snapshot is None:
            return Walk(None, whole=False)
    return Walk(None, whole=True)


def trusted_property(text: str | None, last_rows: Mapping[int, int], generation: int | None = None) -> Ledger:
    """Return the ledger of the table's property, which serves only if it agrees with the rows in the table.

    Args:
        text: the property.
        last_rows: the highest offset in the table by partition, of the highest generation that has rows.
        generation: that generation, where it is known: a ledger of a later one has no row yet.

    Raises:
        DamagedLedger: if there is no property or it contradicts the rows; both are shown.
        ProductStopped: as `Ledger.from_json`.
    """
    found = Ledger.from_json(text) if text is not None else None
    claimed = {p: at.last_row for p, at in found.positions.items() if at.last_row is not None} if found else {}
    if found is not None and generation is not None and found.generation > generation:
        last_rows = {}
    if found is None or claimed != dict(last_rows):
        raise DamagedLedger(
            f"the table's history was expired and its property does not agree with its rows: "
            f"property {_shown(claimed) if found else 'missing'}, rows {_shown(last_rows)}",
            hint=REPAIR_HINT,
        )
    return found


def _shown(offsets: Mapping[int, int]) -> str:
    return ", ".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items())) or "none"
