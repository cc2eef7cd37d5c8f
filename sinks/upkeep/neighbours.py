"""Other tables whose files lie in a table's folder: there nobody can tell an orphan from a file that somebody needs.

A renamed table leaves its files where they are, and the next table of its name is given the same folder. So are tables
of one name in two catalogs with one warehouse. Each version of a table's metadata names the table's id.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.sinks.upkeep.storage import METADATA, METADATA_ENDINGS, name_of

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headrace.sinks.upkeep.needs import Needs
    from headrace.sinks.upkeep.storage import Folder

__all__ = ["SHARED", "Neighbours", "neighbours_of"]

SHARED = "another table's metadata lie in the table's folder"

# Writers put the id among the first fields; an old table's metadata may have tens of megabytes.
_HEAD_BYTES = 16_384
_ID = re.compile(rb'"table-uuid"\s*:\s*"([0-9A-Fa-f-]{36})"')
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Other tables in a table's folder.

    Attributes:
        have_files: one of them has, or has had, a snapshot, and so files.
        metadata: the names of the metadata of those that have none. Making a table that is there leaves some, too.
    """

    have_files: bool
    metadata: frozenset[str] = frozenset()


def neighbours_of(table: Table, folder: Folder, needs: Needs) -> Neighbours:
    """Return the other tables in a table's folder.

    Raises:
        OSError, ValueError …: what cannot be read; see `Needs.manifests`.
    """
    own, known = str(table.metadata.table_uuid).encode(), needs.metadata_names(table)
    empty = set()
    for file in folder.files(METADATA, recursive=False):
        name = name_of(file.path)
        if not name.endswith(METADATA_ENDINGS) or name in known or _is_of(folder, file.path, own):
            continue
        snapshots = _snapshots(folder, file.path)
        if snapshots:
            return Neighbours(have_files=True)
        if snapshots is not None:
            empty.add(name)
    return Neighbours(have_files=False, metadata=frozenset(empty))


def _is_of(folder: Folder, path: str, own: bytes) -> bool:
    """Tell whether metadata are the table's own, as far as their beginning says."""
    found = _ID.search(_plain(folder.read(path, _HEAD_BYTES) or b""))
    return found is not None and found[1].lower() == own


def _snapshots(folder: Folder, path: str) -> int | None:
    """Return how many snapshots metadata name; None: they are none, or their writer died before they were a table's."""
    try:
        metadata = json.loads(_plain(folder.read(path) or b""))
        return len(metadata.get("snapshots") or ())
    except (ValueError, AttributeError, TypeError):
        return None


def _plain(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(content)
    except zlib.error:
        return b""
