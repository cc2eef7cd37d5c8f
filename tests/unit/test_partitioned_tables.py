"""Partitioned, sorted tables: what the sink writes is what pyiceberg and DuckDB read, and skip."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.masks import Mask
from headrace.schemas.product import PartitionField, SortField
from headrace.schemas.table_layout import layout_change
from headrace.schemas.types import arrow_field
from headrace.streams.past import Past
from headrace.streams.portions import OFFSET, Span
from tests.support.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.manifest import DataFile

PRICE = {
    "type": "record",
    "name": "Price",
    "fields": [{"name": "currency", "type": "string"}, {"name": "amount", "type": "double"}],
}
FIELDS = {
    "id": "long",
    "at": {"type": "long", "logicalType": "timestamp-micros"},
    "born": {"type": "int", "logicalType": "date"},
    "uid": {"type": "string", "logicalType": "uuid"},
    "fee": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "raw": "bytes",
    "local": {"type": "long", "logicalType": "local-timestamp-micros"},
    "ok": "boolean",
    "mail": "string",
    "price": PRICE,
}
SCHEMA = AvroSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Event",
            "fields": [
                {"name": name, "type": ["null", kind] if name != "id" else kind} for name, kind in FIELDS.items()
            ],
        }
    )
)
EMPTY: dict[str, Any] = dict.fromkeys(FIELDS)
FULL: dict[str, Any] = {
    "at": dt.datetime(1969, 12, 31, 23, 30, tzinfo=dt.UTC),
    "born": dt.date(1, 1, 1),
    "uid": uuid.UUID(int=7).bytes,
    "fee": Decimal("-0.01"),
    "raw": b"\xff\x00/",
    "local": dt.datetime.fromisoformat("9999-12-31T23:59:59.999999"),
    "ok": True,
    "mail": "a" * 400 + "/../é",
    "price": {"currency": "EUR", "amount": math.nan},
}


def lake_of(
    folder: Path, by: Sequence[tuple[str, str]], sort: Sequence[SortField] = (), masks: dict[str, Mask] | None = None
) -> Lake:
    lake = Lake(folder, SCHEMA, masks)
    lay_out(lake, by, sort)
    return lake


def lay_out(lake: Lake, by: Sequence[tuple[str, str]], sort: Sequence[SortField] = ()) -> None:
    """Let an existing table follow what its contract says of its layout now."""
    contract = replace(
        lake.product.contract, partition_by=tuple(PartitionField(*each) for each in by), sort_by=tuple(sort)
    )
    lake.product = replace(lake.product, contract=contract)
    change = layout_change(contract, lake.table.schema(), lake.table.metadata)
    lake.catalog.commit_table(lake.table, change.requirements, change.updates)
    lake.reload()
    assert not layout_change(contract, lake.table.schema(), lake.table.metadata)


def events(lake: Lake, *given: dict[str, Any]) -> pa.StructArray:
    kind = pa.struct([arrow_field(field) for field in lake.table.schema().fields if field.name in FIELDS])
    return pa.array([{**EMPTY, **each} for each in given], kind)


def planned(lake: Lake, where: str) -> int:
    """Return how many files a scan reads."""
    return len(list(lake.table.scan(where).plan_files()))


def files(lake: Lake) -> list[DataFile]:
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    manifests = snapshot.manifests(lake.table.io)
    return [entry.data_file for manifest in manifests for entry in manifest.fetch_manifest_entry(lake.table.io)]


ALL = [
    ("id", "bucket[64]"),
    ("at", "hour"),
    ("born", "identity"),
    ("uid", "identity"),
    ("fee", "truncate[50]"),
    ("raw", "identity"),
    ("local", "identity"),
    ("ok", "identity"),
    ("mail", "identity"),
    ("price.currency", "truncate[2]"),
    ("price.amount", "identity"),
    ("_kafka_timestamp", "year"),
]


@pytest.mark.parametrize(("path", "transform"), ALL)
def test_values_of_every_kind_are_partitioned_by_and_read_back(tmp_path: Path, path: str, transform: str) -> None:
    lake = lake_of(tmp_path, [(path, transform)])
    plain = Lake(tmp_path / "plain", SCHEMA)
    given = [{"id": 0}, {"id": 1, **FULL}, {"id": 2}, {"id": 3, **FULL, "at": dt.datetime.min.replace(tzinfo=dt.UTC)}]
    for each in (lake, plain):
        each.add(events(each, *given[:2]))
        # The second commit reads the first one's manifest and writes both anew.
        with each.table.transaction() as transaction:
            transaction.set_properties({"commit.manifest.min-count-to-merge": "2"})
        each.reload()
        each.add(events(each, *given[2:]))
    assert str(lake.rows()) == str(plain.rows())
    scanned, expected = (each.table.scan().to_arrow().sort_by(OFFSET).to_pylist() for each in (lake, plain))
    assert str(scanned) == str(expected)
    assert len(files(lake)) == (2 if path == "_kafka_timestamp" else 4)
    snapshot = lake.table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(lake.table.io)) == 1


def test_a_spec_of_all_at_once(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, ALL)
    lake.add(events(lake, {"id": 0}, {"id": 1, **FULL}, {"id": 2, **FULL}))
    assert [row["id"] for row in lake.rows()] == [0, 1, 2]
    names = {"id_bucket_64", "at_hour", "born", "price.currency_trunc_2", "price.amount", "_kafka_timestamp_year"}
    assert names <= {field.name for field in lake.table.spec().fields}


def test_scans_skip_the_partitions_that_they_do_not_want(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("at", "day"), ("price.currency", "identity")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    given: list[dict[str, Any]] = [
        {"id": n, "at": start + dt.timedelta(hours=n), "price": {"currency": "EUR" if n % 2 else "USD", "amount": 1.0}}
        for n in range(96)
    ]
    lake.add(events(lake, *given, {"id": 96}))
    assert len(files(lake)) == 4 * 2 + 1
    day = "at >= '2026-01-02T00:00:00+00:00' and at < '2026-01-03T00:00:00+00:00'"
    assert planned(lake, day) == 2
    assert planned(lake, f"{day} and price.currency = 'EUR'") == 1
    assert planned(lake, "at is null") == 1
    found = lake.table.scan(f"{day} and price.currency = 'EUR'").to_arrow()
    assert found["id"].to_pylist() == [n for n in range(24, 48) if n % 2]


def test_duckdb_skips_and_finds_by_partition(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("at", "day"), ("id", "bucket[8]")])
    start = dt.datetime(1969, 12, 30, tzinfo=dt.UTC)
    lake.add(events(lake, *({"id": n - 50, "at": start + dt.timedelta(hours=n)} for n in range(100))))
    day = "\"at\" BETWEEN TIMESTAMPTZ '1969-12-31' AND TIMESTAMPTZ '1969-12-31 23:59'"
    assert lake.count(day) == 24
    assert lake.count("id = -3") == 1
    # What is not there cannot be opened.
    for file in files(lake):
        if file.partition[0] != -1:
            Path(file.file_path.removeprefix("file://")).unlink()
    assert lake.count(day) == 24


def test_the_manifest_says_what_each_file_holds(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("born", "month"), ("id", "truncate[10]")], [SortField("mail", descending=True)])
    born = [dt.date(1969, 12, 31), dt.date(1970, 1, 1), None]
    lake.add(events(lake, *({"id": n - 15, "born": born[n % 3], "mail": str(n % 7)} for n in range(30))))
    found = files(lake)
    assert {(each.partition[0], each.partition[1]) for each in found} == {
        (month, tens) for month in (-1, 0, None) for tens in (-20, -10, 0, 10)
    }
    assert sum(each.record_count for each in found) == 30
    order_id = lake.table.metadata.default_sort_order_id
    assert order_id == 1
    assert {(each.sort_order_id, each.spec_id) for each in found} == {(order_id, lake.table.spec().spec_id)}
    for each in found:
        rows = pq.read_table(each.file_path.removeprefix("file://"), partitioning=None).to_pylist()
        assert len(rows) == each.record_count
        assert {row["id"] // 10 * 10 for row in rows} == {each.partition[1]}
        assert [row["mail"] for row in rows] == sorted((row["mail"] for row in rows), reverse=True)
        offset_id = lake.table.schema().find_field(OFFSET).field_id
        bounds = [int.from_bytes(bound[offset_id], "little") for bound in (each.lower_bounds, each.upper_bounds)]
        assert bounds == [min(row[OFFSET] for row in rows), max(row[OFFSET] for row in rows)]


def test_a_partition_is_made_of_the_masked_value(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("mail", "identity")], masks={"mail": Mask.SHOW_FIRST_4})
    lake.add(events(lake, *({"id": n, "mail": f"anna{n}@example.org"} for n in range(3))))
    assert [each.partition[0] for each in files(lake)] == ["anna" + "x" * 13]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"example.org" not in written


def test_a_table_s_layout_may_change_between_batches(tmp_path: Path) -> None:
    """Old files keep their spec and their order; manifests of one spec are merged with each other alone."""
    lake = Lake(tmp_path, SCHEMA)
    with lake.table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.min-count-to-merge": "2"})
    lake.reload()
    layouts: list[list[tuple[str, str]]] = [[], [("id", "bucket[3]")], [("at", "day")], [("id", "bucket[3]")], []]
    ids = iter(range(1000))
    for by in layouts:
        lay_out(lake, by, [SortField("id", descending=True)] if by else [])
        for _ in range(3):
            lake.add(events(lake, *({"id": next(ids), "at": FULL["at"]} for _ in range(6))))
    count = next(ids)
    assert [row["id"] for row in lake.rows()] == list(range(count))
    assert sorted(lake.table.scan().to_arrow()["id"].to_pylist()) == list(range(count))
    assert lake.table.scan("id = 40").to_arrow()["_kafka_offset"].to_pylist() == [40]
    assert len(lake.table.specs()) == 3
    assert {each.spec_id for each in files(lake)} == {0, 1, 2}
    field_ids = {field.name: field.field_id for spec in lake.table.specs().values() for field in spec.fields}
    assert field_ids == {"id_bucket_3": 1000, "at_day": 1001}


def test_files_are_written_again_if_the_spec_has_moved(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("id", "bucket[2]")])
    written = lake.write(events(lake, *({"id": n} for n in range(10))))
    assert len(written.files) == 2
    assert written.fits(lake.reload())
    lay_out(lake, [("id", "bucket[5]")])
    assert not written.fits(lake.table)


def test_history_reads_partitioned_sorted_rows_in_the_order_of_offsets(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("id", "bucket[7]")], [SortField("id", descending=True)])
    for first in (0, 500):
        lake.add(events(lake, *({"id": n} for n in range(first, first + 500))))
    past = Past(lake.table, lake.product, ["id"])
    read = list(offsets(past.rows({0: Span(100, 900)})))
    assert read == list(range(100, 900))


def offsets(batches: Iterator[tuple[int, pa.RecordBatch]]) -> Iterator[int]:
    for _, batch in batches:
        assert batch.column("id").to_pylist() == batch.column(OFFSET).to_pylist()
        yield from batch.column(OFFSET).to_pylist()


def test_late_events_over_hundreds_of_partitions_are_a_file_each(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("at", "day")])
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    given = ({"id": n, "at": start + dt.timedelta(days=n * 7919 % 300)} for n in range(3000))
    lake.add(events(lake, *given))
    found = files(lake)
    assert len(found) == 300
    assert {each.record_count for each in found} == {10}
    assert lake.count("true") == 3000


def test_two_partitions_of_one_decimal_uuid_or_fixed_make_a_manifest_that_all_can_read(tmp_path: Path) -> None:
    """Avro defines a named type once, and each of these is one in a manifest."""
    fixed = {"type": "fixed", "name": "F", "size": 2}
    kinds = {"fee": FIELDS["fee"], "due": FIELDS["fee"], "uid": FIELDS["uid"], "by": FIELDS["uid"]}
    kinds |= {"one": fixed, "two": "F"}
    members = [{"name": name, "type": kind} for name, kind in kinds.items()]
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": members})))
    lay_out(lake, [*((name, "identity") for name in kinds), ("fee", "truncate[50]")])
    event = {
        "fee": Decimal("1.25"),
        "due": Decimal("2.50"),
        "uid": b"u" * 16,
        "by": b"b" * 16,
        "one": b"11",
        "two": b"22",
    }
    kind = pa.struct([arrow_field(field) for field in lake.table.schema().fields if field.name in kinds])
    lake.add(pa.array([event], kind))
    snapshot = lake.reload().current_snapshot()
    assert snapshot is not None
    (manifest,) = snapshot.manifests(lake.table.io)
    with lake.table.io.new_input(manifest.manifest_path).open() as stream:
        entries: list[Any] = list(fastavro.reader(io.BytesIO(stream.read())))
    assert [entry["data_file"]["partition"]["due"] for entry in entries] == [Decimal("2.50")]
    assert (planned(lake, "due > 3"), planned(lake, "due > 2")) == (0, 1)
    assert lake.count("fee = 1.25 AND due = 2.5") == 1


@pytest.mark.parametrize(("precision", "width"), [(9, 50), (18, 7), (38, 1000)])
def test_the_lowest_decimal_is_rounded_down_to_a_digit_more(tmp_path: Path, precision: int, width: int) -> None:
    fee = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2}
    schema = {"type": "record", "name": "Event", "fields": [{"name": "fee", "type": fee}]}
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps(schema)))
    lay_out(lake, [("fee", f"truncate[{width}]")])
    lowest = Decimal((1, (9,) * precision, -2))
    values = [{"fee": lowest}, {"fee": Decimal("0.01")}, {"fee": lowest.copy_negate()}]
    lake.add(pa.array(values, pa.struct([("fee", pa.decimal128(precision, 2))])))
    assert [row["fee"] for row in lake.rows("fee")] == [each["fee"] for each in values]
    assert lake.count("fee < 0") == 1
    assert len(lake.table.scan(f"fee = {lowest}").to_arrow()) == 1
    assert len(lake.table.scan("fee < 0").to_arrow()) == 1
