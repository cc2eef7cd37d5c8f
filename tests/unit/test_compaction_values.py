"""Compaction changes no value: tables of every type, and of evolved columns, read by DuckDB and by pyiceberg."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pyiceberg.types import DecimalType, FixedType, StringType, TimeType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.product import SortField
from headrace.sinks.files import columns_of, write_rows
from tests.support.compacting import compacted, live
from tests.support.evolving import encoded
from tests.support.lake import Lake
from tests.unit.test_evolution import ALLOWED, parse
from tests.unit.test_evolution_tables import events as one_event
from tests.unit.test_partitioned_tables import FULL, events, lake_of
from tests.unit.test_type_round_trip import HEADER, SCHEMA_ID, decoded, drawn_events, messages

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(EXAMPLES, max_examples=6)
@given(drawn_events())
def test_no_value_of_any_type_changes(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[AvroSchema, list[Any], list[Any]]
) -> None:
    schema, published, _ = drawn
    lake = Lake(tmp_path_factory.mktemp("lake"), schema)
    values = messages(schema, published)
    for first in range(4):
        start = first % len(values)
        lake.add(decoded(schema, values[start:] + values[:start]), SCHEMA_ID)
    assert compacted(lake).into == 1


STRANGE = [
    {**FULL, "price": {"currency": "\ud7ff" * 20, "amount": -0.0}, "mail": "\ud7ff" * 300},
    {**FULL, "price": {"currency": "", "amount": math.inf}, "mail": "\U0010ffff" * 20},
    {**FULL, "price": None, "raw": b"", "local": dt.datetime(1, 1, 1)},  # noqa: DTZ001
    {},
    FULL,
]


def test_strange_values_of_a_partition_and_a_sort_order_stay_as_they_are(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("price.amount", "identity")], [SortField("price.currency", descending=True)])
    for number in range(6):
        lake.add(events(lake, *({"id": number, **each} for each in STRANGE)))
    compacted(lake)
    # NaN, -0.0, infinity and null; 0.0 would be another.
    assert sorted(str(file.partition[0]) for file in live(lake)) == ["-0.0", "None", "inf", "nan"]


# Each takes a second; what is left out differs in what the table follows, and not in what its files hold.
CHANGES = [row for row in ALLOWED if re.search("widen|renam|deep|reorder|may be null|removed|added in a list", row[0])]


@pytest.mark.parametrize(("old", "new"), [row[1:3] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_files_from_before_a_change_of_columns_take_the_columns_of_today(
    tmp_path: Path, old: list[Any], new: list[Any]
) -> None:
    schemas = parse(("id", "string"), *old), parse(("id", "string"), *new)
    lake = Lake(tmp_path, schemas[0])
    lake.follow(schemas[0])
    lake.add(one_event(schemas[0], 1), 1)
    lake.add(one_event(schemas[0], 2), 1)
    lake.follow(*schemas)
    lake.add(one_event(schemas[1], 3), 2)
    assert compacted(lake).into == 1
    (file,) = live(lake)
    with lake.table.io.new_input(file.file_path).open() as stream:
        assert pq.read_schema(stream).names == [field.name for field in lake.table.schema().fields]


def nested(*fields: dict[str, Any]) -> AvroSchema:
    point = {"type": "record", "name": "Point", "fields": list(fields)}
    kinds = {
        "lists": {"type": "array", "items": ["null", {"type": "array", "items": ["null", point]}]},
        "maps": {"type": "map", "values": {"type": "array", "items": "Point"}},
        "both": {"type": "array", "items": {"type": "map", "values": ["null", "Point"]}},
    }
    columns = [{"name": name, "type": ["null", kind], "default": None} for name, kind in kinds.items()]
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": columns}))


def test_what_was_renamed_inside_of_lists_of_lists_and_maps_keeps_its_values(tmp_path: Path) -> None:
    """pyiceberg alone finds such fields by their names: whoever wrote what it reads would lose them for good."""
    old = nested({"name": "x", "type": "int"})
    new = nested({"name": "y", "type": "int", "aliases": ["x"]}, {"name": "z", "type": ["null", "int"]})
    point = {"x": 7}
    full = {
        "lists": (1, [(1, [(1, point), (0, None)]), (0, None), (1, [])]),
        "maps": (1, {"k": [point], "none": []}),
        "both": (1, [{"k": (1, point), "none": (0, None)}, {}]),
    }
    body = [HEADER + encoded(old, each) for each in (full, dict.fromkeys(full, (0, None)))]
    lake = Lake(tmp_path, old)
    lake.follow(old)
    for _ in range(3):
        lake.add(decoded(old, body), 1)
    lake.follow(old, new)
    compacted(lake)
    first, second = lake.rows("lists", "maps", "both")[:2]
    kept = {"y": 7, "z": None}
    assert first == {
        "lists": [[kept, None], None, []],
        "maps": [("k", [kept]), ("none", [])],
        "both": [[("k", kept), ("none", None)], []],
    }
    assert second == dict.fromkeys(first)


def test_columns_that_another_engine_has_changed_are_read_by_their_ids(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [])
    for number in range(2):
        lake.add(events(lake, {**FULL, "id": number}))
    with lake.table.update_schema() as update:
        update.update_column("fee", field_type=DecimalType(30, 2))
        update.rename_column("mail", "post")
        update.delete_column("ok")
        update.add_column("fixed", FixedType(3))
        update.add_column("time", TimeType())
    with lake.reload().update_schema() as update:
        # Both names were other columns' before.
        update.rename_column("raw", "mail")
        update.add_column("ok", StringType())
    schema = columns_of(lake.reload())
    place = {"_kafka_partition": 0, "_kafka_offset": 2, "_schema_id": 1, "_generation": 1}
    row = {"id": 7, "mail": b"raw", "ok": "new", "fixed": b"abc", "time": dt.time(1, 2), **place}
    written = write_rows(lake.table, pa.Table.from_pylist([row], schema), lake.product)
    staged, lake.ledger = lake.staged(written, 1)
    lake.send(staged)
    lake.reload()
    compacted(lake)
    first, _, last = lake.rows("mail", "post", "ok", "fee")
    assert first == {"mail": FULL["raw"], "post": FULL["mail"], "ok": None, "fee": FULL["fee"]}
    assert last == {"mail": b"raw", "post": None, "ok": "new", "fee": None}
