"""Files in the place of others: what the snapshots' producer makes of manifests, and what other engines read of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform

from headrace.schemas.errors import Bug, Unavailable
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.sinks.files import columns_of, write_rows
from headrace.streams.ledger import Ledger
from tests.support.lake import Lake
from tests.unit.test_commit import SCHEMA, events, ids, summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pyiceberg.manifest import DataFile, ManifestEntry


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, SCHEMA)
    for number in range(4):
        lake.add(events(number * 2, number * 2 + 1))
    return lake


def entries(lake: Lake) -> list[ManifestEntry]:
    """Return the live entries, by their files' first rows."""
    snapshot = lake.reload().current_snapshot()
    assert snapshot is not None
    found = [
        entry
        for manifest in snapshot.manifests(lake.table.io)
        for entry in manifest.fetch_manifest_entry(lake.table.io)
        if entry.status is not ManifestEntryStatus.DELETED
    ]
    return sorted(found, key=lambda entry: bytes((entry.data_file.lower_bounds or {})[1]))


def copied(lake: Lake, old: Sequence[DataFile]) -> tuple[DataFile, ...]:
    """Write the rows of some files anew."""
    rows = [pq.read_table(file.file_path.removeprefix("file://")).cast(columns_of(lake.table)) for file in old]
    return write_rows(lake.table, pa.concat_tables(rows), lake.product).files


def merging(lake: Lake) -> None:
    """Let each commit put all manifests together."""
    with lake.table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.min-count-to-merge": "2"})
    lake.reload()


def rewrite(lake: Lake, old: Sequence[DataFile]) -> int:
    staged = stage(lake.table, Draft(lake.ledger.adding_nothing(), copied(lake, old), replaced=tuple(old)))
    lake.send(staged)
    lake.reload()
    return staged.snapshot_id


@pytest.mark.parametrize("merged", [False, True])
def test_the_replaced_files_are_gone_and_the_others_are_kept(lake: Lake, merged: bool) -> None:
    if merged:
        merging(lake)
        lake.add(events(8))
    before = entries(lake)
    old = [entry.data_file for entry in before[1:3]]
    snapshot_id = rewrite(lake, old)
    assert ids(lake) == list(range(9 if merged else 8))
    after = entries(lake)
    paths = [entry.data_file.file_path for entry in after]
    assert len(after) == 3 + merged
    assert not {file.file_path for file in old} & set(paths)
    assert (paths[0], paths[2]) == (before[0].data_file.file_path, before[3].data_file.file_path)
    # Kept entries keep their own numbers, by which engines tell what deletes and increments hold for them.
    for kept, was in ((after[0], before[0]), (after[2], before[3])):
        assert kept.status is (ManifestEntryStatus.EXISTING if merged else ManifestEntryStatus.ADDED)
        assert (kept.snapshot_id, kept.sequence_number) == (was.snapshot_id, was.sequence_number)
    assert after[1].status is ManifestEntryStatus.ADDED
    assert after[1].snapshot_id == snapshot_id
    assert after[1].sequence_number == lake.table.metadata.next_sequence_number() - 1


def test_the_summary_says_what_was_done(lake: Lake) -> None:
    before = entries(lake)
    snapshot_id = rewrite(lake, [entry.data_file for entry in before[:2]])
    snapshot = lake.table.metadata.snapshot_by_id(snapshot_id)
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation is Operation.REPLACE
    said = summary_of(lake, snapshot_id)
    assert (said["added-data-files"], said["deleted-data-files"], said["total-data-files"]) == ("1", "2", "3")
    assert (said["added-records"], said["deleted-records"], said["total-records"]) == ("4", "4", "8")
    sizes = sum(entry.data_file.file_size_in_bytes for entry in entries(lake))
    assert said["total-files-size"] == str(sizes)
    # The next append counts on.
    landed = lake.add(events(8))
    assert summary_of(lake, landed)["total-data-files"] == "4"
    assert summary_of(lake, landed)["total-records"] == "9"


def test_the_ledger_is_carried_as_it_is(lake: Lake) -> None:
    snapshot_id = rewrite(lake, [entry.data_file for entry in entries(lake)])
    carried = Ledger.from_json(summary_of(lake, snapshot_id)["headrace.ledger"])
    assert carried == lake.ledger.adding_nothing()
    assert carried.positions == lake.ledger.positions
    lake.add(events(8))
    assert ids(lake) == list(range(9))


def test_all_files_at_once_and_then_again(lake: Lake) -> None:
    for _ in range(3):
        rewrite(lake, [entry.data_file for entry in entries(lake)])
        assert ids(lake) == list(range(8))
        assert len(entries(lake)) == 1
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    # What was deleted by earlier snapshots is not carried on.
    found = [entry for m in snapshot.manifests(lake.table.io) for entry in m.fetch_manifest_entry(lake.table.io, False)]
    assert [entry.status for entry in found].count(ManifestEntryStatus.DELETED) == 1


def test_manifests_are_merged_here_too(lake: Lake) -> None:
    merging(lake)
    rewrite(lake, [entry.data_file for entry in entries(lake)[:2]])
    assert ids(lake) == list(range(8))
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(lake.table.io)) == 1
    assert sorted(entry.sequence_number or 0 for entry in entries(lake)) == [3, 4, 5]
    lake.add(events(8))
    assert ids(lake) == list(range(9))


def test_earlier_snapshots_still_read_the_replaced_files(lake: Lake) -> None:
    head = lake.table.metadata.current_snapshot_id
    rewrite(lake, [entry.data_file for entry in entries(lake)])
    assert sorted(lake.table.scan(snapshot_id=head).to_arrow().column("id").to_pylist()) == list(range(8))
    assert head is not None
    lake.table.manage_snapshots().rollback_to_snapshot(head).commit()
    assert ids(lake) == list(range(8))
    assert len(entries(lake)) == 4


def test_a_file_that_is_not_there_any_more_is_refused_and_nothing_is_sent(lake: Lake) -> None:
    found = [entry.data_file for entry in entries(lake)]
    rewrite(lake, found[:2])
    for old in ([found[0]], [found[1], found[2]]):
        files = copied(lake, found[2:])
        with pytest.raises(Unavailable, match="1 files that were to be replaced are not in the table"):
            stage(lake.table, Draft(lake.ledger.adding_nothing(), files, replaced=tuple(old)))
    assert ids(lake) == list(range(8))


def test_files_of_several_specs(lake: Lake) -> None:
    old = [entry.data_file for entry in entries(lake)]
    with lake.table.update_spec() as update:
        update.add_field("id", IdentityTransform(), "by_id")
    lake.reload()
    lake.add(events(8, 8, 9))
    rewrite(lake, old[:3])
    assert ids(lake) == [*range(8), 8, 8, 9]
    assert sorted(entry.data_file.spec_id for entry in entries(lake)) == [0, *[1] * 8]
    said = summary_of(lake, lake.table.metadata.current_snapshot_id or 0)
    assert said["total-records"] == "11"
    # Those of both specs at once.
    rewrite(lake, [entry.data_file for entry in entries(lake)])
    assert sorted(entry.data_file.record_count for entry in entries(lake)) == [1] * 9 + [2]
    assert ids(lake) == [*range(8), 8, 8, 9]


def test_rows_are_never_replaced_without_a_ledger(lake: Lake) -> None:
    old = [entry.data_file for entry in entries(lake)]
    with pytest.raises(Bug):
        stage(lake.table, Draft(None, copied(lake, old), replaced=tuple(old)))
