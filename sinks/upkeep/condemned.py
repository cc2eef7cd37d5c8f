"""Files that are to be deleted, as small lists in the table's own folder: durable, because processes die.

A list is `metadata/headrace-condemned/<when, ms since 1970 UTC>-<id>.json`. Whoever looks after the table an hour
later, in whichever process, finds it by its name. A file beside the lists tells when the folder was last swept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.sinks.upkeep.storage import Folder

__all__ = ["GRACE_S", "MOST_FILES", "Condemned", "Listing", "Records"]

# A reader that loaded the table before a snapshot expired may go on reading that snapshot for so long.
GRACE_S = 3_600.0
_PLACE = "metadata/headrace-condemned"
_FORMAT = 1
# Bounds a list's size, and with it what one look reads and deletes at once: 10,000 paths are some 2 MB.
MOST_FILES = 10_000
_LIST = re.compile(r"([0-9]{1,15})-[0-9a-f]{32}\.json")
_SWEPT = re.compile(r"swept-([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Condemned:
    """Files of one table that nothing needed when they were written down.

    Attributes:
        table: the table's id.
        files: their paths.
        since: the lowest sequence number that may have added one of its data files; 0: any.
        metadata_only: there is no data file among them.
    """

    table: str
    files: tuple[str, ...]
    since: int = 0
    metadata_only: bool = False

    def to_json(self) -> bytes:
        """Return the list's content."""
        document = {
            "v": _FORMAT,
            "table": self.table,
            "since": self.since,
            "metadata_only": self.metadata_only,
            "files": self.files,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Condemned | None:
        """Return what a list says; None: its writer died while it wrote, or knows another format."""
        try:
            document = json.loads(content)
            files = tuple(str(path) for path in document["files"])
            if document["v"] != _FORMAT or not isinstance(document["metadata_only"], bool):
                return None
            return cls(str(document["table"]), files, int(document["since"]), document["metadata_only"])
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Listing:
    """The lists of a table: their paths with the time when they were written, oldest first; seconds since 1970 UTC.

    That time is the later one of what the writer's clock said and what the storage says.

    Attributes:
        lists: the lists.
        swept_s: when the folder was last swept; None: nobody knows.
        marks: the files that say so.
    """

    lists: tuple[tuple[float, str], ...]
    swept_s: float | None
    marks: tuple[str, ...]

    def due(self, now_s: float) -> list[str]:
        """Return the lists whose time has come, oldest first."""
        return [path for at_s, path in self.lists if at_s + GRACE_S <= now_s]


@dataclass(frozen=True, slots=True)
class Records:
    """A table's lists. What its methods raise: OSError, if the storage does not answer."""

    folder: Folder

    def listing(self) -> Listing:
        """Return what there is."""
        lists: list[tuple[float, str]] = []
        marks: list[tuple[float, str]] = []
        for file in self.folder.files(_PLACE, recursive=False):
            name = file.path.rpartition("/")[2]
            if found := _LIST.fullmatch(name):
                lists.append((max(int(found[1]) / 1_000, file.changed_s or 0.0), file.path))
            elif found := _SWEPT.fullmatch(name):
                marks.append((int(found[1]) / 1_000, file.path))
        swept_s = max((at_s for at_s, _ in marks), default=None)
        return Listing(tuple(sorted(lists)), swept_s, tuple(path for _, path in marks))

    def condemn(self, condemned: Condemned, now_s: float) -> int:
        """Write files down, in lists of bounded size; return how many they are."""
        for files in _portions(condemned.files):
            part = Condemned(condemned.table, files, condemned.since, condemned.metadata_only)
            self.folder.write(self._path(f"{int(now_s * 1_000)}-{uuid4().hex}.json"), part.to_json())
        return len(condemned.files)

    def read(self, path: str) -> Condemned | None:
        """Return a list; None: it is not there any more, or makes no sense."""
        content = self.folder.read(path)
        return None if content is None else Condemned.from_json(content)

    def swept(self, before: Listing, now_s: float) -> None:
        """Note that the folder has been swept."""
        mark = self._path(f"swept-{int(now_s * 1_000)}")
        self.folder.write(mark, b"")
        self.folder.delete([path for path in before.marks if path != mark])

    def is_one(self, path: str) -> bool:
        """Tell whether a file is one of these records, which are no orphans."""
        return path.startswith(self._path(""))

    def _path(self, name: str) -> str:
        return f"{self.folder.location}/{_PLACE}/{name}"


def _portions(files: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for first in range(0, len(files), MOST_FILES):
        yield tuple(files[first : first + MOST_FILES])
