"""Data files: the rows of decoded chunks, and what Iceberg is told of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import IdentityTransform, UnknownTransform

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask
from headrace.sinks import files
from headrace.sinks.batch import Chunk
from headrace.sinks.files import ROW_GROUP_ROWS, Shape, write_rows
from headrace.streams.masked import MASK_PROPERTIES
from tests.support.lake import Lake, chunk_of

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = AvroSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Event",
            "fields": [{"name": "id", "type": "long"}, {"name": "email", "type": ["null", "string"]}],
        }
    )
)


def events(*ids: int) -> pa.StructArray:
    return pa.array(
        [{"id": i, "email": f"user{i}@example.org"} for i in ids], pa.struct({"id": pa.int64(), "email": pa.string()})
    )


def shape_of(lake: Lake, *, key_masked: bool = False) -> Shape:
    return Shape(lake.product, SCHEMA.record, Masker(lake.product.masks, b"key"), key_masked=key_masked)


def test_rows_carry_the_events_and_where_they_came_from(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA, {"email": Mask.SHOW_FIRST_4})
    chunks = [chunk_of(events(7, 8), 40, partition=3, schema_id=9), chunk_of(events(9), 0, partition=1, schema_id=10)]
    rows = shape_of(lake).rows(lake.table, chunks, generation=2)
    assert rows.column("id").to_pylist() == [7, 8, 9]
    assert rows.column("email").to_pylist() == ["user" + "x" * 13] * 3
    assert rows.column("_kafka_partition").to_pylist() == [3, 3, 1]
    assert rows.column("_kafka_offset").to_pylist() == [40, 41, 0]
    assert rows.column("_kafka_timestamp").cast(pa.int64()).to_pylist() == [40_000_000, 41_000_000, 0]
    assert rows.column("_kafka_key").to_pylist() == [b"k"] * 3
    assert rows.column("_schema_id").to_pylist() == [9, 9, 10]
    assert rows.column("_generation").to_pylist() == [2, 2, 2]
    assert rows.schema.names == [field.name for field in lake.table.schema().fields]


def test_a_masked_key_is_not_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    rows = shape_of(lake, key_masked=True).rows(lake.table, [chunk_of(events(1, 2), 0)], 1)
    assert rows.column("_kafka_key").to_pylist() == [None, None]


def test_a_timestamp_that_kafka_does_not_have_or_no_calendar_holds_is_null(tmp_path: Path) -> None:
    """A producer may send any number; one that overflowed would stop the sink, or be another time."""
    lake = Lake(tmp_path, SCHEMA)
    stamps = np.array([-1, 0, 253_402_300_799_999, 253_402_300_800_000, 2**62, -(2**63)])
    whole = chunk_of(events(*range(6)), 0)
    chunk = Chunk(0, 1, whole.events, whole.offsets, stamps, whole.keys)
    rows = shape_of(lake).rows(lake.table, [chunk], 1)
    expected = [None, 0, 253_402_300_799_999_000, None, None, None]
    assert rows.column("_kafka_timestamp").cast(pa.int64()).to_pylist() == expected
    assert len(write_rows(lake.table, rows, lake.product).files) == 1


def test_chunks_without_events_make_no_rows_and_no_file(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    empty = chunk_of(events(), 0)
    refused = Chunk(0, -1, None, empty.offsets, empty.timestamps_ms, empty.keys)
    for chunks in ([], [refused], [refused, empty]):
        rows = shape_of(lake).rows(lake.table, chunks, 1)
        assert rows.num_rows == 0
        written = write_rows(lake.table, rows, lake.product)
        assert written.files == ()
        assert written.fits(lake.table)
    assert not list(tmp_path.rglob("*.parquet"))


def test_what_iceberg_is_told_of_a_file_is_true(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    rows = shape_of(lake).rows(lake.table, [chunk_of(events(5, 3, 4), 10)], 1)
    (file,) = write_rows(lake.table, rows, lake.product).files
    path = next(tmp_path.rglob("*.parquet"))
    assert file.file_path == f"file://{path}"
    assert file.file_size_in_bytes == path.stat().st_size
    assert file.record_count == 3
    ids = {field.name: field.field_id for field in lake.table.schema().fields}
    assert file.value_counts[ids["id"]] == 3
    assert file.null_value_counts[ids["email"]] == 0
    lower, upper = file.lower_bounds[ids["id"]], file.upper_bounds[ids["id"]]
    assert (int.from_bytes(lower, "little"), int.from_bytes(upper, "little")) == (3, 5)
    assert int.from_bytes(file.upper_bounds[ids["_kafka_offset"]], "little") == 12


def test_the_file_is_laid_out_for_engines(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    lake.write(events(*range(100)))
    metadata = pq.ParquetFile(next(tmp_path.rglob("*.parquet")))
    group = metadata.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in columns["_kafka_offset"].encodings
    assert "DELTA_BINARY_PACKED" in columns["_kafka_timestamp"].encodings
    assert columns["_schema_id"].has_dictionary_page
    assert not columns["_kafka_key"].has_dictionary_page
    ids = [field.metadata[b"PARQUET:field_id"] for field in metadata.schema_arrow]
    assert ids == [str(field.field_id).encode() for field in lake.table.schema().fields]
    assert ROW_GROUP_ROWS >= 400_000


def test_a_file_fits_only_the_schema_masks_and_partitioning_that_it_was_written_for(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    written = lake.write(events(1))
    assert written.fits(lake.table)
    with lake.table.update_schema() as update:
        update.make_column_optional("id")
    assert not written.fits(lake.reload())
    written = lake.write(events(1))
    with lake.table.transaction() as transaction:
        transaction.set_properties({f"{MASK_PROPERTIES}email": "hmac-sha-256"})
    assert not written.fits(lake.reload())
    written = lake.write(events(1))
    with lake.table.update_spec() as spec:
        spec.add_field("id", IdentityTransform(), "by_id")
    assert not written.fits(lake.reload())


def test_a_partition_spec_that_this_version_does_not_know_stops_the_product(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    # pyiceberg loads such a table, and makes none.
    unknown = PartitionSpec(PartitionField(1, 1000, UnknownTransform("zorder[4]"), "id_zorder"))
    lake.table.metadata = lake.table.metadata.model_copy(update={"partition_specs": [unknown]})
    with pytest.raises(ProductStopped, match="partition spec"):
        lake.write(events(1))
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_batch_over_too_many_partitions_stops_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_PARTITIONS", 3)
    lake = Lake(tmp_path, SCHEMA)
    with lake.table.update_spec() as spec:
        spec.add_field("id", IdentityTransform(), "id")
    lake.reload()
    assert len(lake.write(events(1, 2, 3, 1)).files) == 3
    with pytest.raises(ProductStopped, match="lie in 4 partitions"):
        lake.write(events(1, 2, 3, 4))


def test_storage_that_fails_is_unavailable_and_can_be_written_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path, SCHEMA)
    folder = tmp_path / "warehouse" / "shop"
    data = next(path for path in folder.rglob("metadata")).parent / "data"
    data.write_text("a file stands where the folder should")
    with pytest.raises(Unavailable) as caught:
        lake.write(events(1))
    assert caught.value.hint
    assert "@example.org" not in str(caught.value)
    data.unlink()
    assert len(lake.write(events(1)).files) == 1


def test_many_chunks_become_one_file(tmp_path: Path) -> None:
    lake = Lake(tmp_path, SCHEMA)
    chunks: list[Any] = [chunk_of(events(*range(start, start + 10)), start) for start in range(0, 100, 10)]
    rows = shape_of(lake).rows(lake.table, chunks, 1)
    written = write_rows(lake.table, rows, lake.product)
    (file,) = written.files
    assert file.record_count == 100
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
