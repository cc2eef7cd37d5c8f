"""Snapshots expire with an append; files go an hour later; what anybody may still need stays. DuckDB reads it all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.statistics import StatisticsFile
from pyiceberg.table.update import RemoveSnapshotsUpdate, SetPropertiesUpdate

from headrace.schemas.errors import HeadraceError
from headrace.sinks.commit import stage
from headrace.sinks.upkeep.condemned import GRACE_S, Condemned
from headrace.sinks.upkeep.deletion import LOOK_S, SWEEP_S, Deletion, Look
from headrace.sinks.upkeep.removal import removal_of
from headrace.sinks.upkeep.sightings import Sightings
from headrace.sinks.upkeep.storage import name_of
from headrace.streams.history import read_ledger
from headrace.streams.ledger import SUMMARY_KEY
from tests.support.kept import DAY_S, UPKEEP, Kept, age, events, needed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lake(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_an_append_removes_snapshots_and_nothing_else_changes(lake: Kept) -> None:
    made = [lake.append(n) for n in range(12)]
    # Those of an append are removed by the next one: the five newest, and the one that is new.
    assert lake.snapshots() == made[-6:]
    assert lake.all_ids() == list(range(12))
    assert read_ledger(lake.table, lake.product) == lake.ledger


def test_files_go_an_hour_after_the_look_and_not_before(lake: Kept) -> None:
    for n in range(12):
        lake.append(n)
    before = lake.files()
    condemned = lake.look()
    assert condemned.condemned > 0
    assert condemned == Look(condemned=condemned.condemned)
    lake.clock.now_s += GRACE_S - 1
    assert lake.look() == Look()
    assert lake.files() == before
    lake.clock.now_s += 1
    assert lake.look() == Look(deleted=condemned.condemned)
    # Six manifest lists: their manifests and data files live on.
    assert condemned.condemned == 6
    assert lake.files() == needed(lake.table)
    assert lake.all_ids() == list(range(12))
    assert not lake.records().listing().lists


def test_a_reader_goes_on_reading_an_expired_snapshot_within_the_hour(lake: Kept) -> None:
    for n in range(3):
        lake.append(n)
    pinned = lake.reload()
    lake.compact()
    for n in range(3, 14):
        lake.append(n)
    assert pinned.current_snapshot() is not None
    assert pinned.current_snapshot().snapshot_id not in lake.snapshots()  # type: ignore[union-attr]
    lake.look()
    lake.clock.now_s += GRACE_S - 1
    lake.look()
    assert sorted(pinned.scan().to_arrow()["id"].to_pylist()) == [0, 1, 2]
    lake.clock.now_s += 1
    assert lake.look().deleted > 0
    with pytest.raises(FileNotFoundError):
        pinned.scan().to_arrow()
    assert lake.all_ids() == list(range(14))


def test_files_that_were_replaced_go_with_their_last_snapshot(lake: Kept) -> None:
    for n in range(3):
        lake.append(n)
    small = {file for file in lake.files() if file.endswith(".parquet")}
    lake.compact()
    for n in range(3, 14):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert not small & lake.files()
    assert lake.files() == needed(lake.table)
    assert lake.all_ids() == list(range(14))


def test_files_that_were_replaced_go_however_late_their_last_snapshot_goes(lake: Kept) -> None:
    for n in range(3):
        lake.append(n)
    small = {file for file in lake.files() if file.endswith(".parquet")}
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(lake.table.metadata.current_snapshot_id or 0, "before")
    lake.reload()
    lake.compact()
    for n in range(3, 14):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert small <= lake.files()
    with lake.table.manage_snapshots() as manage:
        manage.remove_tag("before")
    lake.reload()
    lake.append(14)
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert not small & lake.files()
    assert lake.files() == needed(lake.table)
    assert lake.all_ids() == list(range(15))


def test_data_files_are_only_compared_where_something_else_than_an_append_lies_between(lake: Kept) -> None:
    """Also of a snapshot whose children went before it did."""
    tagged = lake.append(0)
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(tagged, "kept")
    lake.reload()
    for n in range(1, 12):
        lake.append(n)
    assert {each.outlived for each in lake.expiry.seen.gone_from(lake.table.metadata)} == {True}
    lake.look()
    with lake.table.manage_snapshots() as manage:
        manage.remove_tag("kept")
    lake.reload()
    lake.append(12)
    gone = {each.snapshot_id: each.outlived for each in lake.expiry.seen.gone_from(lake.table.metadata)}
    assert gone[tagged]
    lake.compact()
    last = lake.snapshots()[-2]
    for n in range(13, 20):
        lake.append(n)
    gone = {each.snapshot_id: each.outlived for each in lake.expiry.seen.gone_from(lake.table.metadata)}
    assert not gone[last]


def test_merged_manifests_go_and_their_files_stay(lake: Kept) -> None:
    lake.catalog.commit_table(
        lake.table, (), (SetPropertiesUpdate(updates={"commit.manifest.min-count-to-merge": "4"}),)
    )
    lake.reload()
    for n in range(20):
        lake.append(n)
        lake.look()
        lake.clock.now_s += GRACE_S
    lake.look()
    assert len(lake.table.inspect.manifests()) <= 4
    # A merge leaves a manifest behind that no snapshot ever named.
    age(lake, 3 * DAY_S + 1)
    assert 0 < lake.look().orphans < 10
    lake.clock.now_s += GRACE_S
    lake.look()
    assert lake.files() == needed(lake.table)
    assert lake.all_ids() == list(range(20))


def test_rolling_back_to_a_kept_snapshot_works_after_all_that(lake: Kept) -> None:
    made = [lake.append(n) for n in range(3)]
    lake.compact()
    made += [lake.append(n) for n in range(3, 14)]
    for _ in range(3):
        lake.look()
        lake.clock.now_s += GRACE_S
    kept = lake.snapshots()[0]
    rows = made.index(kept)
    with lake.table.manage_snapshots() as manage:
        manage.set_current_snapshot(kept)
    lake.reload()
    found = read_ledger(lake.table, lake.product)
    assert found is not None
    assert len(lake.all_ids()) == found.next(0) == rows + 1
    lake.ledger = found
    lake.append(100)
    assert lake.all_ids() == [*range(rows + 1), 100]
    # What was rolled off is still in the table, and so are its files.
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert lake.files() == needed(lake.table)


def test_an_expiry_that_was_prepared_before_a_rollback_is_refused(lake: Kept) -> None:
    for n in range(8):
        lake.append(n)
    draft, _ = lake.stage_append(8)
    assert draft.expired
    staged = stage(lake.table, draft)
    oldest = draft.expired[-1]
    assert oldest in lake.snapshots()
    with lake.table.manage_snapshots() as manage:
        manage.set_current_snapshot(oldest)
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    lake.reload()
    assert lake.table.current_snapshot() is not None
    assert lake.table.current_snapshot().snapshot_id == oldest  # type: ignore[union-attr]


def test_what_is_needed_again_is_spared(lake: Kept) -> None:
    """A file stands on a list and the table leads to it, however that came to be."""
    for n in range(8):
        lake.append(n)
    table = lake.reload()
    files = tuple(table.inspect.files()["file_path"].to_pylist())
    lists = tuple(snapshot.manifest_list for snapshot in table.metadata.snapshots)
    lake.records().condemn(Condemned(str(table.metadata.table_uuid), files + lists), lake.clock())
    lake.clock.now_s += GRACE_S
    assert lake.look().spared == len(files) + len(lists)
    assert lake.files() >= needed(lake.table)
    assert lake.all_ids() == list(range(8))


@pytest.mark.parametrize("folder", ["elsewhere", "..", "data/../../elsewhere"])
def test_what_lies_outside_the_table_is_never_deleted(lake: Kept, tmp_path: Path, folder: str) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "x.parquet").write_text("x")
    lake.append(0)
    path = f"file://{other}/x.parquet" if folder == "elsewhere" else f"{lake.table.location()}/{folder}/x.parquet"
    lake.records().condemn(Condemned(str(lake.table.metadata.table_uuid), (path,)), lake.clock())
    lake.clock.now_s += GRACE_S
    assert lake.look().deleted == 0
    assert (other / "x.parquet").exists()


def test_a_worker_that_dies_before_it_wrote_down_what_is_gone_leaves_it_to_the_sweep(lake: Kept) -> None:
    for n in range(3):
        lake.append(n)
    lake.compact()
    for n in range(3, 14):
        lake.append(n)
    lake.deletion = lake.worker(Sightings())
    assert lake.look().condemned == 0
    # The folder was swept a moment ago, with nothing old enough.
    assert lake.records().listing().swept_s == pytest.approx(lake.clock(), abs=0.01)
    age(lake, 3 * DAY_S + 1)
    swept = lake.look()
    assert swept.orphans == swept.condemned > 0
    lake.clock.now_s += GRACE_S
    assert lake.look().deleted == swept.orphans
    assert lake.files() == needed(lake.table)
    assert lake.all_ids() == list(range(14))


def test_young_orphans_and_foreign_files_are_left_alone(lake: Kept) -> None:
    lake.append(0)
    root = Path(lake.table.location().removeprefix("file://"))
    (root / "metadata" / "version-hint.text").write_text("1")
    (root / "notes.parquet").write_text("beside the table's own folders")
    age(lake, 3 * DAY_S + 1)
    lake.write(events(1))
    young = [file for file in (root / "data").iterdir() if file.name not in needed(lake.table)]
    assert len(young) == 1
    os.utime(young[0], (lake.clock.now_s - 60, lake.clock.now_s - 60))
    assert lake.look(sweep=True).orphans == 0
    assert (root / "notes.parquet").exists()


def test_a_sweep_is_due_once_a_day(lake: Kept) -> None:
    lake.append(0)
    lake.look()
    first = lake.records().listing().swept_s
    lake.clock.now_s += SWEEP_S - 1
    lake.look()
    assert lake.records().listing().swept_s == first
    lake.clock.now_s += 1
    lake.look()
    second = lake.records().listing()
    assert second.swept_s != first
    assert len(second.marks) == 1


def test_without_sweep_and_without_deletion_where_the_owner_says_so(lake: Kept) -> None:
    for n in range(9):
        lake.append(n)
    lake.catalog.commit_table(lake.table, (), (SetPropertiesUpdate(updates={"gc.enabled": "false"}),))
    before = lake.snapshots()
    assert lake.look() == Look()
    lake.append(9)
    assert lake.snapshots()[:-1] == before
    upkeep = replace(UPKEEP, orphan_after_s=None)
    product = replace(lake.product, contract=replace(lake.product.contract, upkeep=upkeep))
    lake.catalog.commit_table(lake.reload(), (), (SetPropertiesUpdate(updates={"gc.enabled": "true"}),))
    lake.deletion = Deletion(product, lake.expiry.seen, Event(), lake.clock)
    lake.look()
    assert lake.records().listing().swept_s is None


def test_two_workers_that_both_remove_delete_each_file_once(lake: Kept) -> None:
    seen = Sightings()
    other = lake.worker(seen)
    for n in range(12):
        seen.see(lake.reload().metadata)
        lake.append(n)
    mine, theirs = lake.look(), other.look(lake.reload())
    assert mine.condemned == theirs.condemned == 6
    lake.clock.now_s += GRACE_S
    assert lake.look().deleted == 6
    assert other.look(lake.reload()) == Look()
    assert lake.files() == needed(lake.table)


def test_of_several_workers_one_sees_what_the_others_removed(lake: Kept) -> None:
    watching = Sightings()
    lake.deletion = lake.worker(watching)
    for n in range(12):
        lake.append(n)
        watching.see(lake.reload().metadata)
    assert lake.look().condemned == 6


def test_another_engine_that_expires_first_breaks_no_commit(lake: Kept) -> None:
    for n in range(9):
        lake.append(n)
    draft, after = lake.stage_append(9)
    staged = stage(lake.table, draft)
    assert draft.expired
    update = RemoveSnapshotsUpdate.model_validate({"snapshot-ids": list(draft.expired)})
    lake.catalog.commit_table(lake.table, (), (update,))
    lake.send(staged)
    lake.ledger = after
    assert lake.all_ids() == list(range(10))
    assert read_ledger(lake.reload(), lake.product) == after


def test_a_tag_that_is_made_meanwhile_keeps_its_snapshot(lake: Kept) -> None:
    for n in range(9):
        lake.append(n)
    draft, _ = lake.stage_append(9)
    tagged = draft.expired[0]
    staged = stage(lake.table, draft)
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(tagged, "audit")
    lake.send(staged)
    metadata = lake.reload().metadata
    assert metadata.refs["audit"].snapshot_id == tagged
    assert metadata.snapshot_by_id(tagged) is not None
    assert not set(draft.expired[1:]) & set(lake.snapshots())


def test_a_removal_is_sent_to_a_rest_catalog_as_the_specification_says() -> None:
    assert removal_of((1, 2)).model_dump(by_alias=True) == {"action": "remove-snapshots", "snapshot-ids": [1, 2]}


def test_statistics_of_what_is_gone_go_too(lake: Kept) -> None:
    snapshot_id = lake.append(0)
    root = Path(lake.table.location().removeprefix("file://"))
    path = root / "metadata" / "x.puffin"
    path.write_bytes(b"PFA1")
    with lake.table.update_statistics() as update:
        update.set_statistics(
            StatisticsFile.model_validate(
                {
                    "snapshot-id": snapshot_id,
                    "statistics-path": f"file://{path}",
                    "file-size-in-bytes": 4,
                    "file-footer-size-in-bytes": 0,
                    "blob-metadata": [],
                }
            )
        )
    lake.reload()
    for n in range(1, 4):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert path.exists()
    for n in range(4, 12):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    lake.look()
    assert not path.exists()


def damaged(lake: Kept) -> Iterator[Path]:
    root = Path(lake.table.location().removeprefix("file://"))
    head = lake.table.current_snapshot()
    assert head is not None
    yield root / "metadata" / name_of(head.manifest_list)
    yield root / "metadata" / name_of(head.manifests(lake.table.io)[0].manifest_path)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_nothing_is_deleted_when_the_table_cannot_be_read_whole(lake: Kept, which: int, content: bytes | None) -> None:
    for n in range(3):
        lake.append(n)
    lake.compact()
    for n in range(3, 14):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    before = lake.files()
    file = list(damaged(lake))[which]
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    lake.deletion = lake.worker(Sightings())
    with pytest.raises(HeadraceError):
        lake.look()
    assert lake.files() == before - ({file.name} if content is None else set())


def test_a_list_whose_writer_died_and_one_of_another_table_do_no_harm(lake: Kept) -> None:
    for n in range(8):
        lake.append(n)
    records = lake.records()
    orphan = Path(lake.table.location().removeprefix("file://")) / "data" / "orphan.parquet"
    orphan.write_text("x")
    records.condemn(Condemned("another", (f"file://{orphan}",)), lake.clock())
    whole = Condemned("x", ("y",)).to_json()
    for n, content in enumerate((b"", whole[:10], json.dumps({"v": 2}).encode(), b"[]")):
        records.folder.write(f"{lake.table.location()}/metadata/headrace-condemned/{n}-{n:032x}.json", content)
    lake.clock.now_s += GRACE_S
    assert lake.look().deleted == 0
    assert orphan.exists()
    assert all(at_s > 10 for at_s, _ in records.listing().lists)


def test_what_cannot_be_deleted_is_tried_again(lake: Kept) -> None:
    for n in range(12):
        lake.append(n)
    lake.look()
    lake.clock.now_s += GRACE_S
    (at_s, path), *rest = lake.records().listing().lists
    assert not rest
    condemned = lake.records().read(path)
    assert condemned is not None
    # A folder in a file's place is what a storage does not delete as a file, root or not.
    stubborn = Path(condemned.files[0].removeprefix("file://"))
    stubborn.unlink()
    stubborn.mkdir()
    assert lake.look() == Look(deleted=5, failed=1)
    assert [path for _, path in lake.records().listing().lists] == [path]
    stubborn.rmdir()
    assert lake.look().failed == 0
    assert not lake.records().listing().lists
    assert at_s + GRACE_S <= lake.clock()


def test_a_look_is_due_once_a_minute(lake: Kept) -> None:
    assert lake.deletion.due(1_000.0)
    assert not lake.deletion.due(1_000.0 + LOOK_S - 1)
    assert lake.deletion.due(1_000.0 + LOOK_S)


def test_another_engines_snapshot_keeps_the_ledger_behind_it(lake: Kept) -> None:
    first = lake.append(0)
    # Another engine's append carries no ledger.
    lake.table.append(lake.table.scan().to_arrow().slice(0, 0))
    foreign = lake.reload().current_snapshot()
    assert foreign is not None
    assert SUMMARY_KEY not in (foreign.summary.additional_properties if foreign.summary else {})
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(foreign.snapshot_id, "audit")
    lake.reload()
    for n in range(1, 12):
        lake.append(n)
    assert {first, foreign.snapshot_id} <= set(lake.snapshots())
