"""The first two snapshots of a replay's branch: main as it is, then main without the rows that are built anew.

Two, because the second takes as long as files have to be rewritten, and until a snapshot names the branch, others may
expire what it begins at. Files whose rows all stay are shared with main, those whose rows all go are left out, and the
others are read one after another and written without these rows.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _read_all_delete_files
from pyiceberg.types import IntegerType, LongType

from headrace.schemas.errors import Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.files import Written, columns_of, write_rows
from headrace.sinks.replay.boundary import BRANCH, NOTE_KEY, Extent, Fate, head_of, note_of
from headrace.sinks.replay.plan import anew
from headrace.streams import projection  # noqa: F401 - mends what scans read
from headrace.streams.history import read_ledger
from headrace.streams.past import reading_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

    from headrace.schemas.product import Product
    from headrace.sinks.replay.boundary import Boundary, Longs, Note

# What identifies a row.
_KINDS = {"_generation": IntegerType(), "_kafka_partition": IntegerType(), "_kafka_offset": LongType()}
PLACE = tuple(_KINDS)
# A file of at most so many rows is written at a time, from at most so many bytes.
_ROWS = 500_000
_BYTES = 256 << 20


def begin_branch(catalog: Catalog, product: Product, plan: Note) -> None:
    """Make the branch at main's head, with a note. Nothing happens where there is one of the same replay.

    Raises:
        Unavailable: another replay has begun, main was rolled back behind the beginning, or something does not answer.
        ProductStopped: the ledger cannot be read, or the table is damaged.
    """
    boundary = plan.boundary

    def decide(table: Table) -> Draft | None:
        metadata = table.metadata
        if BRANCH in metadata.refs:
            there = note_of(metadata)
            if there is None or (there.begin, there.boundary) != (plan.begin, boundary):
                raise _moved(product, "another replay has begun")
            return None
        head, ledger = metadata.current_snapshot_id, read_ledger(table, product)
        if head is None or ledger is None or ledger.generation != boundary.generation:
            raise _moved(product, "the table follows another topic now")
        if any(ledger.next(partition) < first for partition, first in boundary.offsets.items()):
            raise _moved(product, "the table was rolled back")
        note = replace(plan, base=head)
        return Draft(ledger.adding_nothing(), branch=BRANCH, base=head, notes={NOTE_KEY: note.to_json()})

    land(catalog, product, decide)


def _moved(product: Product, what: str) -> Unavailable:
    return Unavailable(f"{what} since this was planned", where=f"table {product.name}", hint="run it again")


def cut_branch(catalog: Catalog, product: Product, tell: Callable[[str], None]) -> None:
    """Take the rows that are built anew out of the branch. Nothing happens where that was done.

    Raises:
        Unavailable: the branch is gone, or something does not answer; it can be done again.
        ProductStopped: a file is damaged, or the ledger cannot be read.
    """
    cutting = Cutting(product, tell)
    land(catalog, product, cutting.draft)


class Cutting:
    """What a branch's second snapshot changes; files are written once for as long as they fit the table.

    Args:
        product: the product.
        tell: is told how far it is.
    """

    def __init__(self, product: Product, tell: Callable[[str], None]) -> None:
        self._product = product
        self._tell = tell
        self._written: Written | None = None
        self._head: int | None = None
        self._removed: tuple[DataFile, ...] = ()
        self._last_rows: Mapping[int, int] = {}

    def draft(self, table: Table) -> Draft | None:
        """Return what is to be committed on a freshly loaded handle; None: it was done before."""
        note = note_of(table.metadata)
        if note is None:
            raise gone(self._product)
        if note.cut:
            return None
        ledger = read_ledger(table, self._product, BRANCH)
        if ledger is None:
            raise gone(self._product)
        # Another replay may have begun in the place of this one.
        if self._written is None or self._head != head_of(table.metadata) or not self._written.fits(table):
            self._rewrite(table, note.boundary)
        after = note.boundary.ledger(ledger, self._last_rows)
        return Draft(
            after,
            self._written.files if self._written else (),
            branch=BRANCH,
            removed=self._removed,
            notes={NOTE_KEY: replace(note, cut=True).to_json()},
        )

    def _rewrite(self, table: Table, boundary: Boundary) -> None:
        began_s = time.time()
        with reading_errors(self._product):
            tasks = list(table.scan(snapshot_id=head_of(table.metadata)).plan_files())
            fates = [(task, boundary.fate(_extent(table, task.file))) for task in tasks]
            split = [task for task, fate in fates if fate is Fate.SPLITS]
            files: list[DataFile] = []
            removed = [task.file for task, fate in fates if fate is Fate.GOES]
            for number, task in enumerate(split, start=1):
                self._tell(f"{self._product.name}: looking through data file {number:,} of {len(split):,}")
                made, whole = self._without(table, task, boundary)
                if not whole:
                    files += made
                    removed.append(task.file)
            self._last_rows = last_rows_that_stay(table, head_of(table.metadata), boundary)
        self._written, self._removed = Written.for_(table, tuple(files), began_s), tuple(removed)
        self._head = head_of(table.metadata)

    def _without(self, table: Table, task: FileScanTask, boundary: Boundary) -> tuple[list[DataFile], bool]:
        """Return new files with a file's rows that stay, and whether all of them do (then there is no new file)."""
        if all(stays.all() for _, stays in _judged(table, task, boundary, PLACE)):
            return [], True
        kept = (rows.filter(pa.array(stays)) for rows, stays in _judged(table, task, boundary))
        made = [write_rows(table, part, self._product) for part in _gathered(kept)]
        return [file for written in made for file in written.files], False


def gone(product: Product) -> Unavailable:
    """Return the error of a replay whose branch somebody has removed."""
    return Unavailable(
        f"somebody has removed the branch {BRANCH} or put another one in its place; main was not changed",
        where=f"table {product.name}",
        hint=anew(product),
    )


def last_rows_that_stay(table: Table, snapshot_id: int | None, boundary: Boundary) -> Mapping[int, int]:
    """Return, by partition, the highest offset of the generation's rows below the boundary. Reads three columns."""
    highest: dict[int, int] = {}
    end = max(boundary.offsets.values(), default=0)
    wanted = f"_generation = {boundary.generation} and _kafka_offset < {end}"
    scan = table.scan(wanted, selected_fields=PLACE, snapshot_id=snapshot_id)
    for batch in scan.to_arrow_batch_reader():
        generations, partitions, offsets = _places(batch)
        stays = ~boundary.goes(generations, partitions, offsets)
        for partition in np.unique(partitions[stays]).tolist():
            last = int(offsets[stays & (partitions == partition)].max())
            highest[partition] = max(last, highest.get(partition, last))
    return highest


def rows_that_stay(table: Table, snapshot_id: int | None, boundary: Boundary) -> int:
    """Return how many rows of a snapshot are not built anew. Reads three columns of files whose bounds do not tell."""
    found = 0
    for task in table.scan(snapshot_id=snapshot_id).plan_files():
        fate = boundary.fate(_extent(table, task.file))
        if fate is Fate.STAYS and not task.delete_files:
            found += task.file.record_count
        elif fate is not Fate.GOES:
            found += sum(int(stays.sum()) for _, stays in _judged(table, task, boundary, PLACE))
    return found


def _judged(
    table: Table, task: FileScanTask, boundary: Boundary, names: Iterable[str] = ()
) -> Iterator[tuple[pa.Table, np.ndarray[tuple[int], np.dtype[np.bool_]]]]:
    """Yield a file's rows in the table's columns, or in some of them, and which of them stay."""
    names = tuple(names)
    schema = table.schema().select(*names) if names else table.schema()
    columns = columns_of(table)
    wanted = pa.schema([columns.field(field.name) for field in schema.fields])
    scan = ArrowScan(table.metadata, table.io, schema, AlwaysTrue())
    # The scan's public way holds a whole file.
    deletes = _read_all_delete_files(table.io, [task])
    for batch in scan._record_batches_from_scan_tasks_and_deletes([task], deletes):  # noqa: SLF001
        yield pa.Table.from_batches([batch]).cast(wanted), ~boundary.goes(*_places(batch))


def _gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    kept: list[pa.Table] = []
    rows = size_bytes = 0
    for part in parts:
        kept.append(part)
        rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
        if rows >= _ROWS or size_bytes >= _BYTES:
            yield pa.concat_tables(kept)
            kept, rows, size_bytes = [], 0, 0
    if rows:
        yield pa.concat_tables(kept)


def _places(batch: pa.RecordBatch) -> tuple[Longs, Longs, Longs]:
    generations, partitions, offsets = (batch.column(name).to_numpy(zero_copy_only=False) for name in PLACE)
    return generations, partitions, offsets


def _extent(table: Table, file: DataFile) -> Extent | None:
    """Return a file's bounds; None: another engine has written it without."""
    found = []
    for name in PLACE:
        column, kind = table.schema().find_field(name), _KINDS[name]
        low, high = ((bounds or {}).get(column.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
        if low is None or high is None:
            return None
        found.append((int(from_bytes(kind, low)), int(from_bytes(kind, high))))
    return Extent(*found)
