"""Rows of a product's table as events: in the order of their offsets, a window at a time, never the whole table.

The only module that reads data files with pyiceberg's `ArrowScan` (a contract test holds what is relied on): it honours
position deletes and evolved schemas, and its public callers read a whole table or no order at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import parser
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.types import LongType

from headrace.schemas.catalog import catalog_errors
from headrace.streams.portions import OFFSET, PARTITION, PLACE_NAMES, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import FileScanTask, Table

    from headrace.schemas.product import Product

# What a window holds: some hundred megabytes at most, and a scan of row groups pays.
WINDOW_ROWS = 500_000
GENERATION = "_generation"


@dataclass(frozen=True, slots=True)
class Extent:
    """What a data file says of itself: its lowest and highest offset, and how many rows it has."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True, slots=True)
class Past:
    """The rows of one generation in a table's snapshot.

    Attributes:
        table: the table as it was loaded, once: all windows are read from the same snapshot.
        product: its product.
        generation: the generation.
        names: the event's columns to read; those that the table does not have are left out.
    """

    table: Table
    product: Product
    generation: int
    names: Collection[str]

    def rows(self, spans: Mapping[int, Span]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows within the spans: partition, and a batch of its rows in the order of their offsets.

        A partition's batches come in order, other partitions' between them. Holds one window in memory.

        Raises:
            Unavailable: if storage does not answer, or files of the snapshot are gone: load the table anew.
            ProductStopped: if a file is damaged.
        """
        spans = {partition: span for partition, span in spans.items() if span.first < span.end}
        snapshot = self.table.current_snapshot()
        if snapshot is None or not spans:
            return
        first, end = min(span.first for span in spans.values()), max(span.end for span in spans.values())
        where = f"table {self.product.name}"
        with catalog_errors(where):
            scan = self.table.scan(row_filter=self._filter(first, end, spans), snapshot_id=snapshot.snapshot_id)
            tasks = [(task, self._extent(task, first, end)) for task in scan.plan_files()]
        for low, high in windows([extent for _, extent in tasks], first, end, WINDOW_ROWS):
            chosen = [task for task, extent in tasks if extent.low < high and extent.high >= low]
            reached = {p: Span(max(span.first, low), min(span.end, high)) for p, span in spans.items()}
            if not any(span.first < span.end for span in reached.values()):
                continue
            with catalog_errors(where):
                window = self._window(chosen, low, high, reached)
            yield from _by_partition(window, reached)

    def _window(self, tasks: Sequence[FileScanTask], low: int, high: int, spans: Mapping[int, Span]) -> pa.Table:
        wanted = [name for name in self.table.schema().column_names if name in self.names or name in PLACE_NAMES]
        scan = ArrowScan(
            self.table.metadata, self.table.io, self.table.schema().select(*wanted), self._filter(low, high, spans)
        )
        return scan.to_table(tasks)

    def _filter(self, low: int, high: int, spans: Mapping[int, Span]) -> BooleanExpression:
        partitions = ", ".join(str(partition) for partition, span in spans.items() if span.first < span.end)
        offsets = f"{OFFSET} >= {low} AND {OFFSET} < {high}"
        return parser.parse(f"{GENERATION} = {self.generation} AND {offsets} AND {PARTITION} IN ({partitions})")

    def _extent(self, task: FileScanTask, first: int, end: int) -> Extent:
        field_id = self.table.schema().find_field(OFFSET).field_id
        lower = (task.file.lower_bounds or {}).get(field_id)
        upper = (task.file.upper_bounds or {}).get(field_id)
        if lower is None or upper is None:
            # Another engine wrote the file without statistics.
            return Extent(first, end - 1, task.file.record_count)
        return Extent(int(from_bytes(LongType(), lower)), int(from_bytes(LongType(), upper)), task.file.record_count)


def earlier_generations(table: Table, product: Product, generation: int) -> Mapping[int, frozenset[int]]:
    """Return the partitions of the rows of earlier generations, by generation, ascending. Reads two columns."""
    if generation <= 1:
        return {}
    found: dict[int, set[int]] = {}
    with catalog_errors(f"table {product.name}"):
        scan = table.scan(f"{GENERATION} < {generation}", selected_fields=(GENERATION, PARTITION))
        for batch in scan.to_arrow_batch_reader():
            for row in pa.table(batch).group_by([GENERATION, PARTITION]).aggregate([]).to_pylist():
                found.setdefault(row[GENERATION], set()).add(row[PARTITION])
    return {each: frozenset(found[each]) for each in sorted(found)}


def windows(extents: Sequence[Extent], first: int, end: int, rows: int) -> Iterator[tuple[int, int]]:
    """Cut the offsets from ``first`` to below ``end`` into windows of about so many rows. Pure.

    A file's rows are taken to be spread evenly over its offsets. None where no file has any.
    """
    inside = [extent for extent in extents if extent.low < end and extent.high >= first]
    if not inside:
        return
    lows = np.array([max(extent.low, first) for extent in inside])
    ends = np.array([min(extent.high + 1, end) for extent in inside])
    density = np.array([extent.rows / (extent.high + 1 - extent.low) for extent in inside])
    edges = np.unique(np.concatenate([lows, ends]))
    change = np.zeros(len(edges))
    np.add.at(change, edges.searchsorted(lows), density)
    np.add.at(change, edges.searchsorted(ends), -density)
    held = np.concatenate([[0.0], np.cumsum(np.cumsum(change)[:-1] * np.diff(edges))])
    cuts = np.interp(np.arange(rows, held[-1], rows), held, edges).astype(np.int64)
    bounds = np.unique(np.concatenate([edges[:1], cuts, edges[-1:]])).tolist()
    yield from pairwise(bounds)


def _by_partition(window: pa.Table, spans: Mapping[int, Span]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield a window's rows by partition, each within its span and in the order of offsets."""
    for partition, span in sorted(spans.items()):
        if span.first >= span.end:
            continue
        mine = pc.and_(
            pc.equal(window.column(PARTITION), partition),
            pc.and_(pc.greater_equal(window.column(OFFSET), span.first), pc.less(window.column(OFFSET), span.end)),
        )
        rows = window.filter(mine)
        if not rows.num_rows:
            continue
        ordered = rows.take(pc.sort_indices(rows, sort_keys=[(OFFSET, "ascending")])).combine_chunks()
        yield from ((partition, batch) for batch in ordered.to_batches())
