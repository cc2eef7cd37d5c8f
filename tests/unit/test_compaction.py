"""Compaction: which files a run puts together, what they are like, and what the snapshot says."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import time_machine
from pyiceberg.table.snapshots import Operation
from pyiceberg.typedef import Record

from headrace.schemas.errors import Held, Unavailable
from headrace.schemas.product import PartitionField, SortField
from headrace.schemas.upkeep import Compaction
from headrace.sinks.files import MAX_AGE_S, Written, write_file
from headrace.sinks.hold import hold
from headrace.sinks.upkeep import compaction, file_rows, rewriting
from headrace.sinks.upkeep.compaction import RESTS_AFTER_S, UPKEEP_NOTE, Compactor
from headrace.sinks.upkeep.file_rows import FileRows
from headrace.sinks.upkeep.small_files import chosen
from headrace.streams.history import read_ledger
from tests.support.compacting import SMALL, compact_once, compacted, live, once
from tests.unit.test_partitioned_tables import EMPTY, FULL, events, lake_of, lay_out

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.sinks.upkeep.small_files import Bin

BY_DAY = [("at", "day"), ("id", "bucket[2]")]


def test_files_stay_in_their_partitions_and_each_is_sorted(tmp_path: Path) -> None:
    orders = [SortField("mail", descending=True, nulls_first=False), SortField("id")]
    lake = lake_of(tmp_path, BY_DAY, orders)
    days = [dt.datetime(2026, 1, day, tzinfo=dt.UTC) for day in (1, 2)]
    for number in range(9):
        lake.add(
            events(
                lake,
                *({"id": number * 10 + n, "at": days[n % 2], "mail": [None, "b", "a", "c"][n % 4]} for n in range(8)),
            )
        )
    before = {str(file.partition) for file in live(lake)}
    assert compacted(lake).into == 4
    found = live(lake)
    assert {str(file.partition) for file in found} == before
    assert len(found) == 4
    for file in found:
        assert file.sort_order_id == lake.table.metadata.default_sort_order_id
        with lake.table.io.new_input(file.file_path).open() as stream:
            rows = pq.read_table(stream, columns=["mail", "id"]).to_pylist()
        keys = [(row["mail"] is None, -ord(row["mail"] or "a"), row["id"]) for row in rows]
        assert keys == sorted(keys)
    # And engines skip by what the manifests say.
    planned = list(lake.table.scan("at >= '2026-01-02T00:00:00+00:00'").plan_files())
    assert len(planned) == 2


@pytest.mark.parametrize("path", sorted(EMPTY.keys() - {"price"}))
def test_partitions_of_every_type(tmp_path: Path, path: str) -> None:
    lake = lake_of(tmp_path, [(path, "identity")])
    for number in range(4):
        lake.add(events(lake, {**FULL, "id": 5}, {"id": number // 4}))
    done = compacted(lake)
    assert (done.files, done.into, len(live(lake))) == (8, 2, 2)


def test_files_of_an_earlier_spec_are_left_and_those_of_an_earlier_order_are_taken(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [], [SortField("id")])
    for number in range(3):
        lake.add(events(lake, {"id": number}, {"id": -number}))
    lay_out(lake, [], [SortField("id", descending=True)])
    for number in range(3):
        lake.add(events(lake, {"id": number}, {"id": -number}))
    compacted(lake)
    (file,) = live(lake)
    assert file.sort_order_id == lake.table.metadata.default_sort_order_id
    lay_out(lake, BY_DAY)
    for number in range(4):
        lake.add(events(lake, {"id": 1, "at": dt.datetime(2026, 1, 1, 0, number, tzinfo=dt.UTC)}))
    assert compacted(lake).files == 4
    assert sorted(each.spec_id for each in live(lake)) == [0, 1]


def test_rows_without_an_order_stay_in_that_of_their_commits(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for number in range(5):
        lake.add(events(lake, *({"id": number} for _ in range(number + 1))))
    compacted(lake)
    (file,) = live(lake)
    with lake.table.io.new_input(file.file_path).open() as stream:
        offsets = pq.read_table(stream, columns=["_kafka_offset"]).column(0).to_pylist()
    assert offsets == list(range(15))
    assert file.sort_order_id is None


def test_a_row_group_holds_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(6):
        lake.add(events(lake, *({"id": n} for n in range(10))))
    monkeypatch.setattr(rewriting, "ROW_GROUP_ROWS", 25)
    compacted(lake)
    (file,) = live(lake)
    with lake.table.io.new_input(file.file_path).open() as stream:
        parquet = pq.ParquetFile(stream).metadata
        groups = [parquet.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    assert groups == [20, 20, 20]


def test_a_bin_that_is_too_large_to_be_sorted_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_of(tmp_path, [], [SortField("id", descending=True)])
    for number in range(12):
        lake.add(events(lake, *({"id": number, "mail": "m" * 1_000} for _ in range(10))))
    rows = lake.table.scan().to_arrow()
    monkeypatch.setattr(rewriting, "SORT_BYTES", rows.nbytes // 3)
    done = compacted(lake)
    assert done.into == 3
    assert all(30 <= file.record_count <= 40 for file in live(lake))
    # What is as large as it gets is not read again.
    assert once(lake) is None or len(live(lake)) == 3


def test_large_files_few_files_and_empty_tables_are_left(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    assert once(lake) is None
    lake.add(events(lake, {"id": 1}))
    assert once(lake) is None
    for _ in range(3):
        lake.add(events(lake, {"id": 1}))
    assert once(lake, Compaction(min_files=8)) is None
    assert once(lake, Compaction(small_bytes=100, min_files=2)) is None
    place = lake.table.metadata_location
    assert lake.reload().metadata_location == place


def test_a_table_in_which_there_is_nothing_to_do_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_of(tmp_path, [])
    lake.add(events(lake, {"id": 1}))
    looks = 0

    def counted(*given: Any, **named: Any) -> tuple[Bin, ...]:
        nonlocal looks
        looks += 1
        return chosen(*given, **named)

    monkeypatch.setattr(compaction, "chosen", counted)
    compactor = Compactor(lake.product, SMALL)
    for _ in range(3):
        assert compactor.rewrite(lake.reload()) is None
    assert looks == 1
    for _ in range(3):
        lake.add(events(lake, {"id": 1}))
    # What was written and not committed is still to do.
    assert compactor.rewrite(lake.table) is not None
    assert compactor.rewrite(lake.table) is not None
    assert looks == 3


def test_few_files_are_put_together_once_the_table_rests(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    compactor = Compactor(lake.product, Compaction())
    for _ in range(3):
        lake.add(events(lake, {"id": 1}))
    head = lake.table.current_snapshot()
    assert head is not None
    landed_s = head.timestamp_ms / 1_000
    with time_machine.travel(landed_s + RESTS_AFTER_S - 1, tick=False) as clock:
        assert compactor.rewrite(lake.table) is None
        clock.shift(1)
        rewritten = compactor.rewrite(lake.table)
        assert rewritten is not None
        assert len(rewritten.replaced) == 3
    lake.add(events(lake, {"id": 1}))
    assert compactor.rewrite(lake.table) is None


def test_files_are_as_old_as_the_first_of_them_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(3):
        lake.add(events(lake, {"id": 1}))
    with time_machine.travel(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), tick=False) as clock:

        def slow(*given: Any, **named: Any) -> tuple[Bin, ...]:
            clock.shift(MAX_AGE_S)
            return chosen(*given, **named)

        monkeypatch.setattr(compaction, "chosen", slow)
        rewritten = Compactor(lake.product, SMALL).rewrite(lake.table)
        assert rewritten is not None
        with pytest.raises(Unavailable):
            rewritten.draft(lake.table)


def test_a_contract_may_want_none(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(10):
        lake.add(events(lake, {"id": 1}))
    contract = lake.product.contract
    without = replace(lake.product, contract=replace(contract, upkeep=replace(contract.upkeep, compaction=None)))
    assert compact_once(lake.catalog, without) is None
    assert compact_once(lake.catalog, lake.product) is not None


# --- the snapshot ---


def test_the_snapshot_says_what_it_is_and_history_reads_as_before(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    heads = [lake.add(events(lake, {"id": number}, {"id": number})) for number in range(4)]
    earlier = lake.table.scan(snapshot_id=heads[1]).to_arrow().num_rows
    done = compacted(lake)
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation is Operation.REPLACE
    said = snapshot.summary.additional_properties
    assert said[UPKEEP_NOTE] == "compaction"
    assert (said["total-data-files"], said["total-records"]) == ("1", "8")
    assert (said["added-records"], said["deleted-records"]) == ("8", "8")
    assert (done.files, done.into, done.rows) == (4, 1, 8)
    assert said["added-files-size"] == str(done.bytes_after)
    assert said["removed-files-size"] == str(done.bytes_before)
    assert lake.table.scan(snapshot_id=heads[1]).to_arrow().num_rows == earlier == 4
    # The ledger goes on where it was.
    lake.add(events(lake, {"id": 9}))
    assert read_ledger(lake.table, lake.product) == lake.ledger
    assert [row["_kafka_offset"] for row in lake.rows()] == list(range(9))


def test_again_and_again_each_with_new_files(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("id", "bucket[2]")], [SortField("id")])
    counts = []
    for step in range(40):
        lake.add(events(lake, *({"id": step * 10 + n} for n in range(4))))
        if step % 4 == 3:
            once(lake, Compaction(min_files=4))
            counts.append(len(live(lake)))
    assert max(counts) <= 2 * (4 + math.log(160, 1.5))
    assert [row["_kafka_offset"] for row in lake.rows()] == list(range(160))
    assert all(later - sooner <= 8 for sooner, later in pairwise(counts))


def test_a_held_product_rests(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(4):
        lake.add(events(lake, {"id": 1}))
    hold(lake.catalog, lake.product, "moving house", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(Held):
        once(lake)


@pytest.mark.parametrize("orders", [[], [SortField("id")]])
def test_files_without_rows_become_one(tmp_path: Path, orders: list[SortField]) -> None:
    lake = lake_of(tmp_path, [], orders)
    for _ in range(3):
        file = write_file(lake.table, (), Record(), None, lake.product)
        staged, lake.ledger = lake.staged(Written.for_(lake.table, (file,)), 0)
        lake.send(staged)
        lake.reload()
    assert compacted(lake).rows == 0
    assert once(lake) is None


def test_zero_and_minus_zero_are_two_partitions(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("price.amount", "identity")])
    for _ in range(3):
        lake.add(events(lake, *({"id": 1, "price": {"currency": "EUR", "amount": zero}} for zero in (0.0, -0.0))))
    assert compacted(lake).into == 2
    assert sorted(str(file.partition[0]) for file in live(lake)) == ["-0.0", "0.0"]


def test_bounds_of_a_file_of_several_row_groups_hide_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_of(tmp_path, [])
    for mail in ("a", "z" * 5_000, "b"):
        lake.add(events(lake, {"id": 1, "mail": mail}))
    monkeypatch.setattr(rewriting, "ROW_GROUP_ROWS", 1)
    compacted(lake)
    assert lake.count("mail > 'y'") == len(lake.table.scan("mail > 'y'").to_arrow()) == 1


def test_a_file_is_read_in_batches_that_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its compressed size is, and however its row groups were cut."""
    lake = lake_of(tmp_path, [])
    lake.add(events(lake, *({"id": n, "mail": "m" * 1_000} for n in range(3_000))))
    monkeypatch.setattr(file_rows, "BATCH_BYTES", 100_000)
    reader = FileRows(lake.table)
    sizes = [[batch.num_rows for batch in reader.of(live(lake)[0])] for _ in range(2)]
    assert sizes[0][0] == file_rows.FIRST_ROWS
    assert max(sizes[1]) <= 100
    assert sum(sizes[0]) == sum(sizes[1]) == 3_000


def test_it_gives_up_when_it_is_ended(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for _ in range(4):
        lake.add(events(lake, {"id": 1}))
    compactor = Compactor(lake.product, SMALL)
    compactor.ended.set()
    with pytest.raises(Exception, match="broken off"):
        compactor.rewrite(lake.table)


def test_the_contracts_partitions_are_those_of_the_files(tmp_path: Path) -> None:
    """A partition's values are taken over from the files, whatever they would be computed to."""
    lake = lake_of(tmp_path, [("_kafka_timestamp", "hour")])
    contract = replace(lake.product.contract, partition_by=(PartitionField("_kafka_timestamp", "hour"),))
    lake.product = replace(lake.product, contract=contract)
    for _ in range(4):
        lake.add(events(lake, {"id": 1}))
    compacted(lake)
    (file,) = live(lake)
    assert (file.partition[0], file.record_count) == (0, 4)
