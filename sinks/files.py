"""Data files: decoded chunks become one Parquet file of the table's columns, with what Iceberg wants to know of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record as PartitionValues

from headrace.schemas.catalog import catalog_errors
from headrace.schemas.errors import ProductStopped
from headrace.schemas.stamps import holdable
from headrace.schemas.types import METADATA_NAMES, arrow_field
from headrace.sinks.evolution import followed_version
from headrace.streams.columns import Columns
from headrace.streams.masked import masks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyiceberg.table import Table

    from headrace.schemas.avro import Record
    from headrace.schemas.masking import Masker
    from headrace.schemas.product import Product
    from headrace.sinks.batch import Chunk

# Engines split work by row groups and skip by their statistics: fewer than 400,000 rows cost both.
ROW_GROUP_ROWS = 500_000
# Offsets and times ascend mostly, so their differences are tiny; the others repeat, which dictionaries hold best.
_DELTA = ("_kafka_offset", "_kafka_timestamp")
_NO_DICTIONARY = frozenset({*_DELTA, "_kafka_key"})


@dataclass(frozen=True, slots=True)
class Written:
    """A written file and what it was written for: it can be committed only while all that still is the table's own.

    ``version`` is the subject's version that the table had followed, ``masked`` the paths that it masked: either may
    have grown since.
    """

    file: DataFile | None
    schema_id: int
    spec_id: int
    version: int
    masked: frozenset[str]

    @classmethod
    def for_(cls, table: Table, file: DataFile | None) -> Self:
        """Return a file that was written for the table as it is in this handle."""
        metadata = table.metadata
        return cls(
            file,
            metadata.current_schema_id,
            metadata.default_spec_id,
            followed_version(table),
            frozenset(masks_of(table)),
        )

    def fits(self, table: Table) -> bool:
        """Tell whether the table still has schema, partitioning, version and masks that the file was written for."""
        return self == Written.for_(table, self.file)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a product's events become rows.

    Attributes:
        product: the product.
        reader: the newest schema that the table has followed.
        masker: the product's masks.
        key_masked: whether a key field is masked: then the column ``_kafka_key`` is null.
    """

    product: Product
    reader: Record
    masker: Masker
    key_masked: bool

    def rows(self, table: Table, chunks: Sequence[Chunk], generation: int) -> pa.Table:
        """Return the chunks' rows in the table's columns, masked."""
        fields = table.schema().fields
        schema = pa.schema([arrow_field(field) for field in fields])
        columns = Columns([field for field in fields if field.name not in METADATA_NAMES], self.reader, self.masker)
        batches = []
        for chunk in chunks:
            if not len(chunk):
                continue
            arrays = dict(zip((field.name for field in columns.fields), columns.of(chunk.events), strict=True))
            arrays |= self._metadata(chunk, generation)
            batches.append(pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema))
        return pa.Table.from_batches(batches, schema=schema)

    def _metadata(self, chunk: Chunk, generation: int) -> dict[str, pa.Array]:
        count = len(chunk)
        stamps = chunk.timestamps_ms
        stamped = holdable(stamps)
        times = pa.array(np.where(stamped, stamps, 0) * 1_000, mask=~stamped).cast(pa.timestamp("us", tz="UTC"))
        return {
            "_kafka_partition": pa.repeat(pa.scalar(chunk.partition, pa.int32()), count),
            "_kafka_offset": pa.array(chunk.offsets),
            "_kafka_timestamp": times,
            "_kafka_key": pa.nulls(count, pa.binary()) if self.key_masked else chunk.keys,
            "_schema_id": pa.repeat(pa.scalar(chunk.schema_id, pa.int32()), count),
            "_generation": pa.repeat(pa.scalar(generation, pa.int32()), count),
        }


def write_rows(table: Table, rows: pa.Table, product: Product) -> Written:
    """Write rows as one data file of the table. A batch without rows makes no file.

    Raises:
        Unavailable: if storage fails (a full disk, a time-out); nothing is committed, the rows can be written again.
        ProductStopped: if the table is partitioned, which this version does not write.
    """
    metadata = table.metadata
    if not metadata.spec().is_unpartitioned():
        raise ProductStopped(
            "the table has a partition spec, which this version of headrace cannot write",
            where=f"table {product.name}",
            hint="take the partition spec back, or upgrade headrace",
        )
    if not rows.num_rows:
        return Written.for_(table, None)
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
    with catalog_errors(f"table {product.name}"):
        output = table.io.new_output(path)
        with output.create() as stream:
            with pq.ParquetWriter(stream, rows.schema, **_writer_options(rows.schema)) as writer:
                writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
            parquet = writer.writer.metadata
        size_bytes = len(output)
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=parquet,
        stats_columns=compute_statistics_plan(table.schema(), metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(table.schema()),
    )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=PartitionValues(),
        file_size_in_bytes=size_bytes,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    return Written.for_(table, file)


def _writer_options(schema: pa.Schema) -> dict[str, object]:
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in _NO_DICTIONARY],
        "column_encoding": dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        "store_schema": False,
    }
