"""An unreliable storage, made of a real one: it runs full, loses answers, answers late, and cannot read."""

from __future__ import annotations

import errno
import os
import re
import threading
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import PY_IO_IMPL
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from pyiceberg.io import InputStream, OutputStream

# Each kind of file that a commit writes, by its location.
WRITTEN = {
    "data files": r"\.parquet$",
    "manifests": r"-m\d+\.avro$",
    "manifest lists": r"/snap-[^/]*\.avro$",
    "metadata": r"\.metadata\.json$",
}


class Trouble(StrEnum):
    """What may happen to one file."""

    FULL = "it can be begun, and there is no room for its bytes"
    UNKNOWN = "it is written in full, and the answer is lost"
    LATE = "it is written in full, and others do much before the answer comes"
    UNREADABLE = "its bytes cannot be read this time"
    READ_LATE = "it is read, and others do much before its bytes come"


_READING = {Trouble.UNREADABLE, Trouble.READ_LATE}


_DISK = "test.disk"
# pyiceberg makes a storage from properties alone, at many places.
_DISKS: MutableMapping[str, Disk] = WeakValueDictionary()


class Disk:
    """A storage's state: what happens to the next files of a kind.

    Attributes:
        name: what the properties of catalogs on it say.
        met: the locations to which it has happened.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._left = 0
        self._kind = ""
        self._trouble = Trouble.FULL
        self.meanwhile: Callable[[], object] = lambda: None
        self.met: list[str] = []

    def fill(self, failures: int, kind: str) -> None:
        """Let the next outputs fail whose location matches the regular expression ``kind``."""
        self.trouble(Trouble.FULL, failures, kind)

    def trouble(self, trouble: Trouble, times: int, kind: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Let something happen to the next files whose location matches ``kind``; ``meanwhile`` is what others do."""
        with self._lock:
            self._left, self._kind, self._trouble, self.meanwhile = times, kind, trouble, meanwhile

    def next(self, location: str, *, reading: bool) -> Trouble | None:
        """Return what happens to this file now."""
        with self._lock:
            if not self._left or (self._trouble in _READING) != reading or not re.search(self._kind, location):
                return None
            self._left -= 1
            self.met.append(location)
            return self._trouble


class _Lost:
    """A stream whose end is never heard of."""

    def __init__(self, stream: Any, disk: Disk, *, late: bool) -> None:
        self._stream, self._disk, self._late = stream, disk, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def close(self) -> None:
        if self._stream.closed:
            return
        self._stream.close()
        if not self._late:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self._disk.meanwhile()


class _TroubledFile(PyArrowFile):
    """A file to which something happens."""

    trouble: Trouble
    disk: Disk

    def create(self, overwrite: bool = False) -> OutputStream:
        stream = super().create(overwrite)
        if self.trouble is Trouble.FULL:
            stream.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.location)
        lost: Any = _Lost(stream, self.disk, late=self.trouble is Trouble.LATE)
        return lost  # type: ignore[no-any-return]  # a stream in all that is asked of it

    def open(self, seekable: bool = True) -> InputStream:
        if self.trouble is Trouble.UNREADABLE:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.location)
        if self.trouble is Trouble.READ_LATE:
            self.disk.meanwhile()
        return super().open(seekable)


class TroubledIO(PyArrowFileIO):
    """A storage on the :class:`Disk` that its properties name."""

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to be written."""
        return self._troubled(super().new_output(location), reading=False)

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to be read."""
        return self._troubled(super().new_input(location), reading=True)

    def _troubled(self, file: PyArrowFile, *, reading: bool) -> PyArrowFile:
        disk = _DISKS[self.properties[_DISK]]
        trouble = disk.next(file.location, reading=reading)
        if trouble is None:
            return file
        troubled = _TroubledFile(file.location, file._path, file._filesystem)
        troubled.trouble, troubled.disk = trouble, disk
        return troubled


class DiskCatalog(SqlCatalog):
    """A catalog whose tables lie on a :class:`Disk`."""

    def __init__(self, name: str, disk: Disk, **properties: Any) -> None:
        _DISKS[disk.name] = disk
        io = f"{TroubledIO.__module__}.{TroubledIO.__name__}"
        super().__init__(name, **properties, **{PY_IO_IMPL: io, _DISK: disk.name})
