"""Making snapshots with pyiceberg's private producers, on a handle and on a base of our choice.

pyiceberg's own transaction copies the whole metadata some 16 times a commit, appends to heads only, and knows no
`replace`. tests/unit/test_commit.py checks what is relied on; pyiceberg's version is pinned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AddSnapshotUpdate
from pyiceberg.table.update.snapshot import _MergeAppendFiles

from headrace.schemas.errors import Unavailable
from headrace.sinks import partition_types  # noqa: F401 - mends what manifests hold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.table.update import TableUpdate

    from headrace.sinks.draft import Draft


class _Handle:
    """What a producer needs of a transaction: the table, as if the branch's head were the draft's base."""

    def __init__(self, table: Table, draft: Draft) -> None:
        self._table = table
        metadata = table.metadata
        if draft.base is not None:
            head = SnapshotRef.model_validate({"snapshot-id": draft.base, "type": SnapshotRefType.BRANCH})
            metadata = metadata.model_copy(update={"refs": {**metadata.refs, draft.branch: head}})
        self._metadata = metadata

    @property
    def table_metadata(self) -> TableMetadata:
        return self._metadata


class _Rewrite(_MergeAppendFiles):
    """Puts files in the place of others of its base, or takes files out of it.

    Reads the manifests of data files until all have been found.
    `new_snapshot` hands its files over as ``replaced``.
    """

    replaced: Mapping[str, DataFile]

    def _build_delete_files_partition_predicate(self) -> None:
        """The files are found by their paths, whatever their partitions are."""

    def _existing_manifests(self) -> list[ManifestFile]:
        return self._split[0]

    def _deleted_entries(self) -> list[ManifestEntry]:
        # Asked first and by the thread that stages: the manifests are split once.
        self._split = self._split_manifests()
        return self._split[1]

    def _split_manifests(self) -> tuple[list[ManifestFile], list[ManifestEntry]]:
        """Return the base's manifests without the replaced files, and these files' entries as deleted.

        Raises:
            Unavailable: if one of them is not there any more: somebody else has rewritten or deleted it.
        """
        kept: list[ManifestFile] = []
        deleted: list[ManifestEntry] = []
        left = set(self.replaced)
        # The newest manifests come first, and small files are mostly new.
        for manifest in super()._existing_manifests():
            entries = self._entries(manifest) if left and manifest.content is ManifestContent.DATA else []
            gone = [entry for entry in entries if entry.data_file.file_path in left]
            if not gone:
                kept.append(manifest)
                continue
            left.difference_update(entry.data_file.file_path for entry in gone)
            deleted.extend(self._with_status(entry, ManifestEntryStatus.DELETED) for entry in gone)
            stay = [entry for entry in entries if entry.data_file.file_path not in self.replaced]
            if stay:
                with self.new_manifest_writer(self.spec(manifest.partition_spec_id)) as writer:
                    for entry in stay:
                        writer.add_entry(self._with_status(entry, ManifestEntryStatus.EXISTING))
                kept.append(writer.to_manifest_file())
        if left:
            raise Unavailable(f"{len(left)} files that were to be replaced are not in the table any more")
        return kept, deleted

    def _entries(self, manifest: ManifestFile) -> list[ManifestEntry]:
        return [
            entry
            for entry in self.fetch_manifest_entry(manifest, discard_deleted=True)
            if entry.data_file.content == DataFileContent.DATA
        ]

    def _with_status(self, entry: ManifestEntry, status: ManifestEntryStatus) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=status,
            snapshot_id=self.snapshot_id if status is ManifestEntryStatus.DELETED else entry.snapshot_id,
            sequence_number=entry.sequence_number,
            file_sequence_number=entry.file_sequence_number,
            data_file=entry.data_file,
        )


def new_snapshot(table: Table, draft: Draft, summary: Mapping[str, str]) -> tuple[Snapshot, tuple[TableUpdate, ...]]:
    """Write a draft's manifests and manifest list; return its snapshot, and the updates that make it the branch's head.

    Nothing is visible before a commit of these updates lands.

    Args:
        table: the handle that the draft was made on.
        draft: the draft.
        summary: what the snapshot's summary says beside the numbers.

    Raises:
        Unavailable: a file that is to be replaced is not in the base.
    """
    producer = _producer(table, draft, summary)
    updates, _ = producer._commit()  # noqa: SLF001 - see the module's docstring
    added, *others = updates
    snapshot: Snapshot = added.snapshot  # type: ignore[union-attr]  # the first update adds the snapshot
    if draft.replaced and snapshot.summary is not None:
        # pyiceberg sums up no `replace`. Whoever reads a table by what was appended passes such a snapshot over.
        summed = snapshot.summary.model_copy(update={"operation": Operation.REPLACE})
        snapshot = snapshot.model_copy(update={"summary": summed})
    return snapshot, (AddSnapshotUpdate(snapshot=snapshot), *others)


def _producer(table: Table, draft: Draft, summary: Mapping[str, str]) -> _MergeAppendFiles:
    gone = (*draft.replaced, *draft.removed)
    kind = _Rewrite if gone else _MergeAppendFiles
    producer = kind(
        operation=Operation.OVERWRITE if gone else Operation.APPEND,
        transaction=cast("Transaction", _Handle(table, draft)),
        io=table.io,
        branch=draft.branch,
        snapshot_properties=dict(summary),
    )
    for file in draft.files:
        producer.append_data_file(file)
    if isinstance(producer, _Rewrite):
        producer.replaced = {file.file_path: file for file in gone}
        for file in gone:
            producer.delete_data_file(file)
    return producer
