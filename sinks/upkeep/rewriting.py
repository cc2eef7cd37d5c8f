"""Reading a bin of data files and writing its rows as one file, in the columns and the order that the table has now.

No value changes: rows are read by field id, as every reader of the table reads them, and written as they are. Masks are
not put on again, because they were before the first write.

Rows are streamed where they stay in their order. Where the table has a sort order a bin is in memory as a whole, and
twice while it is sorted: it is given up if it turns out too large, since a file tells only how large it is compressed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask

from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.sinks.files import ROW_GROUP_ROWS, columns_of, write_file
from headrace.streams import projection  # noqa: F401 - mends what scans read
from headrace.streams.past import reading_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.partitioning import Layout

# What a bin that is sorted may take in memory, decompressed, before it is sorted.
SORT_BYTES = 256 << 20
# And how much is gathered for a row group where nothing is sorted.
GATHERED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A bin that does not fit into memory: only so many rows of its kind would."""

    fitting_rows: int


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Rewrites files of a table as it was loaded.

    Attributes:
        table: the table.
        product: its product.
        layout: how rows are put into files.
        going_on: is asked before each batch of rows.
    """

    table: Table
    product: Product
    layout: Layout
    going_on: Callable[[], bool]

    def one_of(self, files: Sequence[DataFile]) -> DataFile | TooLarge:
        """Return a new data file with the rows of some, which are all of one partition of the table's own spec.

        Raises:
            Unavailable: if storage fails, files are gone, or it is not to go on.
            ProductStopped: if a file is damaged, or holds other rows than its manifest says.
        """
        with reading_errors(self.product):
            parts = self._batches(files)
            order_id = None
            if self.layout.order:
                rows = self._sorted(parts)
                if isinstance(rows, TooLarge):
                    return rows
                parts, order_id = iter([rows]), self.table.metadata.default_sort_order_id
            else:
                parts = _gathered(parts)
            made = write_file(self.table, parts, files[0].partition, order_id, self.product)
        expected = sum(file.record_count for file in files)
        if made.record_count != expected:
            raise ProductStopped(
                f"{len(files)} data files hold {made.record_count:,} rows, and their manifests say {expected:,}",
                where=f"table {self.product.name}",
                hint="they are left as they are; look who else writes to the table's storage",
            )
        return made

    def _batches(self, files: Iterable[DataFile]) -> Iterator[pa.Table]:
        """Yield the files' rows, in the table's columns."""
        schema = columns_of(self.table)
        scan = ArrowScan(self.table.metadata, self.table.io, self.table.schema(), AlwaysTrue())
        for file in files:
            # The scan's public way reads several files at once, and each as a whole.
            for batch in scan._record_batches_from_scan_tasks_and_deletes([FileScanTask(file)], {}):  # noqa: SLF001
                if not self.going_on():
                    raise Unavailable("upkeep was broken off", where=f"table {self.product.name}")
                yield pa.Table.from_batches([batch]).cast(schema)

    def _sorted(self, parts: Iterable[pa.Table]) -> pa.Table | TooLarge:
        kept: list[pa.Table] = []
        rows = size_bytes = 0
        for part in parts:
            kept.append(part)
            rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
            if size_bytes > SORT_BYTES:
                return TooLarge(rows * SORT_BYTES // size_bytes)
        # All rows are of one partition, so only the order is left of the layout.
        _, (part,) = replace(self.layout, partitions=()).split(pa.concat_tables(kept))
        return part.rows


def _gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield rows as large parts: row groups of many rows, but not more bytes than memory is for."""
    kept: list[pa.Table] = []
    rows = size_bytes = 0
    for part in parts:
        if kept and (rows + part.num_rows > ROW_GROUP_ROWS or size_bytes + part.nbytes > GATHERED_BYTES):
            yield pa.concat_tables(kept)
            kept, rows, size_bytes = [], 0, 0
        kept.append(part)
        rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
    if kept:
        yield pa.concat_tables(kept)
