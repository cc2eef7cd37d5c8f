"""One data file's rows, in the columns that the table has now, a batch of bounded size at a time.

pyiceberg's scans read as many row groups ahead as have two million rows between them: of long rows that compress well,
a file of a few hundred kilobytes takes gigabytes of memory. So the file is read here, and only what its columns are to
the table's is pyiceberg's to say (contract tests hold what is relied on). Deletes are not looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import _get_column_projection_values, _to_requested_schema, pyarrow_to_schema
from pyiceberg.schema import prune_columns
from pyiceberg.types import ListType, MapType

from headrace.streams import projection  # noqa: F401 - mends how arrays become those of the table's columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# What a batch takes in memory, about. Nothing but reading rows tells how large they are.
BATCH_BYTES = 16 << 20
FIRST_ROWS = 1_024
MOST_ROWS = 128 << 10


@dataclass(slots=True)
class FileRows:
    """Reads data files of one table, one after the other; their rows are taken to be of one kind.

    Attributes:
        table: the table as it was loaded.
    """

    table: Table
    _batch_rows: int = FIRST_ROWS

    def of(self, file: DataFile) -> Iterator[pa.RecordBatch]:
        """Yield a Parquet file's rows in their order.

        Raises:
            ValueError: the file says neither which fields its columns are, nor does the table.
            ResolveError: it lacks a column that the table requires.
            ArrowException, OSError: it is damaged, or storage fails.
        """
        metadata, schema = self.table.metadata, self.table.schema()
        with (
            self.table.io.new_input(file.file_path).open() as stream,
            pq.ParquetFile(stream, pre_buffer=True) as parquet,
        ):
            found = pyarrow_to_schema(
                parquet.schema_arrow,
                metadata.name_mapping(),
                downcast_ns_timestamp_to_us=True,
                format_version=metadata.format_version,
            )
            leaves = {each for each in schema.field_ids if not isinstance(schema.find_type(each), ListType | MapType)}
            wanted = prune_columns(found, leaves, select_full_types=False)
            spec = metadata.specs().get(file.spec_id)
            missing = _get_column_projection_values(file, schema, schema, spec, found.field_ids)
            for batch in self._batches(parquet, [field.name for field in wanted.fields]):
                yield _to_requested_schema(
                    schema,
                    wanted,
                    batch,
                    downcast_ns_timestamp_to_us=True,
                    projected_missing_fields=missing,
                    allow_timestamp_tz_mismatch=True,
                )

    def _batches(self, parquet: pq.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
        for group in range(parquet.num_row_groups):
            rows = size_bytes = 0
            for batch in parquet.iter_batches(self._batch_rows, row_groups=[group], columns=names):
                rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
                yield batch
            if size_bytes:
                self._batch_rows = max(1, min(MOST_ROWS, BATCH_BYTES * rows // size_bytes))
