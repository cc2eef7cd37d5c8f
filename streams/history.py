"""Reading the ledger out of a table: the walk through its snapshots, and the property where the walk falls off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.schemas.catalog import catalog_errors
from headrace.streams.ledger import PROPERTY_KEY, Ledger, Walk, trusted_property, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.product import Product


def read_ledger(table: Table, product: Product) -> Ledger | None:
    """Return what the table holds of its topic; None: nothing was ever committed.

    Raises:
        ProductStopped: if the history was expired by others and the table's property contradicts its rows.
        Unavailable: if storage does not answer.
    """
    metadata = table.metadata
    found = walk(metadata.current_snapshot(), metadata.snapshot_by_id)
    if metadata.current_snapshot() is None and metadata.next_sequence_number() > 1:
        # Somebody has removed the branch: the table is not new, and its rows are not there to be seen.
        found = Walk(None, whole=False)
    if found.ledger is not None or found.whole:
        return found.ledger
    with catalog_errors(f"table {product.name}"):
        rows = last_rows(table)
    return trusted_property(metadata.properties.get(PROPERTY_KEY), rows)


def last_rows(table: Table) -> Mapping[int, int]:
    """Return the highest offset by partition of the rows of the highest generation. Reads three columns of all rows."""
    columns = ("_generation", "_kafka_partition", "_kafka_offset")
    highest: dict[tuple[int, int], int] = {}
    for batch in table.scan(selected_fields=columns).to_arrow_batch_reader():
        grouped = pa.table(batch).group_by(["_generation", "_kafka_partition"]).aggregate([("_kafka_offset", "max")])
        for row in grouped.to_pylist():
            place = (row["_generation"], row["_kafka_partition"])
            highest[place] = max(highest.get(place, -1), row["_kafka_offset_max"])
    newest = max((generation for generation, _ in highest), default=0)
    return {partition: offset for (generation, partition), offset in highest.items() if generation == newest}
