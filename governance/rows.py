"""The auditor's own way to read a table, with DuckDB, as of one snapshot: all rows once, onto the local disk.

And the places of dead letters in the table that remembers them, which fit into memory.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.duck import Duck
from headrace.governance.marks import Marks
from headrace.governance.spill import Spill, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from pyiceberg.table import Table

    from headrace.governance.marks import Longs
    from headrace.schemas.names import ProductName

__all__ = ["entered_letters", "spilled"]

# DuckDB scans four narrow columns and keeps nothing: what it needs does not grow with the table. It must not keep
# files either, which would fill whatever memory it has.
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "1GB",
    "threads": 2,
    "enable_external_file_cache": False,
    "preserve_insertion_order": False,
}
_BATCH_ROWS = 131_072


@contextmanager
def spilled(table: Table, name: ProductName) -> Iterator[Spill]:
    """Read the marks of all rows of a table, as it was loaded; they are on the disk while the block lasts.

    Raises:
        Unavailable: if storage does not answer, or the local disk is full.
    """
    with disk_errors():
        place = tempfile.TemporaryDirectory(prefix="headrace-verify-")
    with place as folder:
        spill = Spill(Path(folder, "rows"))
        settings = {**_SETTINGS, "temp_directory": str(Path(folder, "duckdb"))}
        with Duck([name], lambda _: str(table.metadata_location), settings) as duck:
            duck.attach(name)
            answer = duck.query(
                "SELECT _generation, _kafka_partition, _kafka_offset, "  # noqa: S608
                # A product's name is letters, digits and underscores (names.PART).
                f"coalesce(epoch_ms(_kafka_timestamp), -1) FROM {name}",
                _BATCH_ROWS,
            )
            for batch in answer.batches if answer is not None else ():
                generations, partitions, offsets, stamps = (_longs(column) for column in batch.columns)
                spill.add(generations, partitions, Marks(offsets, stamps))
        yield spill


def entered_letters(table: Table, name: ProductName, topic_id: str) -> Mapping[int, Longs]:
    """Return the offsets of a topic's letters in a table of dead letters, by partition. Holds 8 bytes a letter.

    Raises:
        Unavailable: if storage does not answer.
    """
    found: defaultdict[int, list[Longs]] = defaultdict(list)
    with Duck([name], lambda _: str(table.metadata_location), _SETTINGS) as duck:
        duck.attach(name)
        answer = duck.query(
            # A name as above; Kafka's ids have neither quotes nor backslashes.
            f"SELECT _kafka_partition, _kafka_offset FROM {name} WHERE topic_id = '{topic_id}'",  # noqa: S608
            _BATCH_ROWS,
        )
        for batch in answer.batches if answer is not None else ():
            partitions, offsets = (_longs(column) for column in batch.columns)
            for partition in np.unique(partitions).tolist():
                found[partition].append(offsets[partitions == partition])
    return {partition: np.concatenate(parts) for partition, parts in found.items()}


def _longs(column: pa.Array) -> Longs:
    # A column that headrace requires cannot be null; what another engine has left so is of no event.
    values: Longs = column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return values
