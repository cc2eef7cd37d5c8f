"""Reading the ledger out of real tables: after rollbacks, other engines' commits, and expiries by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg.table.update import RemovePropertiesUpdate, RemoveSnapshotRefUpdate, SetPropertiesUpdate

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import DamagedLedger, ProductStopped
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.streams.history import Found, LastRows, find_ledger, last_commit, last_rows, read_ledger, stamps_of
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY, Accepted, Ledger, Position
from tests.support.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')


def events(*ids: int) -> pa.StructArray:
    return pa.array([{"id": i} for i in ids], pa.struct({"id": pa.int64()}))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def read(lake: Lake) -> Ledger | None:
    return read_ledger(lake.reload(), lake.product)


def foreign_append(lake: Lake, partition: int, offset: int, generation: int = 1) -> None:
    """A commit of another engine: it carries no ledger."""
    schema = lake.reload().schema().as_arrow()
    row = {"id": 0, "_kafka_partition": partition, "_kafka_offset": offset, "_schema_id": 1, "_generation": generation}
    columns = [pa.array([row.get(field.name)], field.type) for field in schema]
    lake.table.append(pa.Table.from_arrays(columns, schema=schema))
    lake.reload()


def expire_all_but_the_head(lake: Lake) -> None:
    metadata = lake.reload().metadata
    old = [
        snapshot.snapshot_id for snapshot in metadata.snapshots if snapshot.snapshot_id != metadata.current_snapshot_id
    ]
    lake.table.maintenance.expire_snapshots().by_ids(old).commit()
    lake.reload()


def set_property(lake: Lake, text: str | None) -> None:
    change = (
        SetPropertiesUpdate(updates={PROPERTY_KEY: text}) if text else RemovePropertiesUpdate(removals=[PROPERTY_KEY])
    )
    lake.catalog.commit_table(lake.reload(), (), (change,))


def test_a_table_that_nothing_was_committed_to_has_no_ledger(lake: Lake) -> None:
    assert read(lake) is None


def test_the_newest_ledger_counts(lake: Lake) -> None:
    lake.add(events(1, 2))
    lake.add(events(3))
    assert read(lake) == lake.ledger


def test_a_rollback_rewinds_the_ledger(lake: Lake) -> None:
    first = lake.add(events(1, 2))
    older = lake.ledger
    lake.add(events(3))
    lake.table.manage_snapshots().rollback_to_snapshot(first).commit()
    assert read(lake) == older
    assert [row["id"] for row in lake.rows("id")] == [1, 2]
    # And the sink goes on from there.
    lake.ledger = older
    lake.add(events(30))
    assert [row["id"] for row in lake.rows("id", "_kafka_offset")] == [1, 2, 30]
    assert read(lake) == lake.ledger


def test_other_engines_commits_are_passed_over(lake: Lake) -> None:
    lake.add(events(1, 2))
    foreign_append(lake, 0, 50)
    lake.table.delete("id = 1")
    assert read(lake) == lake.ledger
    assert [row["id"] for row in lake.rows("id")] == [2, 0]


def test_other_engines_commits_alone_are_the_start(lake: Lake) -> None:
    foreign_append(lake, 0, 50)
    foreign_append(lake, 0, 51)
    assert read(lake) is None


def test_a_head_that_carries_its_ledger_needs_no_history(lake: Lake) -> None:
    lake.add(events(1))
    lake.add(events(2))
    expire_all_but_the_head(lake)
    set_property(lake, None)
    assert read(lake) == lake.ledger


def test_the_child_of_an_expired_snapshot_is_not_taken_for_the_start(lake: Lake) -> None:
    """pyiceberg nulls its parent; taken for the start, all would be read again."""
    lake.add(events(1, 2))
    lake.table.delete("id = 1")
    expire_all_but_the_head(lake)
    head = lake.table.current_snapshot()
    assert head is not None
    assert head.parent_snapshot_id is None
    assert read(lake) == lake.ledger


def test_the_property_serves_only_if_it_agrees_with_the_rows(lake: Lake) -> None:
    lake.add(events(1, 2))
    foreign_append(lake, 0, 50)
    expire_all_but_the_head(lake)
    with pytest.raises(ProductStopped, match="property 0:1, rows 0:50"):
        read(lake)
    set_property(lake, None)
    with pytest.raises(ProductStopped, match="property missing, rows 0:50"):
        read(lake)
    mended = Ledger(lake.ledger.topic_id, 1, {0: Position(60, 50)}, {}, {})
    set_property(lake, mended.to_json())
    assert read(lake) == mended


def test_the_property_of_a_rolled_back_table_contradicts_its_rows(lake: Lake) -> None:
    first = lake.add(events(1, 2))
    lake.add(events(3))
    lake.table.manage_snapshots().rollback_to_snapshot(first).commit()
    lake.reload().delete("id = 1")
    expire_all_but_the_head(lake)
    with pytest.raises(ProductStopped, match="property 0:2, rows 0:1"):
        read(lake)


def test_the_last_rows_are_of_the_highest_generation(lake: Lake) -> None:
    assert last_rows(lake.table, lake.product) == LastRows(1, {})
    for partition, offset, generation in [(0, 900, 1), (1, 5, 2), (0, 7, 2), (1, 6, 2), (0, 3, 2), (2, 800, 1)]:
        foreign_append(lake, partition, offset, generation)
    assert last_rows(lake.table, lake.product) == LastRows(2, {0: 7, 1: 6})


def test_rows_tell_their_timestamps(lake: Lake) -> None:
    lake.add(events(1, 2, 3))
    foreign_append(lake, 1, 1)
    foreign_append(lake, 2, 9, generation=2)
    assert stamps_of(lake.table, lake.product, LastRows(1, {0: 2, 1: 1, 7: 2})) == {0: 2_000, 1: -1}
    assert stamps_of(lake.table, lake.product, LastRows(2, {2: 9})) == {2: -1}
    assert stamps_of(lake.table, lake.product, LastRows(1, {})) == {}


def test_a_ledger_tells_where_it_stands(lake: Lake) -> None:
    assert find_ledger(lake.reload(), lake.product) is None
    first = lake.add(events(1))
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    foreign_append(lake, 0, 0)
    assert find_ledger(lake.table, lake.product) == Found(lake.ledger, first, snapshot.timestamp_ms)
    expire_all_but_the_head(lake)
    assert find_ledger(lake.table, lake.product) == Found(lake.ledger, None, None)


def test_a_damaged_ledger_names_its_table_and_its_repair(lake: Lake) -> None:
    lake.add(events(1))
    lake.table.append(lake.table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    with pytest.raises(DamagedLedger) as caught:
        read(lake)
    assert caught.value.where == "table shop.orders"
    assert "`headrace ledger repair shop.orders`" in str(caught.value.hint)


def test_a_table_whose_branch_was_removed_is_not_taken_for_a_new_one(lake: Lake) -> None:
    assert read(lake) is None
    lake.add(events(1, 2))
    assert read(lake) is not None
    lake.catalog.commit_table(lake.reload(), (), (RemoveSnapshotRefUpdate.model_validate({"ref-name": "main"}),))
    with pytest.raises(ProductStopped):
        read(lake)


# --- the last commit ---


def test_the_last_commit_is_a_batch_s_whatever_came_on_top_of_it(lake: Lake) -> None:
    assert last_commit(lake.reload()) is None
    landed = lake.add(events(1, 2))
    # An accepted gap, a hold, another engine's compaction.
    for ledger in (lake.ledger.accepting({0: Accepted(2, 5, 1)}), lake.ledger.adding_nothing()):
        lake.reload()
        lake.send(stage(lake.table, Draft(ledger)))
    foreign_append(lake, 0, 50)
    commit = last_commit(lake.reload())
    assert commit is not None
    assert commit.snapshot_id == landed
    found = find_ledger(lake.table, lake.product)
    assert found is not None
    assert found.snapshot_id != landed


def test_where_the_last_commit_was_expired_there_is_none(lake: Lake) -> None:
    lake.add(events(1))
    lake.send(stage(lake.table, Draft(lake.ledger.adding_nothing())))
    expire_all_but_the_head(lake)
    assert last_commit(lake.reload()) is None
