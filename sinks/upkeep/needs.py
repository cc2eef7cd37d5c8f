"""What a table's snapshots need: the names of all files that its metadata leads to.

All snapshots count, of every branch and tag and of none. What cannot be read whole raises: nothing may be deleted on
the strength of half an answer.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.avro.file import AvroFile
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    read_manifest_list,
)

from headrace.sinks.upkeep.storage import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyiceberg.io import FileIO
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata

__all__ = ["Manifest", "Needs", "lists_of", "live_paths"]

# Lists that are remembered: those of all snapshots that a contract can keep, and as many that have just expired.
_MOST_LISTS = 600


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: its live files were added by snapshots of the sequence numbers ``first`` to ``last``."""

    path: str
    first: int
    last: int


class Needs:
    """Reads manifest lists, which never change, once each. For one thread."""

    def __init__(self) -> None:
        self._lists: OrderedDict[str, tuple[Manifest, ...]] = OrderedDict()

    def manifests(self, io: FileIO, manifest_lists: Iterable[str]) -> dict[str, Manifest]:
        """Return the manifests of manifest lists by path.

        Raises:
            OSError, ValueError …: what pyiceberg raises at a file that is gone or damaged.
        """
        return {each.path: each for path in manifest_lists for each in self._manifests(io, path)}

    def _manifests(self, io: FileIO, path: str) -> tuple[Manifest, ...]:
        found = self._lists.get(path)
        if found is None:
            found = tuple(
                Manifest(each.manifest_path, each.min_sequence_number or 0, each.sequence_number or 0)
                for each in read_manifest_list(io.new_input(path))
            )
            self._lists[path] = found
            while len(self._lists) > _MOST_LISTS:
                self._lists.popitem(last=False)
        else:
            self._lists.move_to_end(path)
        return found

    def metadata_names(self, table: Table) -> set[str]:
        """Return the names of the metadata's own files: its versions, statistics, manifest lists and manifests.

        Raises:
            OSError, ValueError …: as `manifests`.
        """
        metadata = table.metadata
        lists = lists_of(metadata)
        paths = [
            table.metadata_location,
            *(entry.metadata_file for entry in metadata.metadata_log),
            *(each.statistics_path for each in (*metadata.statistics, *metadata.partition_statistics)),
            *lists,
            *self.manifests(table.io, lists),
        ]
        return {name_of(path) for path in paths}

    def data_paths(self, table: Table, since: int = 0) -> Iterator[str]:
        """Yield the paths of live data and delete files, some of them several times; the newest manifests' come first.

        Args:
            table: the table.
            since: manifests that were written before the snapshot of this sequence number are passed over.

        Raises:
            OSError, ValueError …: as `manifests`.
        """
        manifests = self.manifests(table.io, lists_of(table.metadata)).values()
        for manifest in sorted(manifests, key=lambda each: each.last, reverse=True):
            if manifest.last >= since:
                yield from live_paths(table.io, manifest.path)


def lists_of(metadata: TableMetadata) -> list[str]:
    """Return the manifest lists of all snapshots."""
    return [snapshot.manifest_list for snapshot in metadata.snapshots]


def live_paths(io: FileIO, manifest: str) -> Iterator[str]:
    """Yield the paths of a manifest's live files.

    Raises:
        OSError, ValueError …: what pyiceberg raises at a file that is gone or damaged.
    """
    # What `ManifestFile.fetch_manifest_entry` reads, but one after the other.
    with AvroFile[ManifestEntry](
        io.new_input(manifest),
        MANIFEST_ENTRY_SCHEMAS[DEFAULT_READ_VERSION],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as entries:
        for entry in entries:
            if entry.status is not ManifestEntryStatus.DELETED:
                yield entry.data_file.file_path
