"""Data files: decoded chunks become Parquet files of the table's columns, one a partition.

A partitioned table's rows are brought into the order of their partitions, and within one into the table's sort order;
then the files are written one after another, so that late events of hundreds of partitions take no more memory than
those of one.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record as PartitionValues
from pyiceberg.types import ListType, MapType, StructType

from headrace.schemas.catalog import catalog_errors
from headrace.schemas.changes import column_paths
from headrace.schemas.errors import ProductStopped
from headrace.schemas.stamps import stamp_column
from headrace.schemas.types import METADATA_NAMES, arrow_field
from headrace.sinks.bounds import bound_texts, drop_partial
from headrace.sinks.evolution import followed_version
from headrace.sinks.partitioning import layout_of
from headrace.streams.columns import Columns
from headrace.streams.masked import masks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyiceberg.table import Table
    from pyiceberg.types import IcebergType

    from headrace.schemas.avro import Record
    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.masking import Masker
    from headrace.schemas.product import Product
    from headrace.sinks.batch import Chunk

# Engines split work by row groups and skip by their statistics: fewer than 400,000 rows cost both.
ROW_GROUP_ROWS = 500_000
# A file takes some 10 ms and some kB of metadata: a batch of more files would take minutes, and queries with it. A year
# of hours has 8,784.
MAX_PARTITIONS = 10_000
# Offsets and times ascend mostly, so their differences are tiny; the others repeat, which dictionaries hold best.
_DELTA = ("_kafka_offset", "_kafka_timestamp")
_NO_DICTIONARY = frozenset({*_DELTA, "_kafka_key"})
# A contract may have files of a day swept that no snapshot names. Whatever waits for half of it is written anew.
MAX_AGE_S = 43_200.0


@dataclass(frozen=True, slots=True)
class Written:
    """Written files and what they were written for: they can be committed only while all that still is the table's own.

    ``version`` is the subject's version that the table had followed, ``masked`` the paths that it masked: either may
    have grown since. ``at_s`` is when the first of them was begun: seconds since 1970 UTC.
    """

    files: tuple[DataFile, ...]
    schema_id: int
    spec_id: int
    version: int
    masked: frozenset[str]
    at_s: float = field(compare=False)

    @classmethod
    def for_(cls, table: Table, files: tuple[DataFile, ...], at_s: float | None = None) -> Self:
        """Return files that were written for the table as it is in this handle; ``at_s``: None: just now."""
        metadata = table.metadata
        return cls(
            files,
            metadata.current_schema_id,
            metadata.default_spec_id,
            followed_version(table),
            frozenset(masks_of(table)),
            time.time() if at_s is None else at_s,
        )

    def fits(self, table: Table) -> bool:
        """Tell whether the table still has schema, partitioning, version and masks that the files were written for.

        And whether they are young: old ones, which a landing may hold while something does not answer, may be deleted
        as orphans between a look at the table and the commit. A clock that was set back tells no age.
        """
        return abs(time.time() - self.at_s) < MAX_AGE_S and self == Written.for_(table, self.files)


def unfit(product: Product, schema_id: int, what: str) -> ProductStopped:
    """Return the error of events that have no place in the table, though it says that it has followed their version."""
    return ProductStopped(
        f"events of schema id {schema_id} {what}",
        where=f"table {product.name}",
        hint="either another engine has changed the table's columns: take that change back; or the registry has lost a "
        f"version of {product.subject}: restore it; then start the sink again",
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """How a product's events become rows.

    Attributes:
        product: the product.
        reader: the newest schema that the table has followed.
        masker: the product's masks.
        key_masked: whether a key field is masked: then the column ``_kafka_key`` is null.
        names: by schema id, where the table's columns stand in events of that version (`Lineage.column_names`).
        astray: by schema id, why nobody knows in which columns events of that version belong.
    """

    product: Product
    reader: Record
    masker: Masker
    key_masked: bool
    names: Mapping[int, Mapping[str, str | None]] = field(default_factory=lambda: MappingProxyType({}))
    astray: Mapping[int, HeadraceError] = field(default_factory=lambda: MappingProxyType({}))

    def rows(self, table: Table, chunks: Sequence[Chunk], generation: int) -> pa.Table:
        """Return the chunks' rows in the table's columns, masked.

        Raises:
            ProductStopped: if a column is not what events of some version need, because somebody else has changed the
                table, or the registry has lost a version.
            Unavailable: if the registry does not know a version yet that the table has followed.
        """
        fields = table.schema().fields
        schema = columns_of(table)
        columns = Columns([each for each in fields if each.name not in METADATA_NAMES], self.reader, self.masker)
        # What no version has put into the table holds no event's values, whatever its name.
        strange = dict.fromkeys(column_paths(columns.fields))
        batches = []
        for chunk in chunks:
            if not len(chunk):
                continue
            if chunk.schema_id in self.astray:
                raise self.astray[chunk.schema_id]
            names = self.names.get(chunk.schema_id)
            if names is None and self.names:
                raise self._unfit(chunk.schema_id, "were written with a version that the registry has lost")
            try:
                found = columns.of(chunk.events, {} if names is None else {**strange, **names})
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise self._unfit(chunk.schema_id, "hold values of another type than the table's columns") from None
            for each, array in zip(columns.fields, found, strict=True):
                if _lacks_values(array, each.field_type, required=each.required):
                    raise self._unfit(chunk.schema_id, f"lack values for {each.name}, which is never null in the table")
            arrays = dict(zip((each.name for each in columns.fields), found, strict=True))
            arrays |= self._metadata(chunk, generation)
            batches.append(pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema))
        return pa.Table.from_batches(batches, schema=schema)

    def _unfit(self, schema_id: int, what: str) -> ProductStopped:
        return unfit(self.product, schema_id, what)

    def _metadata(self, chunk: Chunk, generation: int) -> dict[str, pa.Array]:
        count = len(chunk)
        return {
            "_kafka_partition": pa.repeat(pa.scalar(chunk.partition, pa.int32()), count),
            "_kafka_offset": pa.array(chunk.offsets),
            "_kafka_timestamp": stamp_column(chunk.timestamps_ms),
            "_kafka_key": pa.nulls(count, pa.binary()) if self.key_masked else chunk.keys,
            "_schema_id": pa.repeat(pa.scalar(chunk.schema_id, pa.int32()), count),
            "_generation": pa.repeat(pa.scalar(generation, pa.int32()), count),
        }


def _lacks_values(array: pa.Array, kind: IcebergType, *, required: bool) -> bool:
    """Tell whether there are nulls where a column, or what lies in it, takes none.

    The values come from `Columns.of`: what is required has no null there that only stands under its parent's.
    """
    if required and array.null_count:
        return True
    match kind:
        case StructType(fields=fields):
            children = zip(map(array.field, range(len(fields))), fields, strict=True)
            return any(_lacks_values(child, field.field_type, required=field.required) for child, field in children)
        case ListType():
            return _lacks_values(array.flatten(), kind.element_type, required=kind.element_required)
        case MapType():
            return _lacks_values(array.items, kind.value_type, required=kind.value_required)
        case _:
            return False


def columns_of(table: Table) -> pa.Schema:
    """Return the columns of the table's data files, as they are now."""
    return pa.schema([arrow_field(each) for each in table.schema().fields])


def write_rows(table: Table, rows: pa.Table, product: Product) -> Written:
    """Write rows as data files of the table, one a partition. A batch without rows makes no file.

    If the table has a sort order, the rows of each file are sorted by it; otherwise they stay in their order.

    Raises:
        Unavailable: if storage fails (a full disk, a time-out); nothing is committed, the rows can be written again.
        ProductStopped: if the table has a partition spec that this version cannot write, or the rows lie in too many
            partitions.
    """
    metadata = table.metadata
    found = layout_of(metadata.spec().fields, metadata.sort_order(), table.schema())
    if found is None:
        raise ProductStopped(
            "the table has a partition spec that this version of headrace cannot write",
            where=f"table {product.name}",
            hint="take the partition spec back, or upgrade headrace",
        )
    if not rows.num_rows:
        return Written.for_(table, ())
    layout, is_sorted = found
    count, parts = layout.split(rows)
    if count > MAX_PARTITIONS:
        raise ProductStopped(
            f"the rows of one batch lie in {count:,} partitions, and each would be a file of its own",
            where=f"table {product.name}",
            hint="partition the table by fewer values, such as day in the place of hour, or bucket[16] of a field",
        )
    order_id, began_s = metadata.default_sort_order_id if is_sorted else None, time.time()
    files = (write_file(table, [part.rows], PartitionValues(*part.values), order_id, product) for part in parts)
    return Written.for_(table, tuple(files), began_s)


def write_file(
    table: Table, parts: Iterable[pa.Table], partition: PartitionValues, order_id: int | None, product: Product
) -> DataFile:
    """Write one data file of the table, part by part; each part is row groups of its own.

    Args:
        table: the table as it is now: the file is written for its schema and its partition spec.
        parts: the rows in the file's order, in the columns that `columns_of` tells.
        partition: the values of the partition that all rows lie in.
        order_id: the sort order that the rows are in; None: in none.
        product: the product.

    Raises:
        Unavailable: if storage fails; what has been written of the file is no part of the table.
    """
    metadata, schema = table.metadata, columns_of(table)
    # Its partition is not in the path: a value may be longer than a file's name may be, and paths stand in messages.
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
    with catalog_errors(f"table {product.name}"):
        output = table.io.new_output(path)
        with output.create() as stream:
            with pq.ParquetWriter(stream, schema, **_writer_options(schema)) as writer:
                for rows in parts:
                    writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
            parquet = writer.writer.metadata
        size_bytes = len(output)
    field_ids = parquet_path_to_id_mapping(table.schema())
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=parquet,
        stats_columns=compute_statistics_plan(table.schema(), metadata.properties),
        parquet_column_mapping=field_ids,
    )
    drop_partial(statistics, parquet, field_ids)
    bound_texts(statistics)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size_bytes,
        sort_order_id=order_id,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _writer_options(schema: pa.Schema) -> dict[str, object]:
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in _NO_DICTIONARY],
        "column_encoding": dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        "store_schema": False,
    }
