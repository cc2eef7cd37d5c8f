"""Which of some offsets a table holds: asked of the rows of one handle's snapshot, whatever its ledger says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.schemas.catalog import catalog_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.frames import Longs

# pyiceberg compares no longer list of values with the bounds of a file's columns.
_LIST_VALUES = 200
# A condition of its own for each partition skips more files; for very many of them it takes longer than it spares.
_PARTITIONS = 32


def rows_at(
    table: Table,
    product: Product,
    generation: int,
    offsets: Mapping[int, Longs],
    also: str = "",
) -> Mapping[int, Longs]:
    """Return those of these offsets, by partition, that the table has a row of. Reads three columns where they may be.

    Args:
        table: the table; the snapshot of this handle is read.
        product: the product.
        generation: the rows' generation.
        offsets: the offsets, by partition.
        also: what must hold of the rows besides, as pyiceberg writes conditions.

    Raises:
        Unavailable: if storage does not answer.
        ProductStopped: if files of the table are damaged.
    """
    asked = {partition: some for partition, some in offsets.items() if len(some)}
    if not asked:
        return {}
    wanted = f"_generation = {generation} and ({_at(asked)})" + (f" and {also}" if also else "")
    found: dict[int, list[Longs]] = {partition: [] for partition in asked}
    with catalog_errors(f"table {product.name}"):
        scan = table.scan(wanted, selected_fields=("_generation", "_kafka_partition", "_kafka_offset"))
        for batch in scan.to_arrow_batch_reader():
            columns = pa.table(batch)
            partitions, held = (columns[name].to_numpy() for name in ("_kafka_partition", "_kafka_offset"))
            for partition, some in asked.items():
                found[partition].append(np.intersect1d(held[partitions == partition], some))
    return {partition: np.unique(np.concatenate(parts)) for partition, parts in found.items() if parts}


def _at(asked: Mapping[int, Longs]) -> str:
    if len(asked) > _PARTITIONS:
        return _among(np.concatenate(list(asked.values())))
    return " or ".join(f"(_kafka_partition = {partition} and {_among(some)})" for partition, some in asked.items())


def _among(offsets: Longs) -> str:
    values = np.unique(offsets)
    if len(values) <= _LIST_VALUES:
        return f"_kafka_offset in ({', '.join(map(str, values.tolist()))})"
    return f"_kafka_offset >= {values[0]} and _kafka_offset <= {values[-1]}"
