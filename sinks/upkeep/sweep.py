"""Orphans: files in a table's folder that nothing leads to.

A commit that failed leaves some, and so does a process that died. What is being written has no snapshot yet either, and
a landing may hold written files for as long as its catalog is down: so only old files count.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from headrace.sinks.upkeep.condemned import Records
from headrace.sinks.upkeep.storage import DATA, METADATA, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyiceberg.table import Table

    from headrace.sinks.upkeep.needs import Needs
    from headrace.sinks.upkeep.storage import Folder, Listed

__all__ = ["orphans_of"]

# What Iceberg's writers call their files. Others, such as a Hadoop catalog's `version-hint.text`, are left alone.
_ENDINGS = (".parquet", ".orc", ".avro", ".puffin", ".stats", ".metadata.json", ".metadata.json.gz")


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


def orphans_of(table: Table, folder: Folder, needs: Needs, before_s: float) -> Iterator[Listed]:
    """Yield the files that nothing leads to and that have not been changed since a time.

    Reads all manifests of the table before the first one is yielded, in 8 bytes a file.

    Args:
        table: the table.
        folder: its folder.
        needs: reads what it needs.
        before_s: seconds since 1970 UTC.

    Raises:
        OSError, ValueError …: what cannot be read; see `Needs.manifests`.
    """
    # Listed first: what is added to the table meanwhile is younger than any orphan.
    old = [
        file
        for below in (DATA, METADATA)
        for file in folder.files(below)
        if file.changed_s is not None and file.changed_s < before_s and file.path.endswith(_ENDINGS)
    ]
    if not old:
        return
    needed = _Names(_needed(table, needs))
    for file in old:
        if name_of(file.path) not in needed and folder.holds(file.path) and not Records(folder).is_one(file.path):
            yield file


def _needed(table: Table, needs: Needs) -> Iterator[str]:
    yield from needs.metadata_names(table)
    for path in needs.data_paths(table):
        yield name_of(path)
