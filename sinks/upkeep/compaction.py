"""Compaction: small data files of a table become large ones, while sinks go on landing into it.

Which files, and how often at most, says `headrace.sinks.upkeep.small_files`; their rows are written anew by
`headrace.sinks.upkeep.rewriting`; both take as long as they take. The commit alone is done between two landings. It
changes no row and moves no position: a `replace` snapshot that carries the ledger as it is.

Each failure has one answer: what was written is given up, and the next run looks anew. Nothing is deleted, since the
outcome of a request may not be known; files that no snapshot names are swept when they are old enough.

*Somebody rewrites or deletes one of the files meanwhile, or rolls the table back behind it.* The commit is not made.
*Somebody adds deletes.* Likewise: deleted rows must not come back. Tables with deletes are left to those who made them.
*A sink lands meanwhile.* The branch's head has moved, so the request is refused, and staged again on the new head.
*The table changes its columns, its partitions or its masks, or is held.* The commit is not made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

import structlog
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestContent

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.files import Written
from headrace.sinks.hold import check_not_held
from headrace.sinks.partitioning import layout_of
from headrace.sinks.upkeep.rewriting import Rewriting, TooLarge, Unfit
from headrace.sinks.upkeep.small_files import LiveFile, chosen
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.schemas.upkeep import Compaction
    from headrace.sinks.partitioning import Layout
    from headrace.sinks.upkeep.small_files import Bin

# What a snapshot's summary says of who made it.
UPKEEP_NOTE = "headrace.upkeep"
# Why a table is left as it is.
KEEPS_DELETES = "another engine keeps deletes beside the table's files"
# A table that nobody has committed to for so long rests: its last few small files wait for no others.
RESTS_AFTER_S = 600.0
# How often a run chooses anew, because of what it has found out. The next run knows it too.
_MOST_CHOICES = 8
# How many runs an operator's command does at most.
_MOST_RUNS = 100

_LOG = structlog.get_logger("headrace.upkeep")


@dataclass(frozen=True, slots=True)
class Compacted:
    """A compaction that is in the table.

    Attributes:
        snapshot_id: the snapshot that made it.
        files: how many files were put together.
        into: how many they became.
        rows: how many rows they hold.
        bytes_before: the size of the files that were put together.
        bytes_after: the size of what they became.
    """

    snapshot_id: int
    files: int
    into: int
    rows: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Files that are written and not yet committed.

    Attributes:
        product: the product.
        written: the new files, and what they were written for.
        replaced: the files whose rows they hold.
    """

    product: Product
    written: Written
    replaced: tuple[DataFile, ...]

    def draft(self, table: Table) -> Draft:
        """Return what is to be committed on a freshly loaded handle.

        Raises:
            Held: an operator holds the product.
            Unavailable: the table is not what the files were written for; that the replaced files are all in it is
                checked when the draft is staged.
            ProductStopped: the ledger cannot be read.
        """
        check_not_held(table, self.product)
        where = f"table {self.product.name}"
        if not self.written.fits(table):
            raise Unavailable("the table has changed since its files were read", where=where, hint="it is looked anew")
        if has_deletes(table, self.product):
            raise Unavailable("rows were deleted since the files were read", where=where, hint="it is looked anew")
        ledger = read_ledger(table, self.product)
        if ledger is None:
            raise Unavailable("the table has no ledger any more", where=where, hint="it is looked anew")
        notes = {UPKEEP_NOTE: "compaction"}
        return Draft(ledger.adding_nothing(), self.written.files, replaced=self.replaced, notes=notes)

    def landed(self, snapshot_id: int) -> Compacted:
        """Return what has become of it."""
        return Compacted(
            snapshot_id,
            files=len(self.replaced),
            into=len(self.written.files),
            rows=sum(file.record_count for file in self.replaced),
            bytes_before=sum(file.file_size_in_bytes for file in self.replaced),
            bytes_after=sum(file.file_size_in_bytes for file in self.written.files),
        )


@dataclass(slots=True)
class Compactor:
    """Puts a product's small files together, one run after the other.

    Attributes:
        product: the product.
        aims: how large files become, and which are small.
        ended: is set when nobody waits for it any more: it then gives up at the next batch of rows.
    """

    product: Product
    aims: Compaction
    ended: Event = field(default_factory=Event)
    # How many rows fit into memory, once that has been found out; they are all of one kind.
    _most_rows: int | None = None
    # Files that cannot be rewritten: the others are not to wait for them.
    _unfit: set[str] = field(default_factory=set)
    # The metadata in which there was nothing to do, and whether the table rested: while that stays, so it is.
    _nothing_in: tuple[str, bool] | None = None

    def rewrite(self, table: Table) -> Rewritten | None:
        """Write the files of one run; None: there is nothing to do. Nothing is committed.

        A file that cannot be read is told of once, and left from then on.

        Raises:
            Unavailable: if storage fails, files are gone, or it was ended.
            ProductStopped: if a file is damaged, and there is nothing else to do.
        """
        layout, began_s = self._layout(table), time.time()
        state = table.metadata_location, _rests(table, began_s)
        if layout is None or state == self._nothing_in:
            return None
        rewriting = Rewriting(table, self.product, layout, lambda: not self.ended.is_set())
        why: ProductStopped | None = None
        for _ in range(_MOST_CHOICES):
            bins = self._bins(table, resting=state[1], sorts=bool(layout.order))
            made: list[DataFile] = []
            replaced: list[DataFile] = []
            for each, files in bins:
                match rewriting.one_of(files):
                    case TooLarge(fitting_rows=rows):
                        self._most_rows = min(rows, each.rows - 1, self._most_rows or each.rows)
                    case Unfit(path=path, why=why):
                        self._unfit.add(path)
                    case file:
                        made.append(file)
                        replaced += files
            if made:
                if why is not None:
                    _LOG.warning(
                        "a file is left as it is", product=str(self.product.name), what=why.what, next=why.hint
                    )
                return Rewritten(self.product, Written.for_(table, tuple(made), began_s), tuple(replaced))
            if not bins:
                self._nothing_in = state
                break
        if why is not None:
            raise why
        return None

    def _layout(self, table: Table) -> Layout | None:
        found = layout_of(table.metadata.spec().fields, table.metadata.sort_order(), table.schema())
        # What this version cannot write stops the product's sink anyway.
        return found[0] if found else None

    def _bins(self, table: Table, *, resting: bool, sorts: bool) -> list[tuple[Bin, list[DataFile]]]:
        small: dict[str, DataFile] = {}
        metadata = table.metadata
        with catalog_errors(f"table {self.product.name}"):
            bins = chosen(
                self._live(table, small),
                self.aims,
                spec_id=metadata.default_spec_id,
                head=metadata.next_sequence_number() - 1,
                resting=resting,
                most_rows=self._most_rows if sorts else None,
            )
        return [(each, [small[file.path] for file in each.files]) for each in bins]

    def _live(self, table: Table, small: dict[str, DataFile]) -> Iterator[LiveFile]:
        """Yield the data files of the table; those that may be chosen are kept in ``small``."""
        for manifest in _manifests(table):
            for entry in manifest.fetch_manifest_entry(table.io):
                file = entry.data_file
                if not _is_plain(file) or file.file_path in self._unfit:
                    continue
                if file.file_size_in_bytes < self.aims.small_bytes:
                    small[file.file_path] = file
                yield LiveFile(
                    file.file_path,
                    file.file_size_in_bytes,
                    file.record_count,
                    tuple(_told_apart(file.partition[place]) for place in range(len(file.partition))),
                    file.spec_id,
                    entry.sequence_number or 0,
                )


def _is_plain(file: DataFile) -> bool:
    """Tell whether a file's rows are read as headrace reads them: other formats and encrypted files are not."""
    plain = file.content is DataFileContent.DATA and file.file_format is FileFormat.PARQUET
    return plain and file.key_metadata is None


def _told_apart(value: Any) -> Any:
    """Return what equals another partition's value only if both are one: -0.0 is not 0.0 there, and NaN is NaN."""
    return str(value) if isinstance(value, float) else value


def _rests(table: Table, now_s: float) -> bool:
    head = table.metadata.current_snapshot()
    return head is not None and now_s - head.timestamp_ms / 1_000 >= RESTS_AFTER_S


def has_deletes(table: Table, product: Product) -> bool:
    """Tell whether another engine has deleted rows without writing their files anew.

    Raises:
        Unavailable: if storage does not answer.
        ProductStopped: if the table's metadata is damaged.
    """
    with catalog_errors(f"table {product.name}"):
        return any(
            manifest.content is ManifestContent.DELETES
            and (manifest.has_added_files() or manifest.has_existing_files())
            for manifest in _manifests(table)
        )


def _manifests(table: Table) -> list[ManifestFile]:
    snapshot = table.metadata.current_snapshot()
    return snapshot.manifests(table.io) if snapshot is not None else []


def compact_runs(catalog: Catalog, product: Product, aims: Compaction | None = None) -> Iterator[Compacted]:
    """Do run after run of compaction, as an operator asks for it, until there is nothing to do; yield each.

    Args:
        catalog: the catalog of the product's domain.
        product: the product.
        aims: how large files become; None: as its contract says.

    Raises:
        NotApplied: there is no table.
        Held: an operator holds the product.
        Unavailable: the table has changed meanwhile, or something does not answer: asking again looks anew.
        ProductStopped: a file is damaged, the ledger cannot be read, or another engine keeps deletes beside the files.
    """
    wanted = aims or product.contract.upkeep.compaction
    if wanted is None:
        return
    compactor = Compactor(product, wanted)
    # Each run leaves fewer files; only a sink that makes them as quickly would never let it end.
    for _ in range(_MOST_RUNS):
        table = load_table(catalog, product)
        check_not_held(table, product)
        if has_deletes(table, product):
            raise ProductStopped(
                KEEPS_DELETES,
                where=f"table {product.name}",
                hint="let that engine rewrite the files: they are left as they are here",
            )
        rewritten = compactor.rewrite(table)
        if rewritten is None:
            return
        snapshot_id = land(catalog, product, rewritten.draft)
        if snapshot_id is not None:
            yield rewritten.landed(snapshot_id)
