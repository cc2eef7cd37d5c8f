"""A table whose snapshots expire and whose files are deleted, on a clock that only tests move."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.schemas.avro import AvroSchema
from headrace.schemas.upkeep import Tier, Upkeep
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.sinks.upkeep.condemned import Records
from headrace.sinks.upkeep.deletion import Deletion, Look
from headrace.sinks.upkeep.expiry import Expiry
from headrace.sinks.upkeep.storage import folder_of, name_of
from headrace.streams.ledger import Range
from tests.support.lake import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headrace.sinks.upkeep.sightings import Sightings
    from headrace.streams.ledger import Ledger

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')
# To a clock that is an hour ahead all snapshots are old: the five newest are kept.
UPKEEP = Upkeep(tiers=(Tier(60.0),))
DAY_S = 86_400.0


class Clock:
    """The time as upkeep sees it, which only tests move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def events(*ids: int) -> pa.StructArray:
    return pa.array([{"id": i} for i in ids], pa.struct({"id": pa.int64()}))


class Kept(Lake):
    """A lake whose appends remove snapshots, beside one that looks after its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SCHEMA)
        contract = replace(self.product.contract, upkeep=UPKEEP)
        self.product = replace(self.product, contract=contract)
        self.clock = Clock()
        self.clock.now_s = self.table.metadata.last_updated_ms / 1_000 + 3_600
        self.expiry = Expiry(UPKEEP, self.clock)
        self.deletion = self.worker()

    def worker(self, seen: Sightings | None = None) -> Deletion:
        return Deletion(self.product, seen or self.expiry.seen, Event(), self.clock)

    def stage_append(self, first: int, count: int = 1) -> tuple[Draft, Ledger]:
        written = self.write(events(*range(first, first + count)))
        start = self.ledger.next(0)
        after = self.ledger.advanced({0: Range(start, start + count, start + count - 1)})
        return Draft(after, written.files, expired=self.expiry(self.table)), after

    def append(self, first: int, count: int = 1) -> int:
        draft, self.ledger = self.stage_append(first, count)
        staged = stage(self.table, draft)
        self.send(staged)
        self.reload()
        return staged.snapshot_id

    def compact(self) -> None:
        """Put all rows into one file, as the sink's compaction does."""
        old = tuple(task.file for task in self.table.scan().plan_files())
        start, rows = self.ledger.next(0), [row["id"] for row in self.rows("id")]
        ledger, self.ledger = self.ledger, self.ledger.at_origin()
        written = self.write(events(*rows))
        self.ledger = ledger
        assert self.ledger.next(0) == start
        self.send(stage(self.table, Draft(self.ledger.adding_nothing(), written.files, replaced=old)))
        self.reload()

    def look(self, *, sweep: bool = False) -> Look:
        return self.deletion.look(self.reload(), sweep=sweep)

    def all_ids(self) -> list[int]:
        return [row["id"] for row in self.rows("id")]

    def snapshots(self) -> list[int]:
        return [snapshot.snapshot_id for snapshot in self.reload().metadata.snapshots]

    def files(self) -> set[str]:
        """Return the names of all files of the table, but for what looks after them."""
        root = Path(self.table.location().removeprefix("file://"))
        return {file.name for file in root.rglob("*") if file.is_file() and "condemned" not in str(file)}

    def records(self) -> Records:
        folder = folder_of(self.table)
        assert folder is not None
        return Records(folder)


def needed(table: Table) -> set[str]:
    """Return the names of all files that the table's snapshots lead to, by pyiceberg's own inspection."""
    names = {name_of(path) for path in table.inspect.all_files()["file_path"].to_pylist()}
    names |= {name_of(path) for path in table.inspect.all_manifests()["path"].to_pylist()}
    names |= {name_of(snapshot.manifest_list) for snapshot in table.metadata.snapshots}
    names |= {name_of(entry.metadata_file) for entry in table.metadata.metadata_log}
    return names | {name_of(table.metadata_location)}


def age(lake: Kept, seconds: float) -> None:
    """Make all files of the table as old as they would be then, and let the time be then."""
    root = Path(lake.table.location().removeprefix("file://"))
    for file in (file for file in root.rglob("*") if file.is_file()):
        os.utime(file, (lake.clock.now_s, lake.clock.now_s))
    lake.clock.now_s += seconds
