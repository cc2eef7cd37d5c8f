"""Rows of a product's table as events: in the order of their offsets, a window at a time, never the whole table.

Data files are read with pyiceberg's `ArrowScan` (contract tests hold what is relied on): it honours position deletes
and evolved schemas, and its public callers read a whole table or no order at all.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import ResolveError
from pyiceberg.expressions import parser
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.types import LongType

from headrace.schemas.catalog import catalog_errors
from headrace.schemas.errors import ProductStopped
from headrace.streams import projection  # noqa: F401 - mends what scans read
from headrace.streams.portions import OFFSET, PARTITION, PLACE_NAMES, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import FileScanTask, Table

    from headrace.schemas.product import Product

# What a window holds at most: so many rows that a scan of row groups pays, so little that memory sorts it
# (a column of texts ends at 2 GiB). A file says only how many bytes its rows take compressed, so a scan that finds more
# gives up, and a smaller one follows.
WINDOW_ROWS = 500_000
WINDOW_BYTES = 256 << 20

Floats: TypeAlias = "NDArray[np.float64] | NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class Extent:
    """What a data file says of itself: its lowest and highest offset, and how many rows it has."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True, slots=True)
class Past:
    """The rows of a table's snapshot.

    Attributes:
        table: the table as it was loaded, once: all windows are read from the same snapshot.
        product: its product.
        names: the event's columns to read, as the table calls them; those that it does not have are left out.
    """

    table: Table
    product: Product
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
        with reading_errors(self.product):
            planned = self.table.scan(row_filter=self._filter(first, end, spans), snapshot_id=snapshot.snapshot_id)
            tasks = [(task, self._extent(task, first, end)) for task in planned.plan_files()]
        axis = Axis.of([extent for _, extent in tasks], first, end)
        low, most, rows = axis.low, axis.end, WINDOW_ROWS
        while low < axis.end:
            high = min(axis.after(low, rows), most)
            reached = {p: Span(max(span.first, low), min(span.end, high)) for p, span in spans.items()}
            if not any(span.first < span.end for span in reached.values()):
                low, most = high, axis.end
                continue
            chosen = [task for task, extent in tasks if extent.low < high and extent.high >= low]
            with reading_errors(self.product):
                scan = self._scan(low, high, reached)
                window = scan.window(chosen)
            rows = scan.fitting_rows
            if window is None:
                most = (low + high) // 2
                continue
            yield from _by_partition(window, reached)
            low, most = high, axis.end

    def _scan(self, low: int, high: int, spans: Mapping[int, Span]) -> _BoundedScan:
        table = self.table
        wanted = [name for name in table.schema().column_names if name in self.names or name in PLACE_NAMES]
        scan = _BoundedScan(table.metadata, table.io, table.schema().select(*wanted), self._filter(low, high, spans))
        if high - low == 1:
            # Nothing smaller can be read.
            scan.limit_bytes = None
        return scan

    def _filter(self, low: int, high: int, spans: Mapping[int, Span]) -> BooleanExpression:
        partitions = ", ".join(str(partition) for partition, span in spans.items() if span.first < span.end)
        offsets = f"{OFFSET} >= {low} AND {OFFSET} < {high}"
        return parser.parse(f"{offsets} AND {PARTITION} IN ({partitions})")

    def _extent(self, task: FileScanTask, first: int, end: int) -> Extent:
        field_id = self.table.schema().find_field(OFFSET).field_id
        lower = (task.file.lower_bounds or {}).get(field_id)
        upper = (task.file.upper_bounds or {}).get(field_id)
        if lower is None or upper is None:
            # Another engine wrote the file without statistics.
            return Extent(first, end - 1, task.file.record_count)
        return Extent(int(from_bytes(LongType(), lower)), int(from_bytes(LongType(), upper)), task.file.record_count)


@contextmanager
def reading_errors(product: Product) -> Iterator[None]:
    """Map what reading a table's data files raises to headrace's tree.

    Raises:
        Unavailable: storage does not answer, or files are gone.
        ProductStopped: a file is damaged.
    """
    where = f"table {product.name}"
    with catalog_errors(where):
        try:
            yield
        except (ValueError, pa.ArrowTypeError, pa.ArrowNotImplementedError, ResolveError) as error:
            # Arrow's texts may show values. A ValueError is also what a file without field ids gives.
            raise ProductStopped(
                f"a data file cannot be read ({type(error).__name__})",
                where=where,
                hint="restore it, or roll the table back",
            ) from None


@dataclass(frozen=True, slots=True)
class Axis:
    """How rows lie along the offsets. A file's rows are taken to be spread evenly over its offsets. Pure.

    Attributes:
        low: the first offset that a file may hold.
        end: the offset behind the last one.
        edges: offsets between which the density does not change, ascending.
        held: how many rows lie before each of them.
    """

    low: int
    end: int
    edges: Floats
    held: Floats

    @classmethod
    def of(cls, extents: Sequence[Extent], first: int, end: int) -> Axis:
        """Return the axis of files, from ``first`` to below ``end``; an empty one where no file has any rows."""
        inside = [extent for extent in extents if extent.low < end and extent.high >= first]
        if not inside:
            return cls(first, first, np.zeros(1), np.zeros(1))
        lows = np.array([max(extent.low, first) for extent in inside])
        ends = np.array([min(extent.high + 1, end) for extent in inside])
        density = np.array([extent.rows / (extent.high + 1 - extent.low) for extent in inside])
        edges = np.unique(np.concatenate([lows, ends]))
        change = np.zeros(len(edges))
        np.add.at(change, edges.searchsorted(lows), density)
        np.add.at(change, edges.searchsorted(ends), -density)
        held = np.concatenate([[0.0], np.cumsum(np.cumsum(change)[:-1] * np.diff(edges))])
        return cls(int(edges[0]), int(edges[-1]), edges, held)

    def after(self, low: int, rows: int) -> int:
        """Return the offset that lies about so many rows behind another one: above it, and at most ``end``."""
        reached = np.interp(low, self.edges, self.held) + rows
        if reached >= self.held[-1]:
            return self.end
        return min(max(int(np.interp(reached, self.held, self.edges)), low + 1), self.end)


class _TooLarge(Exception):
    """A window holds more than it may."""


class _BoundedScan(ArrowScan):
    """A scan that gives up when it has found more than ``limit_bytes``; a file's row group is read as a whole."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.limit_bytes: int | None = WINDOW_BYTES
        self._counting = Lock()
        self._rows = 0
        self._bytes = 0

    @property
    def fitting_rows(self) -> int:
        """How many rows like those found fill half a window."""
        if not self._bytes:
            return WINDOW_ROWS
        return max(1, min(WINDOW_ROWS, WINDOW_BYTES // 2 * self._rows // self._bytes))

    def window(self, tasks: Sequence[FileScanTask]) -> pa.Table | None:
        """Return the rows; None if they are too many."""
        try:
            return self.to_table(tasks)
        except _TooLarge:
            return None

    def _record_batches_from_scan_tasks_and_deletes(self, *given: Any) -> Iterator[pa.RecordBatch]:
        for batch in super()._record_batches_from_scan_tasks_and_deletes(*given):
            # Several threads read files, and each counts.
            with self._counting:
                self._rows += len(batch)
                self._bytes += batch.nbytes
                if self.limit_bytes is not None and self._bytes > self.limit_bytes:
                    raise _TooLarge
            yield batch


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
