"""Which places a table holds: scanned once, and not again for what sinks have appended behind them since.

A scan of a large table takes longer than a sink takes from one commit to the next. Whoever had to scan each new head
would never land anything beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.sinks.dead_letters.redriving import by_partition, places_in
from headrace.sinks.past_snapshots import ancestors_of, said_by
from headrace.streams.ledger import SUMMARY_KEY, Ledger
from headrace.streams.rows import rows_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from headrace.schemas.product import Product
    from headrace.sinks.dead_letters.redriving import Place
    from headrace.streams.frames import Longs


@dataclass(frozen=True, slots=True)
class _Scan:
    """What a scan found: the head that it read, the generation, which places were asked for, and which it held."""

    head: int | None
    generation: int
    asked: frozenset[Place]
    held: frozenset[Place]


@dataclass(slots=True)
class Holdings:
    """Tells which places a product's table holds, handle by handle, and remembers the last scan."""

    product: Product
    _scan: _Scan | None = None

    def among(self, places: frozenset[Place], table: Table, ledger: Ledger) -> frozenset[Place]:
        """Return those of these places that the handle's snapshot has a row of, of the ledger's generation.

        It is scanned, unless it differs from the one that was scanned last only by batches of sinks, all behind these
        places, as their ledgers say.

        Raises:
            Unavailable: if storage does not answer.
            ProductStopped: if files of the table are damaged.
        """
        asked = by_partition(places)
        if not self._serves(places, asked, table.metadata, ledger):
            held = places_in(rows_at(table, self.product, ledger.generation, asked))
            self._scan = _Scan(table.metadata.current_snapshot_id, ledger.generation, places, held)
        return places & self._scan.held if self._scan is not None else frozenset()

    def _serves(
        self, places: frozenset[Place], asked: Mapping[int, Longs], metadata: TableMetadata, ledger: Ledger
    ) -> bool:
        scan = self._scan
        if scan is None or scan.generation != ledger.generation or not places <= scan.asked:
            return False
        for snapshot in ancestors_of(metadata, metadata.current_snapshot_id):
            if snapshot.snapshot_id == scan.head:
                return True
            if not _is_behind(snapshot, asked, ledger):
                return False
        return False


def _is_behind(snapshot: Snapshot, asked: Mapping[int, Longs], ledger: Ledger) -> bool:
    """Tell whether a snapshot is a sink's batch that lies behind these offsets, or is of another generation."""
    text = said_by(snapshot).get(SUMMARY_KEY)
    if text is None or snapshot.summary is None or snapshot.summary.operation.value != "append":
        return False
    own = Ledger.from_json(text)
    if own.generation != ledger.generation:
        # A batch's rows are all of its own generation.
        return bool(own.added)
    same = (own.topic_id, own.generation) == (ledger.topic_id, ledger.generation)
    return (
        same
        and bool(own.added)
        and all(
            covered.start > int(asked[partition][-1]) for partition, covered in own.added.items() if partition in asked
        )
    )
