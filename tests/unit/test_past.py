"""Rows of a table as events: in order, within their spans, a window at a time; what is relied on of pyiceberg."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import ArrowScan

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.masking import Masker
from headrace.sinks.batch import Chunk
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.sinks.files import Shape, write_rows
from headrace.streams import past
from headrace.streams.past import Axis, Extent, Past
from headrace.streams.portions import OFFSET, PARTITION, Span
from tests.support.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FIELDS: list[dict[str, Any]] = [{"name": "id", "type": "long"}, {"name": "email", "type": ["null", "string"]}]


def schema(*more: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": [*FIELDS, *more]}))


SCHEMA = schema()
NAMES = ("id", "email")


def add(lake: Lake, partition: int, offsets: Iterable[int], *, schema_id: int = 1) -> None:
    """Commit events whose ids are their offsets, in the order that is given."""
    places = np.array(list(offsets))
    rows = [{field.name: None for field in lake.reader.record.fields} | {"id": int(place)} for place in places]
    types = {"id": pa.int64(), "email": pa.string(), "note": pa.string()}
    kind = pa.struct([(field.name, types[field.name]) for field in lake.reader.record.fields])
    chunk = Chunk(
        partition, schema_id, pa.array(rows, kind), places, places * 1_000, pa.nulls(len(places), pa.binary())
    )
    shape = Shape(lake.product, lake.reader.record, Masker({}, b"key"), key_masked=False)
    written = write_rows(lake.table, shape.rows(lake.table, [chunk], 1), lake.product)
    lake.send(stage(lake.table, Draft(lake.ledger, written.files)))
    lake.reload()


def read(lake: Lake, spans: dict[int, Span], names: Sequence[str] = NAMES) -> list[tuple[int, int]]:
    """Return partition and offset of each row, in the order in which they come."""
    found = []
    for partition, batch in Past(lake.table, lake.product, frozenset(names)).rows(spans):
        assert set(batch.column(PARTITION).to_pylist()) == {partition}
        assert batch.column(OFFSET).to_pylist() == batch.column("id").to_pylist()
        found += [(partition, offset) for offset in batch.column(OFFSET).to_pylist()]
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def test_rows_come_in_the_order_of_offsets_whatever_file_they_are_in(lake: Lake) -> None:
    add(lake, 0, [5, 3, 4])
    add(lake, 0, range(3))
    add(lake, 1, [1, 0])
    assert read(lake, {0: Span(0, 6), 1: Span(0, 2)}) == [*((0, n) for n in range(6)), (1, 0), (1, 1)]


def test_only_the_rows_of_the_spans_come(lake: Lake) -> None:
    for partition in range(3):
        add(lake, partition, range(10))
    assert read(lake, {0: Span(7, 10), 2: Span(0, 2)}) == [(0, 7), (0, 8), (0, 9), (2, 0), (2, 1)]
    assert read(lake, {0: Span(4, 4)}) == []
    assert read(lake, {}) == []


def test_a_table_without_rows_has_no_history(lake: Lake) -> None:
    assert read(lake, {0: Span(0, 100)}) == []


def test_windows_are_read_one_after_the_other_and_each_file_only_where_it_is_needed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(0, 100, 10):
        add(lake, 0, range(first, first + 10))
    opened: list[int] = []
    scan = ArrowScan.to_table

    def counted(self: ArrowScan, tasks: Any) -> pa.Table:
        opened.append(len(tasks))
        return scan(self, tasks)

    monkeypatch.setattr(ArrowScan, "to_table", counted)
    monkeypatch.setattr(past, "WINDOW_ROWS", 30)
    coming = Past(lake.table, lake.product, frozenset(NAMES)).rows({0: Span(0, 100)})
    next(coming)
    assert opened == [3]
    assert sum(len(batch) for _, batch in coming) == 70
    assert opened == [3, 3, 3, 1]


def note(number: int) -> str:
    """Return a text whose length tells rows apart, and which compresses to nearly nothing."""
    return "x" * (100_000 if number in {3, 40} else 1_000)


def test_windows_are_bounded_in_bytes_whatever_the_files_say(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "WINDOW_BYTES", 20_000)
    kind = pa.struct([("id", pa.int64()), ("email", pa.string())])
    # In file order one after the other, so that offsets are ids.
    for numbers in (range(30), range(30, 50)):
        lake.add(pa.array([{"id": number, "email": note(number)} for number in numbers], kind))
    sizes: list[int] = []
    found: list[int] = []
    for _, batch in Past(lake.table, lake.product, frozenset(NAMES)).rows({0: Span(0, 50)}):
        sizes.append(batch.nbytes)
        found += batch.column("id").to_pylist()
    assert found == list(range(50))
    # A row that is larger than any window comes alone.
    assert sorted(sizes)[-2:] == [max(sizes)] * 2
    assert all(size <= 20_000 for size in sorted(sizes)[:-2])


def test_bytes_are_counted_before_a_window_is_whole(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held in memory are the batches read so far: a scan stops in the midst of its files."""
    monkeypatch.setattr(past, "WINDOW_BYTES", 20_000)
    kind = pa.struct([("id", pa.int64()), ("email", pa.string())])
    for first in range(0, 100, 10):
        lake.add(pa.array([{"id": number, "email": "x" * 1_000} for number in range(first, first + 10)], kind))
    whole: list[int] = []
    to_table = ArrowScan.to_table

    def measured(self: ArrowScan, tasks: Any) -> pa.Table:
        table = to_table(self, tasks)
        whole.append(table.nbytes)
        return table

    monkeypatch.setattr(ArrowScan, "to_table", measured)
    assert read(lake, {0: Span(0, 100)}) == [(0, number) for number in range(100)]
    assert max(whole) <= 20_000


def test_deleted_rows_do_not_come(lake: Lake) -> None:
    add(lake, 0, range(10))
    add(lake, 0, range(10, 20))
    lake.table.delete("id = 4 or id = 15")
    lake.reload()
    assert read(lake, {0: Span(0, 20)}) == [(0, n) for n in range(20) if n not in (4, 15)]


def test_files_from_before_a_column_show_it_as_null(lake: Lake) -> None:
    add(lake, 0, range(2))
    newer = schema({"name": "note", "type": ["null", "string"], "default": None})
    lake.follow(SCHEMA, newer)
    add(lake, 0, range(2, 4), schema_id=2)
    batches = [batch for _, batch in Past(lake.table, lake.product, frozenset({"id", "note"})).rows({0: Span(0, 4)})]
    (batch,) = batches
    assert batch.column("note").to_pylist() == [None] * 4
    assert "email" not in batch.schema.names
    # A column that the table does not have is left out.
    assert read(lake, {0: Span(0, 4)}, ("id", "unknown")) == [(0, n) for n in range(4)]


def test_what_is_committed_meanwhile_is_not_read(lake: Lake) -> None:
    add(lake, 0, range(5))
    table = lake.table
    coming = Past(table, lake.product, frozenset(NAMES)).rows({0: Span(0, 100)})
    add(lake, 0, range(5, 10))
    assert sum(len(batch) for _, batch in coming) == 5


def test_a_file_that_is_gone_is_unavailable(lake: Lake) -> None:
    add(lake, 0, range(3))
    (task,) = lake.table.scan().plan_files()
    lake.table.io.delete(task.file.file_path)
    with pytest.raises(Unavailable):
        read(lake, {0: Span(0, 3)})


def test_a_file_that_is_damaged_stops_the_product(lake: Lake) -> None:
    add(lake, 0, range(3))
    (task,) = lake.table.scan().plan_files()
    with lake.table.io.new_output(task.file.file_path).create(overwrite=True) as stream:
        stream.write(b"no Parquet")
    with pytest.raises(ProductStopped, match="a data file cannot be read") as caught:
        read(lake, {0: Span(0, 3)})
    assert caught.value.hint


UNIT = {"type": "record", "name": "Unit", "fields": [{"name": "u", "type": "string"}]}
LISTED = {"name": "listed", "type": ["null", {"type": "array", "items": UNIT}], "default": None}
MAPPED = {"name": "mapped", "type": ["null", {"type": "map", "values": "Unit"}], "default": None}
NESTED = {"name": "nested", "type": ["null", {"type": "record", "name": "Nest", "fields": [LISTED, MAPPED]}]}


def test_null_lists_and_maps_of_records_stay_null_at_any_depth(tmp_path: Path) -> None:
    """A promise of this module's: pyiceberg makes empty ones of them."""
    unit = pa.struct([pa.field("u", pa.string(), nullable=False)])
    both = [("listed", pa.list_(unit)), ("mapped", pa.map_(pa.string(), unit))]
    kind = pa.struct([("id", pa.int64()), ("nested", pa.struct(both)), *both])
    values: list[dict[str, Any]] = [
        {"listed": None, "mapped": None},
        {"listed": [{"u": "a"}, {"u": "b"}], "mapped": [("k", {"u": "c"})]},
        {"listed": [], "mapped": []},
        {"listed": None, "mapped": [("k", {"u": "d"}), ("l", {"u": "e"})]},
        {"listed": [{"u": "f"}], "mapped": None},
    ]
    nested = [*values, None]
    rows = [{"id": n, **values[n % 5], "nested": nested[n % 6]} for n in range(60)]
    fields = [FIELDS[0], NESTED, {**LISTED, "type": ["null", {"type": "array", "items": "Unit"}]}, MAPPED]
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": fields})))
    lake.add(pa.array(rows, kind))
    names = frozenset({"id", "nested", "listed", "mapped"})
    for first in (0, 7):
        past_rows = Past(lake.table, lake.product, names).rows({0: Span(first, 60)})
        found = [
            row for _, batch in past_rows for row in batch.select(["id", "nested", "listed", "mapped"]).to_pylist()
        ]
        assert found == [{name: row[name] for name in ("id", "nested", "listed", "mapped")} for row in rows[first:]]
    lake.table.delete("id = 10")
    lake.reload()
    ((_, batch),) = Past(lake.table, lake.product, names).rows({0: Span(9, 13)})
    assert batch.column("mapped").to_pylist() == [rows[n]["mapped"] for n in (9, 11, 12)]


def test_files_without_statistics_are_read_in_every_window(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    add(lake, 0, range(100))
    monkeypatch.setattr(past, "WINDOW_ROWS", 30)
    monkeypatch.setattr(Past, "_extent", lambda self, task, first, end: Extent(first, end - 1, task.file.record_count))
    assert read(lake, {0: Span(0, 100)}) == [(0, n) for n in range(100)]


def windows(files: Sequence[Extent], first: int, end: int, rows: int) -> list[tuple[int, int]]:
    """Cut the axis of files into windows."""
    axis = Axis.of(files, first, end)
    cuts = [axis.low]
    while cuts[-1] < axis.end:
        cuts.append(axis.after(cuts[-1], rows))
    return list(pairwise(cuts))


extents = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 200), st.integers(1, 300)).map(
        lambda drawn: Extent(drawn[0], drawn[0] + drawn[1], min(drawn[2], drawn[1] + 1))
    ),
    max_size=20,
)


@given(extents, st.integers(0, 300), st.integers(1, 600), st.integers(1, 200))
def test_windows_cover_every_file_once(files: list[Extent], first: int, length: int, rows: int) -> None:
    end = first + length
    cut = windows(files, first, end, rows)
    assert all(low < high for low, high in cut)
    assert all(before[1] == after[0] for before, after in pairwise(cut))
    inside = [file for file in files if file.low < end and file.high >= first]
    if not inside:
        assert cut == []
        return
    assert cut[0][0] <= max(min(file.low for file in inside), first)
    assert cut[-1][1] >= min(max(file.high for file in inside) + 1, end)


def test_windows_hold_about_so_many_rows() -> None:
    files = [Extent(first, first + 999, 1_000) for first in range(0, 10_000, 1_000)]
    assert windows(files, 0, 10_000, 2_500) == [(0, 2_500), (2_500, 5_000), (5_000, 7_500), (7_500, 10_000)]
    # Two partitions' files over the same offsets hold twice as much.
    assert len(windows(files * 2, 0, 10_000, 2_500)) == 8
    # A gap in the offsets holds nothing.
    assert windows([Extent(0, 9, 10), Extent(1_000_000, 1_000_009, 10)], 0, 2_000_000, 100) == [(0, 1_000_010)]
