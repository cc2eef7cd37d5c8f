"""What the commit seam relies on in pyiceberg, its private parts included, on a real catalog, read by DuckDB."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
)
from pyiceberg.transforms import IdentityTransform

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Bug, ProductStopped, Stale
from headrace.sinks.commit import check_fence, has_landed, stage
from headrace.sinks.draft import Draft
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY, Ledger, Position, Range
from tests.support.lake import TABLE, TOPIC_ID, Lake

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')


def events(*ids: int) -> pa.StructArray:
    return pa.array([{"id": i} for i in ids], pa.struct({"id": pa.int64()}))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def ids(lake: Lake) -> list[int]:
    """By DuckDB and by pyiceberg, which must agree."""
    found = [row["id"] for row in lake.rows("id")] if lake.reload().current_snapshot() else []
    assert sorted(lake.table.scan().to_arrow().column("id").to_pylist()) == sorted(found)
    return found


def summary_of(lake: Lake, snapshot_id: int) -> dict[str, str]:
    snapshot = lake.reload().metadata.snapshot_by_id(snapshot_id)
    assert snapshot is not None
    assert snapshot.summary is not None
    return dict(snapshot.summary.additional_properties)


def test_a_batch_lands_as_one_snapshot_with_its_ledger(lake: Lake) -> None:
    first = lake.add(events(1, 2))
    second = lake.add(events(3))
    assert ids(lake) == [1, 2, 3]
    assert [entry.snapshot_id for entry in lake.table.metadata.snapshot_log] == [first, second]
    assert Ledger.from_json(summary_of(lake, second)[SUMMARY_KEY]) == lake.ledger
    assert lake.ledger.positions == {0: Position(3, 2)}
    assert lake.ledger.added == {0: Range(2, 3, 2)}
    repeated = json.loads(lake.table.properties[PROPERTY_KEY])
    assert repeated.pop("snapshot") == second
    assert repeated == json.loads(lake.ledger.to_json())


def test_what_a_commit_requires_and_changes(lake: Lake) -> None:
    """The branch's head, the schema, the partitioning and the table's identity; the head also where there is none."""
    for head in (None, lake.add(events(1))):
        staged, _ = lake.staged(lake.write(events(2)), 1)
        metadata = lake.table.metadata
        guards = {type(guard): guard for guard in staged.requirements}
        assert len(guards) == len(staged.requirements)
        if head is not None:
            branch = guards[AssertRefSnapshotId]
            assert isinstance(branch, AssertRefSnapshotId)
            assert (branch.ref, branch.snapshot_id) == ("main", head)
        schema, spec, table = guards[AssertCurrentSchemaId], guards[AssertDefaultSpecId], guards[AssertTableUUID]
        assert isinstance(schema, AssertCurrentSchemaId)
        assert isinstance(spec, AssertDefaultSpecId)
        assert isinstance(table, AssertTableUUID)
        assert schema.current_schema_id == metadata.current_schema_id
        assert spec.default_spec_id == metadata.default_spec_id
        assert table.uuid == metadata.table_uuid
        actions = [update.action for update in staged.updates]
        assert actions == ["add-snapshot", "set-snapshot-ref", "set-properties"]
        assert isinstance(staged.updates[-1], SetPropertiesUpdate)
        assert set(staged.updates[-1].updates) == {PROPERTY_KEY}


def test_nothing_is_visible_before_the_commit_lands(lake: Lake) -> None:
    lake.add(events(1))
    before = lake.table.metadata_location
    staged, _ = lake.staged(lake.write(events(2)), 1)
    assert lake.reload().metadata_location == before
    assert not has_landed(lake.table, staged.snapshot_id)
    assert ids(lake) == [1]


def test_a_commit_on_a_head_that_has_moved_is_refused(lake: Lake) -> None:
    lake.add(events(1))
    late, _ = lake.staged(lake.write(events(99)), 1)
    handle = lake.table
    landed = lake.add(events(2))
    lake.table = handle
    with pytest.raises(CommitFailedException):
        lake.send(late)
    # Not even on a handle that knows the new head.
    lake.reload()
    with pytest.raises(CommitFailedException):
        lake.send(late)
    assert ids(lake) == [1, 2]
    assert has_landed(lake.table, landed)
    assert not has_landed(lake.table, late.snapshot_id)


def test_two_first_commits_do_not_both_land(lake: Lake) -> None:
    first, _ = lake.staged(lake.write(events(1)), 1)
    second, _ = lake.staged(lake.write(events(1)), 1)
    lake.send(first)
    with pytest.raises(CommitFailedException):
        lake.send(second)
    assert ids(lake) == [1]


def test_a_commit_that_is_delivered_twice_lands_once_and_the_table_stays_readable(lake: Lake) -> None:
    lake.add(events(1))
    staged, _ = lake.staged(lake.write(events(2)), 1)
    lake.send(staged)
    for _ in range(2):
        with pytest.raises(CommitFailedException):
            lake.send(staged)
        lake.reload()
    assert ids(lake) == [1, 2]
    assert has_landed(lake.table, staged.snapshot_id)
    lake.ledger = Ledger.from_json(summary_of(lake, staged.snapshot_id)[SUMMARY_KEY])
    lake.add(events(3))
    assert ids(lake) == [1, 2, 3]


def test_a_commit_that_arrives_late_is_refused_and_harms_nothing(lake: Lake) -> None:
    staged, _ = lake.staged(lake.write(events(1)), 1)
    lake.send(staged)
    lake.ledger = Ledger.from_json(summary_of(lake, staged.snapshot_id)[SUMMARY_KEY])
    for number in (2, 3):
        lake.add(events(number))
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    assert ids(lake) == [1, 2, 3]


def test_the_same_files_can_be_staged_again_after_a_conflict(lake: Lake) -> None:
    written = lake.write(events(5))
    first, _ = lake.staged(written, 1)
    with lake.table.transaction() as transaction:
        transaction.append(lake.table.scan().to_arrow())
    lake.reload()
    with pytest.raises(CommitFailedException):
        lake.send(first)
    lake.reload()
    again, _ = lake.staged(written, 1)
    lake.send(again)
    assert first.snapshot_id != again.snapshot_id
    assert ids(lake) == [5]


def test_a_commit_for_a_schema_that_has_moved_is_refused(lake: Lake) -> None:
    lake.add(events(1))
    staged, _ = lake.staged(lake.write(events(2)), 1)
    with lake.table.update_schema() as update:
        update.make_column_optional("id")
    lake.reload()
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    assert ids(lake) == [1]


def test_a_commit_for_a_partitioning_that_has_moved_is_refused(lake: Lake) -> None:
    lake.add(events(1))
    staged, _ = lake.staged(lake.write(events(2)), 1)
    with lake.table.update_spec() as update:
        update.add_field("id", IdentityTransform(), "by_id")
    lake.reload()
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    assert ids(lake) == [1]


def test_a_commit_for_a_table_that_was_made_anew_is_refused(lake: Lake) -> None:
    staged, _ = lake.staged(lake.write(events(1)), 1)
    schema = lake.table.schema()
    lake.catalog.drop_table(TABLE)
    lake.catalog.create_table(TABLE, schema)
    lake.reload()
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    assert ids(lake) == []


def test_a_property_that_others_set_meanwhile_does_not_refuse_a_commit(lake: Lake) -> None:
    lake.add(events(1))
    staged, _ = lake.staged(lake.write(events(2)), 1)
    with lake.table.transaction() as transaction:
        transaction.set_properties(comment="changed")
    lake.reload()
    lake.send(staged)
    assert ids(lake) == [1, 2]
    assert lake.table.properties["comment"] == "changed"


def test_an_own_snapshot_is_found_however_much_came_after_it(lake: Lake) -> None:
    first = lake.add(events(1))
    for number in range(2, 5):
        lake.add(events(number))
    assert has_landed(lake.table, first)
    lake.table.manage_snapshots().rollback_to_snapshot(first).commit()
    second = lake.reload().metadata.snapshots[1].snapshot_id
    assert has_landed(lake.table, second)
    lake.table.maintenance.expire_snapshots().by_id(second).commit()
    assert lake.reload().metadata.snapshot_by_id(second) is None


def test_an_empty_append_moves_the_ledger_and_adds_nothing(lake: Lake) -> None:
    lake.add(events(1))
    lake.ledger = lake.ledger.advanced({0: Range(1, 1)})
    staged, after = lake.staged(None, 0)
    lake.send(staged)
    assert ids(lake) == [1]
    assert Ledger.from_json(summary_of(lake, staged.snapshot_id)[SUMMARY_KEY]) == after
    assert lake.table.metadata.current_snapshot_id == staged.snapshot_id


def test_an_empty_append_can_be_the_first(lake: Lake) -> None:
    staged, _ = lake.staged(None, 0)
    lake.send(staged)
    assert lake.reload().metadata.current_snapshot_id == staged.snapshot_id
    lake.add(events(1))
    assert ids(lake) == [1]


def test_an_append_without_rows_may_say_nothing_of_the_ledger(lake: Lake) -> None:
    lake.add(events(1))
    staged = stage(lake.table, Draft(None, properties={"headrace.note": "set"}))
    lake.send(staged)
    assert SUMMARY_KEY not in summary_of(lake, staged.snapshot_id)
    assert lake.table.properties["headrace.note"] == "set"
    assert Ledger.from_json(lake.table.properties[PROPERTY_KEY]) == lake.ledger
    assert ids(lake) == [1]


def test_rows_never_go_without_a_ledger(lake: Lake) -> None:
    written = lake.write(events(1))
    assert written.files
    with pytest.raises(Bug):
        stage(lake.table, Draft(None, written.files))


def test_manifests_are_merged(lake: Lake) -> None:
    """A commit's cost must not grow with the age of its table."""
    for number in range(55):
        lake.add(events(number))
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(lake.table.io)) < 50
    assert ids(lake) == list(range(55))
    assert len(lake.table.metadata.metadata_log) <= 20


def test_a_ledger_that_is_too_large_is_refused_before_anything_is_sent(lake: Lake) -> None:
    large = Ledger(TOPIC_ID, 1, {p: Position(10**15, 10**15) for p in range(2_000)}, {}, {})
    with pytest.raises(ProductStopped):
        stage(lake.table, Draft(large))
    assert lake.reload().current_snapshot() is None


# --- the fence ---

BASE = Ledger("topic", 1, {0: Position(5, 4), 1: Position(9, 8)}, {}, {})


def test_the_fence_holds_where_the_ledger_is_at_the_batchs_start() -> None:
    check_fence(BASE, BASE, {0: Range(5, 7, 6)}, where="shop.orders")
    # Another worker has moved a partition that is not of this batch.
    moved = BASE.advanced({1: Range(9, 20, 19)})
    check_fence(moved, BASE, {0: Range(5, 7, 6), 2: Range(0, 3, 2)}, where="shop.orders")


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        (BASE.advanced({0: Range(5, 7, 6)}), "expected [0:5] of generation 1, committed [0:7] of generation 1"),
        (BASE.advanced({0: Range(5, 3)}), "expected [0:5] of generation 1, committed [0:3] of generation 1"),
        (Ledger("topic", 2, BASE.positions, {}, {}), "committed [0:5] of generation 2"),
        (Ledger("other", 1, BASE.positions, {}, {}), "expected [0:5]"),
    ],
)
def test_the_fence_shows_both_sides_where_it_does_not(now: Ledger, shown: str) -> None:
    with pytest.raises(Stale) as caught:
        check_fence(now, BASE, {0: Range(5, 7, 6)}, where="shop.orders")
    assert shown in str(caught.value)
    assert str(caught.value).startswith("shop.orders: stale: ")
