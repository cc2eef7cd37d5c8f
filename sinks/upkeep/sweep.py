"""Orphans: files in a table's folder that nothing leads to.

A commit that failed leaves some, and so does a process that died. What is being written has no snapshot yet either, so
only old files count; and nobody commits files of half that age (`headrace.sinks.files.Written.fits`).
"""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from headrace.sinks.upkeep.condemned import Records
from headrace.sinks.upkeep.storage import DATA, METADATA, METADATA_ENDINGS, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyiceberg.table import Table

    from headrace.sinks.upkeep.needs import Needs
    from headrace.sinks.upkeep.neighbours import Neighbours
    from headrace.sinks.upkeep.storage import Folder, Listed

__all__ = ["orphans_of"]

# What Iceberg's writers call their files. Others, such as a Hadoop catalog's `version-hint.text`, are left alone.
_ENDINGS = (".parquet", ".orc", ".avro", ".puffin", ".stats")
# Where this is not "true", the versions that the table's log does not name any more are kept on purpose.
_DROPS_VERSIONS = "write.metadata.delete-after-commit.enabled"


class _Names:
    """A set of names in 8 bytes each. It may claim a name that it was not given, and so an orphan stays."""

    def __init__(self, names: Iterable[str]) -> None:
        hashes = array("q")
        for name in names:
            hashes.append(hash(name))
        self._hashes = np.unique(np.frombuffer(hashes, np.int64)) if hashes else np.empty(0, np.int64)

    def __contains__(self, name: str) -> bool:
        own = hash(name)
        place = int(np.searchsorted(self._hashes, own))
        return place < len(self._hashes) and int(self._hashes[place]) == own


def orphans_of(table: Table, folder: Folder, needs: Needs, before_s: float, neighbours: Neighbours) -> Iterator[Listed]:
    """Yield the files that nothing leads to and that have not been changed since a time.

    Reads all manifests of the table before the first one is yielded, and keeps 8 bytes a file.

    Args:
        table: the table.
        folder: its folder.
        needs: reads what it needs.
        before_s: seconds since 1970 UTC.
        neighbours: the other tables in its folder; there is none among the files while one of these has files.

    Raises:
        OSError, ValueError …: what cannot be read; see `Needs.manifests`.
    """
    if neighbours.have_files:
        return
    # What the table is given meanwhile is younger than any orphan.
    needed, records = _Names(chain(_needed(table, needs), neighbours.metadata)), Records(folder)
    drops_versions = table.properties.get(_DROPS_VERSIONS, "false").strip().lower() == "true"
    endings = _ENDINGS + METADATA_ENDINGS if drops_versions else _ENDINGS
    for below in (DATA, METADATA):
        for file in folder.files(below):
            old = file.changed_s is not None and file.changed_s < before_s
            if not old or not file.path.endswith(endings) or name_of(file.path) in needed:
                continue
            if folder.holds(file.path) and not records.is_one(file.path):
                yield file


def _needed(table: Table, needs: Needs) -> Iterator[str]:
    yield from needs.metadata_names(table)
    for path in needs.data_paths(table):
        yield name_of(path)
