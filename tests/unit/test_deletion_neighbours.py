"""Upkeep beside others: tables that share a folder, other engines' staged snapshots, clocks that disagree."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update import SetPropertiesUpdate

from headrace.sinks.batch import Letter
from headrace.sinks.commit import stage
from headrace.sinks.dead_letters.table import KEPT_SNAPSHOTS, LetterTable
from headrace.sinks.draft import Draft
from headrace.sinks.tables import ensure_table
from headrace.sinks.upkeep.condemned import GRACE_S, Condemned
from headrace.sinks.upkeep.deletion import SWEEP_S
from headrace.sinks.upkeep.expiry import Expiry, history_of
from headrace.sinks.upkeep.letter_files import LetterFiles
from headrace.sinks.upkeep.sightings import Sightings
from headrace.sinks.upkeep.survey import survey_of
from headrace.sinks.upkeep.tiers import expired_of
from headrace.streams.ledger import SUMMARY_KEY, Ledger
from tests.support.kept import DAY_S, UPKEEP, Kept, age, events, needed
from tests.support.lake import TABLE, TOPIC_ID

if TYPE_CHECKING:
    from pyiceberg.table import Table


LEDGER = Ledger(TOPIC_ID, 1, {}, {}, {})


@pytest.fixture
def lake(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def root_of(table: Table) -> Path:
    return Path(table.location().removeprefix("file://"))


def swept(lake: Kept) -> None:
    """Let three days and two sweeps pass."""
    age(lake, 3 * DAY_S + 1)
    lake.look(sweep=True)
    lake.clock.now_s += GRACE_S
    lake.look(sweep=True)


def anew(lake: Kept) -> None:
    """Make the product's table anew, in the same folder, as `apply` does."""
    before = lake.table.location()
    lake.table = ensure_table(lake.catalog, lake.product)
    assert lake.table.location() == before
    lake.ledger = Ledger.begin(TOPIC_ID, {0: 0})
    lake.expiry = Expiry(UPKEEP, lake.clock)
    lake.deletion = lake.worker()


def test_a_table_that_was_moved_away_keeps_its_files(lake: Kept) -> None:
    """A catalog renames a table and leaves its files; the next table of the name gets the same folder."""
    for n in range(3):
        lake.append(n)
    lake.catalog.rename_table(TABLE, ("shop", "orders_before"))
    anew(lake)
    lake.append(10)
    swept(lake)
    moved = lake.catalog.load_table(("shop", "orders_before"))
    assert sorted(moved.scan().to_arrow()["id"].to_pylist()) == [0, 1, 2]
    assert lake.all_ids() == [10]
    # It was looked at, and is again tomorrow.
    assert lake.records().listing().swept_s == lake.clock()


def test_tables_of_two_catalogs_in_one_warehouse_keep_their_files(lake: Kept, tmp_path: Path) -> None:
    lake.append(0)
    other = SqlCatalog("shop", uri=f"sqlite:///{tmp_path}/other.db", warehouse=f"file://{tmp_path}/warehouse")
    theirs = ensure_table(other, lake.product)
    assert theirs.location() == lake.table.location()
    lake.table, mine = theirs, lake.table
    written = lake.write(events(7))
    lake.table = mine
    staged = stage(theirs, Draft(lake.ledger, written.files))
    other.commit_table(theirs, staged.requirements, staged.updates)
    swept(lake)
    assert other.load_table(TABLE).scan().to_arrow()["id"].to_pylist() == [7]
    survey = survey_of(lake.reload(), lake.product, lake.clock())
    assert survey.orphans == ()
    assert survey.shared


def test_nothing_is_swept_beside_another_tables_compressed_metadata(lake: Kept) -> None:
    lake.append(0)
    orphan = root_of(lake.table) / "data" / "orphan.parquet"
    orphan.write_text("x")
    metadata = root_of(lake.table) / "metadata"
    own = Path(lake.table.metadata_location.removeprefix("file://")).read_text()
    theirs = own.replace(str(lake.table.metadata.table_uuid), "0f0f0f0f-0000-4000-8000-000000000000")
    assert theirs != own
    other = metadata / "00000-0.gz.metadata.json"
    other.write_bytes(gzip.compress(theirs.encode()))
    swept(lake)
    assert orphan.exists()
    # What a failed commit left is the table's own, and so is what nobody can read as metadata.
    other.write_bytes(gzip.compress(own.encode()))
    (metadata / "00000-1.metadata.json").write_bytes(b"")
    (metadata / "00000-2.metadata.json").write_text(own)
    swept(lake)
    assert not orphan.exists()
    assert not other.exists()
    assert lake.files() == needed(lake.table)


def test_metadata_of_a_table_that_holds_nothing_stay_and_stop_no_sweep(lake: Kept, tmp_path: Path) -> None:
    """Making a table that is there leaves such metadata; a table that was just made elsewhere has no others."""
    ensure_table(lake.catalog, lake.product)
    other = SqlCatalog("shop", uri=f"sqlite:///{tmp_path}/other.db", warehouse=f"file://{tmp_path}/warehouse")
    ensure_table(other, lake.product)
    lake.append(0)
    orphan = root_of(lake.table) / "data" / "orphan.parquet"
    orphan.write_text("x")
    swept(lake)
    assert not orphan.exists()
    assert other.load_table(TABLE).scan().to_arrow().num_rows == 0


def test_earlier_metadata_stay_where_the_owner_keeps_them(lake: Kept) -> None:
    kept = {"write.metadata.delete-after-commit.enabled": "false", "write.metadata.previous-versions-max": "1"}
    lake.catalog.commit_table(lake.table, (), (SetPropertiesUpdate(updates=kept),))
    lake.reload()
    for n in range(4):
        lake.append(n)
    versions = {file for file in lake.files() if file.endswith(".metadata.json")}
    swept(lake)
    assert versions <= lake.files()


def test_files_that_waited_for_long_are_written_anew(lake: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep may have condemned them; it may delete them between a look at the table and the commit."""
    written = lake.write(events(1))
    assert written.fits(lake.table)
    for later_s in (DAY_S / 2 + 1, -DAY_S):
        now_s = time.time() + later_s
        monkeypatch.setattr("headrace.sinks.files.time.time", lambda now_s=now_s: now_s)
        assert not written.fits(lake.table)
        monkeypatch.undo()
    assert written.fits(lake.table)


def test_a_snapshot_that_waits_to_be_published_is_kept(lake: Kept) -> None:
    """Write-audit-publish: it is on no branch, and nothing else holds its rows."""
    for n in range(3):
        lake.append(n)
    # As another engine stages it: the branch never stood there.
    written = lake.write(events(100))
    notes = {"wap.id": "audit-1"}
    staged = stage(lake.table, Draft(lake.ledger, written.files, notes=notes, branch="x"))
    lake.catalog.commit_table(lake.table, (), staged.updates[:1])
    lake.reload()
    for n in range(3, 15):
        lake.append(n)
    assert staged.snapshot_id in lake.snapshots()
    for _ in range(2):
        lake.look()
        lake.clock.now_s += GRACE_S
    assert 100 in lake.table.scan(snapshot_id=staged.snapshot_id).to_arrow()["id"].to_pylist()
    # Nobody has published it for days.
    lake.clock.now_s += 5 * DAY_S
    lake.append(15)
    assert staged.snapshot_id not in lake.snapshots()


def test_a_published_snapshot_expires_like_any_other(lake: Kept) -> None:
    written = lake.write(events(100))
    staged = stage(lake.table, Draft(lake.ledger, written.files, notes={"wap.id": "audit-1"}, branch="x"))
    lake.catalog.commit_table(lake.table, (), staged.updates[:1])
    lake.reload()
    published = stage(lake.table, Draft(lake.ledger, written.files, notes={"published-wap-id": "audit-1"}))
    lake.send(published)
    lake.reload()
    for n in range(12):
        lake.append(n)
    assert staged.snapshot_id not in lake.snapshots()
    assert published.snapshot_id not in lake.snapshots()


def test_a_list_of_a_worker_whose_clock_is_behind_waits_its_hour(lake: Kept) -> None:
    lake.append(0)
    orphan = root_of(lake.table) / "data" / "orphan.parquet"
    orphan.write_text("x")
    lake.clock.now_s = time.time() + 60
    condemned = Condemned(str(lake.table.metadata.table_uuid), (f"file://{orphan}",))
    lake.records().condemn(condemned, lake.clock() - 2 * GRACE_S)
    lake.look()
    assert orphan.exists()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert not orphan.exists()


def test_a_sweep_by_a_clock_that_was_far_ahead_is_no_reason_not_to_sweep(lake: Kept) -> None:
    lake.append(0)
    lake.look()
    records = lake.records()
    records.swept(records.listing(), lake.clock() + 1_000 * DAY_S)
    lake.clock.now_s += SWEEP_S
    lake.look()
    assert records.listing().swept_s == pytest.approx(lake.clock(), abs=0.01)


def test_what_landed_after_a_handle_was_loaded_is_not_gone_from_it(lake: Kept) -> None:
    """The landing's thread sees newer tables than the one that a look was given."""
    lake.append(0)
    loaded = lake.table
    lake.append(1)
    lake.expiry.seen.see(lake.table.metadata)
    assert lake.expiry.seen.gone_from(loaded.metadata) == ()
    assert lake.deletion.look(loaded).condemned == 0


def test_many_orphans_are_written_down_in_portions(lake: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.append(0)
    for n in range(25):
        (root_of(lake.table) / "data" / f"orphan-{n}.parquet").write_text("x")
    monkeypatch.setattr("headrace.sinks.upkeep.condemned.MOST_FILES", 10)
    monkeypatch.setattr("headrace.sinks.upkeep.deletion.MOST_FILES", 10)
    lake.deletion = lake.worker(Sightings())
    age(lake, 3 * DAY_S + 1)
    assert lake.look(sweep=True).orphans == 25
    lists = [lake.records().read(path) for _, path in lake.records().listing().lists]
    assert sorted(len(each.files) for each in lists if each) == [5, 10, 10]


def test_a_catalog_that_cuts_the_log_at_an_expired_snapshot_changes_no_answer(lake: Kept) -> None:
    """Iceberg's own catalogs do so, and leave the parents of what they removed as they were."""
    for n in range(4):
        lake.append(n)
    with lake.table.manage_snapshots() as manage:
        manage.create_branch(lake.snapshots()[1], "audit")
    metadata = lake.reload().metadata
    cut = metadata.model_copy(update={"snapshot_log": metadata.snapshot_log[-1:]})
    cut = cut.model_copy(
        update={
            "snapshots": [
                each.model_copy(update={"parent_snapshot_id": 1}) if each == metadata.snapshots[-1] else each
                for each in metadata.snapshots
            ]
        }
    )
    assert all(SUMMARY_KEY in (each.summary or {}).additional_properties for each in cut.snapshots)  # type: ignore[union-attr]
    assert set(history_of(cut).mains) >= {each.snapshot_id for each in metadata.snapshots}
    now_ms = int(lake.clock() * 1_000)
    shots = history_of(cut).shots
    assert expired_of(replace(history_of(cut), shots=shots), UPKEEP.tiers, now_ms) == ()


def letters_from(first: int) -> tuple[Letter, ...]:
    return (Letter(0, first, None, "null-value", None, None),)


def test_the_files_of_dead_letters_are_looked_after_too(lake: Kept) -> None:
    task = LetterFiles.of(lake.product, lake.catalog, Event())
    task.deletion.now_s = lake.clock
    # There is no such table yet.
    task.run(lake.table)
    register = LetterTable(lake.catalog, lake.product)
    for n in range(2 * KEPT_SNAPSHOTS):
        register.send(letters_from(n), LEDGER)
        if n % 10 == 0:
            task.run(lake.table)
    task.run(lake.table)
    letters = lake.catalog.load_table(("shop", "orders__dlq"))
    before = {file.name for file in root_of(letters).rglob("*.*")}
    assert not needed(letters) >= before
    lake.clock.now_s += GRACE_S
    task.run(lake.table)
    assert task.deletion.looked.deleted > 0
    left = {file.name for file in root_of(letters).rglob("*.*")}
    assert left < before
    assert left >= needed(letters)
    assert len(letters.scan().to_arrow()) == 2 * KEPT_SNAPSHOTS


def test_a_table_that_only_has_the_name_of_a_letter_table_is_left_alone(lake: Kept) -> None:
    table = lake.catalog.create_table(("shop", "orders__dlq"), lake.table.schema())
    orphan = root_of(table) / "data" / "orphan.parquet"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_text("x")
    task = LetterFiles.of(lake.product, lake.catalog, Event())
    task.deletion.now_s = lake.clock
    for _ in range(2):
        lake.clock.now_s += 4 * DAY_S
        task.run(lake.table)
    assert orphan.exists()
