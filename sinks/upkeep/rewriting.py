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

from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.sinks.files import ROW_GROUP_ROWS, columns_of, write_file
from headrace.sinks.upkeep.file_rows import FileRows
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
class Unfit:
    """A bin with a file that cannot be rewritten: its path, and why."""

    path: str
    why: ProductStopped


class _UnfitFile(Exception):
    """A file cannot be rewritten."""

    def __init__(self, unfit: Unfit) -> None:
        super().__init__(unfit.path)
        self.unfit = unfit


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

    def one_of(self, files: Sequence[DataFile]) -> DataFile | TooLarge | Unfit:
        """Return a new data file with the rows of some, which are all of one partition of the table's own spec.

        Raises:
            Unavailable: if storage fails, files are gone, or it is not to go on.
        """
        parts = self._batches(files)
        order_id = None
        try:
            if self.layout.order:
                rows = self._sorted(parts)
                if isinstance(rows, TooLarge):
                    return rows
                parts, order_id = iter([rows] if rows.num_rows else ()), self.table.metadata.default_sort_order_id
            else:
                parts = _gathered(parts)
            return write_file(self.table, parts, files[0].partition, order_id, self.product)
        except _UnfitFile as found:
            return found.unfit

    def _batches(self, files: Iterable[DataFile]) -> Iterator[pa.Table]:
        """Yield the files' rows, in the table's columns."""
        schema, reader = columns_of(self.table), FileRows(self.table)
        for file in files:
            rows = 0
            try:
                with reading_errors(self.product):
                    for batch in reader.of(file):
                        if not self.going_on():
                            raise Unavailable("upkeep was broken off", where=f"table {self.product.name}")
                        rows += batch.num_rows
                        yield pa.Table.from_batches([batch]).cast(schema)
            except ProductStopped as error:
                raise _UnfitFile(Unfit(file.file_path, error)) from None
            if rows != file.record_count:
                raise _UnfitFile(Unfit(file.file_path, self._miscounted(rows, file.record_count)))

    def _miscounted(self, rows: int, said: int) -> ProductStopped:
        return ProductStopped(
            f"a data file holds {rows:,} rows, and its manifest says {said:,}",
            where=f"table {self.product.name}",
            hint="it is left as it is; look who else writes to the table's storage",
        )

    def _sorted(self, parts: Iterable[pa.Table]) -> pa.Table | TooLarge:
        kept: list[pa.Table] = []
        rows = size_bytes = 0
        for part in parts:
            kept.append(part)
            rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
            if size_bytes > SORT_BYTES:
                return TooLarge(rows * SORT_BYTES // size_bytes)
        if not kept:
            return columns_of(self.table).empty_table()
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
