"""Compacting a test's table, and checking that nobody who reads it notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.schemas.upkeep import Compaction
from headrace.sinks.upkeep.compaction import Compacted, compact_runs
from headrace.streams.history import find_ledger, last_commit

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile

    from headrace.schemas.product import Product
    from tests.support.lake import Lake

SMALL = Compaction(min_files=2)


def compact_once(catalog: Catalog, product: Product, aims: Compaction | None = None) -> Compacted | None:
    """Do one run; None: there is nothing to do."""
    return next(compact_runs(catalog, product, aims), None)


def once(lake: Lake, aims: Compaction = SMALL) -> Compacted | None:
    """Do one run."""
    done = compact_once(lake.catalog, lake.product, aims)
    lake.reload()
    return done


def live(lake: Lake) -> list[DataFile]:
    """Return the data files that the table has now."""
    return [task.file for task in lake.reload().scan().plan_files()]


def scanned(lake: Lake) -> list[dict[str, Any]]:
    """Return what pyiceberg reads, in the order of offsets."""
    rows: list[dict[str, Any]] = lake.table.scan().to_arrow().sort_by("_kafka_offset").to_pylist()
    return rows


def compacted(lake: Lake, aims: Compaction = SMALL) -> Compacted:
    """Compact, and check that neither DuckDB nor pyiceberg finds another value than before, nor another ledger."""
    before, seen, ledger, commit = lake.rows(), scanned(lake), lake.ledger, last_commit(lake.table)
    done = once(lake, aims)
    assert done is not None
    # As texts, because a NaN is no value's equal.
    assert str(lake.rows()) == str(before)
    assert str(scanned(lake)) == str(seen)
    found = find_ledger(lake.table, lake.product)
    assert found is not None
    assert found.snapshot_id == done.snapshot_id
    assert found.ledger == ledger.adding_nothing()
    assert last_commit(lake.table) == commit
    return done
