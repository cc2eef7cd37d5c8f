"""What operators have put on record in a table: which losses they accepted, and which topic the table follows.

The auditor does not trust the sink's ledger. It reads operators' records in it and nothing else: positions, which say
what the sink believes to have landed, are never looked at. A record excuses an event that is not in the table; it never
makes a row out of none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import DamagedLedger
from headrace.streams.ledger import PROPERTY_KEY
from headrace.streams.walk import trusted_property, walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.table import Table

    from headrace.streams.ledger import Accepted

__all__ = ["Record", "record_of"]


@dataclass(frozen=True, slots=True)
class Record:
    """An operator's record.

    Attributes:
        topic_id: Kafka's UUID of the topic that the table follows.
        generation: how many topics it has followed with this one.
        accepted: losses that were accepted, by partition.
    """

    topic_id: str
    generation: int
    accepted: Mapping[int, Sequence[Accepted]]


def record_of(table: Table, last_rows: Mapping[int, int], generation: int) -> Record | None:
    """Return what is on record; None: nothing, or the ledger is damaged, and then nothing is excused.

    Args:
        table: the table, as of the snapshot that is audited.
        last_rows: the highest offset in it by partition, of the highest generation, as the auditor has found it.
        generation: that generation; 1 if there is no row.

    Raises:
        ProductStopped: if a newer headrace wrote it.
    """
    metadata = table.metadata
    try:
        found = walk(metadata.current_snapshot(), metadata.snapshot_by_id)
        ledger = found.ledger
        if ledger is None and not found.whole:
            ledger = trusted_property(metadata.properties.get(PROPERTY_KEY), last_rows, generation)
    except DamagedLedger:
        return None
    return Record(ledger.topic_id, ledger.generation, ledger.accepted) if ledger else None
