"""A table's own folder: what lies in it, and deleting files of it.

pyiceberg lists no folders, so this asks the file system behind its PyArrow FileIO: local files, S3 and Google's. Where
there is another one, nothing is listed, and so nothing is ever deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow.fs import FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.utils.concurrent import ExecutorFactory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyarrow.fs import FileInfo, FileSystem
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

__all__ = ["DATA", "METADATA", "METADATA_ENDINGS", "Folder", "Listed", "folder_of", "name_of"]

# The names of S3 among engines: Spark and Hive write s3a and s3n.
_S3 = frozenset({"s3", "s3a", "s3n"})
_LISTED = frozenset({"file", "gs", *_S3})
_URI = re.compile(r"([a-z][a-z0-9+.-]*):(?://)?(.*)", re.DOTALL)
# Where engines put a table's files. Whatever else somebody lays beside them is not the table's.
DATA, METADATA = "data", "metadata"
# What the versions of a table's metadata are called.
METADATA_ENDINGS = (".metadata.json", ".metadata.json.gz")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that lies there; ``changed_s`` is in seconds since 1970 UTC, None: the storage does not say."""

    path: str
    size: int
    changed_s: float | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A table's folder.

    Attributes:
        location: the table's location, without a slash at its end.
    """

    location: str
    _io: FileIO
    _storage: FileSystem
    _root: str

    def holds(self, path: str) -> bool:
        """Tell whether a file is the table's own, and its name means the same to whoever reads it."""
        inner = _without_scheme(self.location) + "/"
        # pyiceberg cuts paths at "?" and "#", as those of addresses.
        plain = not any(sign in path for sign in ("/../", "/./", "?", "#", "\0"))
        return plain and _without_scheme(path).startswith(tuple(f"{inner}{folder}/" for folder in (DATA, METADATA)))

    def files(self, below: str, *, recursive: bool = True) -> Iterator[Listed]:
        """Yield the files in a folder of the table; none, where there is no such folder.

        Raises:
            OSError: the storage does not answer.
        """
        found: Sequence[FileInfo] = self._storage.get_file_info(
            FileSelector(f"{self._root}/{below}", allow_not_found=True, recursive=recursive)
        )
        for info in found:
            if info.type is FileType.File and info.path.startswith(f"{self._root}/"):
                changed_s = None if info.mtime is None else info.mtime.timestamp()
                yield Listed(f"{self.location}{info.path[len(self._root) :]}", info.size or 0, changed_s)

    def delete(self, paths: Sequence[str]) -> dict[str, OSError]:
        """Delete files, several at once; return those that could not be, with what the storage said.

        A file that is not there (any more) is as good as deleted.
        """
        outcomes = ExecutorFactory.get_or_create().map(self._delete, paths)
        return {path: error for path, error in zip(paths, outcomes, strict=True) if error is not None}

    def _delete(self, path: str) -> OSError | None:
        try:
            self._io.delete(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return error
        return None

    def read(self, path: str, most: int | None = None) -> bytes | None:
        """Return a file's content, or so many bytes of it; None: it is not there any more.

        Raises:
            OSError: the storage does not answer.
        """
        try:
            with self._io.new_input(path).open() as stream:
                return bytes(stream.read() if most is None else stream.read(most))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Write a file that is not there yet.

        Raises:
            OSError: the storage does not take it.
        """
        with self._io.new_output(path).create() as stream:
            stream.write(content)


def folder_of(table: Table) -> Folder | None:
    """Return a table's folder; None: nothing lists the storage that it lies on."""
    io, location = table.io, table.location().rstrip("/")
    if not isinstance(io, PyArrowFileIO):
        return None
    scheme, place, root = io.parse_location(location, io.properties)
    if scheme not in _LISTED or not root.strip("/"):
        return None
    return Folder(location, io, io.fs_by_scheme(scheme, place), root.rstrip("/"))


def name_of(path: str) -> str:
    """Return a file's own name.

    Files are compared by it: a name holds an id that no other file has, while a path may be written in several ways
    (``s3`` and ``s3a``, ``file:/`` and ``file:///``, a symbolic link). Two files of one name are both kept.
    """
    return path.rpartition("/")[2]


def _without_scheme(path: str) -> str:
    found = _URI.fullmatch(path)
    scheme, rest = (found[1], found[2]) if found else ("file", path)
    if scheme == "file":
        return f"file:/{rest.lstrip('/')}"
    return f"{'s3' if scheme in _S3 else scheme}://{rest}"
