"""Reading the ledger out of a table: the walk through its snapshots, and the property where the walk falls off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.table.refs import MAIN_BRANCH

from headrace.schemas.catalog import catalog_errors
from headrace.schemas.errors import DamagedLedger, ProductStopped
from headrace.streams.ledger import BRANCH_KEY, PROPERTY_KEY, SUMMARY_KEY, Ledger
from headrace.streams.walk import Walk, trusted_property, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.product import Product

# Sinks count a table's generations from here.
FIRST_GENERATION = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A table's ledger, and where it stands.

    Attributes:
        ledger: the ledger.
        snapshot_id: the snapshot that carries it; None: the history was expired by others, and the property serves.
        committed_ms: when that snapshot was made, milliseconds since 1970 UTC.
    """

    ledger: Ledger
    snapshot_id: int | None
    committed_ms: int | None


@dataclass(frozen=True, slots=True)
class LastRows:
    """The highest offset by partition of the rows of the highest generation; generation 1 if there is no row."""

    generation: int
    offsets: Mapping[int, int]


def read_ledger(table: Table, product: Product, branch: str = MAIN_BRANCH) -> Ledger | None:
    """Return what a branch of the table holds of its topic; None: nothing was ever committed.

    Raises:
        DamagedLedger: if it cannot be read, or if the history was expired by others and the table's property
            contradicts its rows.
        ProductStopped: if a newer headrace wrote it.
        Unavailable: if storage does not answer.
    """
    found = find_ledger(table, product, branch)
    return found.ledger if found else None


def find_ledger(table: Table, product: Product, branch: str = MAIN_BRANCH) -> Found | None:
    """Return a branch's ledger with the place where it stands; None: nothing was ever committed.

    Raises:
        DamagedLedger, ProductStopped, Unavailable: as `read_ledger`.
    """
    metadata = table.metadata
    try:
        head = metadata.snapshot_by_name(branch)
        found = walk(head, metadata.snapshot_by_id)
        if head is None and metadata.next_sequence_number() > 1:
            # Somebody has removed the branch: the table is not new, and its rows are not there to be seen.
            found = Walk(None, whole=False)
        if found.ledger is not None:
            snapshot = metadata.snapshot_by_id(found.snapshot_id) if found.snapshot_id is not None else None
            return Found(found.ledger, found.snapshot_id, snapshot.timestamp_ms if snapshot else None)
        if found.whole:
            return None
        if branch != MAIN_BRANCH:
            raise ProductStopped(
                f"its branch {branch} is gone, or others have expired its history",
                where=f"table {product.name}",
                hint="what was to be built on that branch must be begun anew",
            )
        rows = last_rows(table, product)
        ledger = trusted_property(metadata.properties.get(PROPERTY_KEY), rows.offsets, rows.generation)
    except DamagedLedger as error:
        name = product.name
        hint = (
            f"`headrace ledger show {name}` shows both sides, `headrace ledger repair {name}` makes one from the rows"
        )
        raise DamagedLedger(error.what, where=f"table {name}", hint=hint) from None
    return Found(ledger, None, None)


@dataclass(frozen=True, slots=True)
class Commit:
    """A snapshot that a sink's batch made; ``committed_ms`` is in milliseconds since 1970 UTC."""

    snapshot_id: int
    committed_ms: int


def last_commit(table: Table) -> Commit | None:
    """Return the newest commit of a batch: of a ledger that covers offsets, so neither a hold nor an accepted gap.

    What a replay has read into its branch is none: nobody can go back to it. None: there is none, or others have
    expired it.

    Raises:
        DamagedLedger, ProductStopped: as `Ledger.from_json`.
    """
    snapshot = table.metadata.current_snapshot()
    while snapshot is not None:
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        text = said.get(SUMMARY_KEY) if BRANCH_KEY not in said else None
        if text is not None and Ledger.from_json(text).added:
            return Commit(snapshot.snapshot_id, snapshot.timestamp_ms)
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.metadata.snapshot_by_id(parent)
    return None


def last_rows(table: Table, product: Product) -> LastRows:
    """Return the last rows of the highest generation. Reads three columns of all rows.

    Raises:
        Unavailable: if storage does not answer.
        ProductStopped: if files of the table are damaged.
    """
    columns = ("_generation", "_kafka_partition", "_kafka_offset")
    highest: dict[tuple[int, int], int] = {}
    with catalog_errors(f"table {product.name}"):
        for batch in table.scan(selected_fields=columns).to_arrow_batch_reader():
            groups = pa.table(batch).group_by(["_generation", "_kafka_partition"])
            for row in groups.aggregate([("_kafka_offset", "max")]).to_pylist():
                place = (row["_generation"], row["_kafka_partition"])
                highest[place] = max(highest.get(place, -1), row["_kafka_offset_max"])
    newest = max((generation for generation, _ in highest), default=FIRST_GENERATION)
    offsets = {partition: offset for (generation, partition), offset in highest.items() if generation == newest}
    return LastRows(newest, offsets)


def stamps_of(table: Table, product: Product, rows: LastRows) -> Mapping[int, int]:
    """Return the timestamps of these rows by partition, in milliseconds since 1970 UTC; -1: the row has none.

    Raises:
        Unavailable, ProductStopped: as `last_rows`.
    """
    if not rows.offsets:
        return {}
    offsets = ", ".join(str(offset) for offset in sorted(set(rows.offsets.values())))
    wanted = f"_generation = {rows.generation} and _kafka_offset in ({offsets})"
    columns = ("_kafka_partition", "_kafka_offset", "_kafka_timestamp")
    found: dict[int, int] = {}
    with catalog_errors(f"table {product.name}"):
        for batch in table.scan(wanted, selected_fields=columns).to_arrow_batch_reader():
            # Rows of other engines may have been written to the microsecond.
            times = batch.column("_kafka_timestamp").cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
            for row in pa.table([*batch.columns[:2], times], names=[*columns[:2], "ms"]).to_pylist():
                if rows.offsets.get(row["_kafka_partition"]) == row["_kafka_offset"]:
                    found[row["_kafka_partition"]] = -1 if row["ms"] is None else row["ms"]
    return found
