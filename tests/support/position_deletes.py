"""Another engine that deletes rows by writing their positions beside the files, as Spark's merge-on-read does."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
)
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table

# Iceberg table specification, "Reserved Field IDs".
_PATH_ID, _POSITION_ID = "2147483546", "2147483545"


class _DeleteWriter(ManifestWriterV2):
    """Writes a manifest of delete files."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _Deleting(_FastAppendFiles):
    """Adds one delete file."""

    delete_file: DataFile

    def _manifests(self) -> list[ManifestFile]:
        spec = self.spec(self.delete_file.spec_id)
        writer = _DeleteWriter(spec, self.schema(), self.new_manifest_output(), self.snapshot_id, self._compression)
        with writer:
            writer.add(
                ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self.snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=self.delete_file,
                )
            )
        return [writer.to_manifest_file(), *super()._manifests()]


def delete_positions(
    table: Table, file: DataFile, positions: Sequence[int], content: DataFileContent = DataFileContent.POSITION_DELETES
) -> None:
    """Delete rows of one data file by their positions in it; or pretend to delete rows by their values."""
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": _PATH_ID}),
            pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": _POSITION_ID}),
        ]
    )
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}-deletes.parquet")
    output = table.io.new_output(path)
    with output.create() as stream:
        pq.write_table(pa.table([[file.file_path] * len(positions), list(positions)], schema=schema), stream)
    delete_file = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=file.partition,
        record_count=len(positions),
        file_size_in_bytes=len(output),
        equality_ids=[1] if content is DataFileContent.EQUALITY_DELETES else None,
        key_metadata=None,
        sort_order_id=None,
    )
    delete_file.spec_id = file.spec_id
    with table.transaction() as transaction:
        producer = _Deleting(operation=Operation.OVERWRITE, transaction=transaction, io=table.io)
        producer.delete_file = delete_file
        producer.commit()
